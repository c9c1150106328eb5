"""What an adjoint study found, as one record: its ``report.json``."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any

import numpy as np

from kcnet_eda import __version__
from kcnet_eda.dynamics.adjoint import eq6_gradient, eq6_rows
from kcnet_eda.dynamics.loss_gradient import ACROSS, STEPS, Gradient, relative_error
from kcnet_eda.network.graph import Network
from kcnet_eda.study.adjoint.plan import AdjointPlan
from kcnet_eda.study.store import Result, Status
from kcnet_eda.tools import openvaf
from kcnet_eda.tools.locate import find_openvaf
from kcnet_eda.tools.simulators import NGSPICE

#: What tells an adjoint study's record from other runs'.
STUDY = "adjoint"
_PARAMETERS = ("a", "b", "c", "k")


def gradient_errors(network: Network, found: Gradient, truth: Gradient) -> dict[str, float]:
    """Relative errors in the 2-norm: of ∂L/∂v(0), of ∂L/∂(a, b, c, k) of all edges together, of each of the four, and,
    where there are edges of Eq. (6), of their ∂L/∂(θ1, θ2)."""
    errors = {
        "v0": relative_error(found.v0, truth.v0),
        "edges": relative_error(found.edges, truth.edges),
    }
    errors |= {name: relative_error(found.edges[i], truth.edges[i]) for i, name in enumerate(_PARAMETERS)}
    rows = eq6_rows(network.phases[0].edges)
    if rows.size:
        errors["theta"] = relative_error(eq6_gradient(found.edges[:, rows]), eq6_gradient(truth.edges[:, rows]))
    return errors


def make_record(
    plan: AdjointPlan, results: Sequence[Sequence[Result]], truths: Sequence[Gradient], halved: Sequence[Gradient]
) -> dict[str, Any]:
    """The record of a study whose runs have ended; plain JSON values. ``results`` are [step counts][samples];
    ``halved`` is the software's gradient at half the steps of ``truths``."""
    network, study = plan.network, plan.study
    failed = [
        {"sample": job.sample, "steps": job.settings.steps, "status": r.status, "message": r.message}
        for row, jobs in zip(results, plan.jobs, strict=True)
        for r, job in zip(row, jobs, strict=True)
        if r.status is not Status.PASSED
    ]
    samples: list[dict[str, Any]] = []
    for i, truth in enumerate(truths):
        job = plan.jobs[0][i]
        runs = []
        for steps, row in zip(study.steps, results, strict=True):
            found = row[i].v_end
            errors = (
                None if found is None else gradient_errors(network, Gradient.of_flat(found, network.max_nodes), truth)
            )
            runs.append({"steps": steps, "status": row[i].status, "wall_s": row[i].wall_s, "errors": errors})
        samples.append(
            {
                "sample": job.sample,
                "label": None if plan.data.y is None else job.label,
                "norm_of_v0": float(np.linalg.norm(truth.v0)),
                "norm_of_edges": float(np.linalg.norm(truth.edges)),
                "software_halving": gradient_errors(network, halved[i], truth),
                "runs": runs,
            }
        )
    convergence = [_at_steps(i, study.steps[i], samples) for i in range(len(study.steps))]
    last = convergence[-1]["errors"]
    worst = max((e["max"] for name, e in last.items() if name in ("v0", "edges", "theta")), default=None)
    edges = network.phases[0].edges
    return {
        "study": STUDY,
        "summary": {
            "n": len(truths),
            "failed_runs": len(failed),
            "steps": study.steps[-1],
            "worst": worst,
            "requested": study.error,
            "kept": bool(not failed and worst is not None and worst <= study.error),
            "order": _orders(convergence),
            "software_halving": max(max(s["software_halving"][n] for n in ("v0", "edges")) for s in samples),
        },
        "convergence": convergence,
        "samples": samples,
        "failed": failed,
        "network": {
            "name": network.name,
            "nodes": network.max_nodes,
            "edges": len(edges),
            "eq6_edges": int(eq6_rows(edges).size),
        },
        "loss": {"kind": study.loss, "gain": study.gain},
        "scaling": plan.circuit.scaling.as_dict(),
        "provenance": {
            "kcnet_eda": __version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "simulator": NGSPICE.version(),
            "compiler": openvaf.version(find_openvaf()),
            "level": plan.circuit.level,
            "data": plan.data.name,
            "seed": study.seed,
            "solver": plan.jobs[-1][0].settings.as_dict(plan.circuit.scaling),
            "software": f"RK4 in double precision, differentiated step by step; {STEPS} steps over T and steps of "
            f"{2 * ACROSS:g}·T across each corner of a law",
        },
    }


def _at_steps(i: int, steps: int, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Errors over the samples whose run passed, and the wall time of a run, at one step count."""
    runs = [s["runs"][i] for s in samples]
    errors = [r["errors"] for r in runs if r["errors"] is not None]
    names = errors[0] if errors else {}
    return {
        "steps": steps,
        "n": len(errors),
        "wall_s": float(np.mean([r["wall_s"] for r in runs])),
        "errors": {
            name: {
                "median": float(np.median([e[name] for e in errors])),
                "max": float(np.max([e[name] for e in errors])),
            }
            for name in names
        },
    }


def _orders(convergence: Sequence[dict[str, Any]]) -> dict[str, float] | None:
    """Observed orders: how fast the median errors fall with the steps, by least squares in logarithms; None for a
    single step count, or where a run count had no errors."""
    if len(convergence) < 2 or not all(c["n"] for c in convergence):
        return None
    steps = np.log([c["steps"] for c in convergence])
    found = {}
    for name in convergence[0]["errors"]:
        medians = np.array([c["errors"][name]["median"] for c in convergence])
        if (medians > 0).all():
            found[name] = float(-np.polyfit(steps, np.log(medians), 1)[0])
    return found
