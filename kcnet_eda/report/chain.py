"""The reconciliation chain: from the trained model to the worst corner, step by step, on the samples that runs share.

Each number is computed from a run's ``outputs.npz`` or taken from its record, and carries where it came from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.network.graph import Network, labels
from kcnet_eda.report.runs import Run
from kcnet_eda.study.accuracy import proportion
from kcnet_eda.study.simulate import OUTPUTS, RECORD

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Step = dict[str, Any]

NOT_RUN, RAN = "not run", "run"
#: The steps that are runs of ``kcnet simulate``: level and simulator of the record, name, what is new in it.
_SIMULATED = (
    ("fast engine", "engine", "network in the fast engine", "the engine's fixed steps and single precision"),
    ("behavioral", "ngspice", "behavioural ngspice", "Verilog-A edges, and the error of ngspice's time steps"),
    ("behavioral", "vacask", "behavioural VACASK", "another simulator's time steps on the same edges"),
    ("mos", "ngspice", "MOS level", "transistors: the fit of the cells, corner rounding, leakage and lag"),
)
_NEEDED = ("x0", "v_end", "v_end_software", "label", "index")


@dataclass(frozen=True, eq=False)
class Chain:
    """``steps`` in order; the ``shared`` samples (indices in their data set); ``left_out`` says which runs are in no
    step, and why."""

    steps: list[Step]
    shared: list[int]
    left_out: list[str]


def make_chain(runs: Sequence[Run]) -> Chain:
    """The chain out of ``runs``: of the network that most of them have, the first run of each step."""
    left_out: list[str] = []
    usable = [run for run in runs if run.kind == "simulate" and all(name in run.arrays for name in _NEEDED)]
    usable = [run for run in usable if run.network is not None]
    generative = [run for run in usable if run.record is not None and run.record.get("two_sample")]
    left_out += [f"{run.name}: its outputs are points, no labels" for run in generative]
    usable = [run for run in usable if run not in generative]
    network_of = {id(run): _identity(run) for run in usable}
    kept = list(network_of.values())
    main = max(dict.fromkeys(kept), key=kept.count, default=None)
    chosen: dict[int, Run] = {}
    for run in usable:
        assert run.record is not None
        s = run.record["summary"]
        place = next((i for i, row in enumerate(_SIMULATED) if row[:2] == (s.get("level"), s.get("simulator"))), None)
        if network_of[id(run)] != main:
            left_out.append(f"{run.name}: another network or data set")
        elif place is None:
            left_out.append(f"{run.name}: {s.get('level')} level is no step of the chain")
        elif place in chosen:
            left_out.append(f"{run.name}: {chosen[place].name} is this step already")
        else:
            chosen[place] = run
    shared, rows = _shared(list(chosen.values()), left_out)
    if not shared:
        chosen = {}
    first = next(iter(chosen.values()), None)
    steps = [_trained(first), _reference(first, rows), _not_run("lowered network", "no run solves it in software")]
    truth = None if first is None else first.arrays["v_end_software"][rows[first.name]]
    before = None if truth is None or first is None or first.network is None else labels(first.network, truth)
    for place, (_, _, name, cause) in enumerate(_SIMULATED):
        if place == len(_SIMULATED) - 1:
            steps.append(_calibrated(runs))
        if place in chosen and truth is not None and before is not None:
            run = chosen[place]
            step, before = _simulated(run, rows[run.name], truth, before, name, cause)
            steps.append(step)
        elif place:
            steps.append(_not_run(name))
    steps.append(_worst_corner(runs))
    return Chain(steps, shared, left_out)


def _identity(run: Run) -> tuple[str, str]:
    assert run.record is not None
    provenance = run.record.get("provenance", {})
    # The samples of a set keep their index in it, however they were drawn: "digits:test, drawn by seed 1".
    return provenance.get("sha256", {}).get("network", ""), str(provenance.get("data", "")).partition(",")[0]


def _shared(runs: list[Run], left_out: list[str]) -> tuple[list[int], dict[str, Labels]]:
    """The samples that all runs have, and of each run their rows; those whose inputs are not equal are not shared."""
    if not runs:
        return [], {}
    common = sorted(set.intersection(*({int(i) for i in run.arrays["index"]} for run in runs)))
    rows: dict[str, Labels] = {}
    for run in runs:
        at = {int(i): row for row, i in enumerate(run.arrays["index"])}
        rows[run.name] = np.array([at[i] for i in common], dtype=np.int64)
    same = np.ones(len(common), dtype=bool)
    for run in runs[1:]:
        first = runs[0]
        same &= (run.arrays["x0"][rows[run.name]] == first.arrays["x0"][rows[first.name]]).all(axis=1)
    if not same.all():
        left_out.append(f"{int((~same).sum())} samples: their inputs differ between the runs")
    return [i for i, keep in zip(common, same, strict=True) if keep], {k: v[same] for k, v in rows.items()}


def share(hits: int, n: int, source: dict[str, Any]) -> dict[str, Any]:
    """A proportion with its interval and where it was counted."""
    return proportion(hits, n) | {"source": source}


def _number(value: float, source: dict[str, Any]) -> dict[str, Any]:
    return {"value": float(value), "source": source}


def _blank(name: str, status: str, cause: str) -> Step:
    names = ("run", "accuracy", "agreement_before", "agreement_software", "error_max", "error_rms", "margin_lost")
    return {"step": name, "status": status, "cause": cause} | dict.fromkeys((*names, "latency_s", "energy_j"))


def _not_run(name: str, why: str = "") -> Step:
    return _blank(name, NOT_RUN, why)


def _trained(first: Run | None) -> Step:
    """What the training record says is said, not compared: its samples are not these."""
    result = (
        {} if first is None or first.record is None else first.record["network"].get("record", {}).get("result", {})
    )
    told = result.get("test_accuracy") if isinstance(result, dict) else None
    why = "" if told is None else f"its training record says {100 * told:.2f} % of its own test set"
    return _not_run("trained torch model", why)


def _source(run: Run, rows: Labels, *arrays: str) -> dict[str, Any]:
    return {"run": run.name, "file": OUTPUTS, "arrays": list(arrays), "rows": rows.tolist()}


def _reference(first: Run | None, rows: dict[str, Labels]) -> Step:
    if first is None or first.network is None or first.record is None:
        return _not_run("reference ODE")
    own = rows[first.name]
    step = _blank("reference ODE", RAN, str(first.record["provenance"].get("reference", "")))
    software = labels(first.network, first.arrays["v_end_software"][own])
    if "y" in first.arrays:
        hits = int((software == first.arrays["y"][own]).sum())
        step["accuracy"] = share(hits, own.size, _source(first, own, "v_end_software", "y"))
    return step | {"run": first.name}


def signed_margin(network: Network, v: Floats, of: Labels) -> Floats:
    """Voltage of the read-out ``of`` [n] minus the largest other [n], in model units; below 0 where it is not first."""
    out = v[:, network.readout]
    own = out[np.arange(len(of)), of]
    others = out.copy()
    others[np.arange(len(of)), of] = -np.inf
    return np.asarray(own - others.max(axis=1))


def _simulated(run: Run, rows: Labels, truth: Floats, before: Labels, name: str, cause: str) -> tuple[Step, Labels]:
    """The step of a run of ``kcnet simulate``, and its labels (-1 where the run failed: it agrees with nothing)."""
    assert run.network is not None and run.record is not None
    v, own = run.arrays["v_end"][rows], np.asarray(run.arrays["label"][rows], dtype=np.int64)
    software, n = labels(run.network, truth), rows.size
    step = _blank(name, RAN, cause) | {"run": run.name}
    if "y" in run.arrays:
        hits = int((own == run.arrays["y"][rows]).sum())
        step["accuracy"] = share(hits, n, _source(run, rows, "label", "y"))
    of_labels = _source(run, rows, "label")
    step["agreement_before"] = share(int(((own == before) & (own >= 0)).sum()), n, of_labels)
    step["agreement_software"] = share(int((own == software).sum()), n, _source(run, rows, "label", "v_end_software"))
    finite = np.isfinite(v).all(axis=1)
    if finite.any():
        error = np.abs(v[finite] - truth[finite])
        of_volts = _source(run, rows[finite], "v_end", "v_end_software")
        step["error_max"] = _number(error.max(), of_volts)
        step["error_rms"] = _number(np.sqrt((error[:, 1:] ** 2).mean()), of_volts)
        if run.network.readout.size > 1:
            margin = [signed_margin(run.network, x[finite], software[finite]) for x in (truth, v)]
            step["margin_lost"] = _number(np.median(margin[0] - margin[1]), of_volts)
    t_total = run.record["summary"]["t_total_s"]
    step["latency_s"] = _number(t_total, {"run": run.name, "file": RECORD, "key": "summary.t_total_s"})
    mos, audit = run.record.get("mos"), run.record.get("audit", {})
    if mos and "static_power_w" in mos:
        of_power = {"run": run.name, "file": RECORD, "key": "mos.static_power_w × summary.t_total_s"}
        step["energy_j"] = _number(mos["static_power_w"] * t_total, of_power)
    elif "energy_delivered" in audit and run.record["summary"].get("level") == "behavioral":
        of_audit = {"run": run.name, "file": RECORD, "key": "audit.energy_delivered"}
        step["energy_j"] = _number(audit["energy_delivered"], of_audit)
    return step, own


def _calibrated(runs: Sequence[Run]) -> Step:
    """Cases of a study over conditions that were repeated on calibrated edges: these are compared with the engine."""
    name = "calibrated behavioural"
    for run in runs:
        check = run.record.get("check") if run.kind == "pvt" and run.record is not None else None
        if check and check.get("level") == "behavioral":
            said = (
                f"{check['agree']} of {check['cases']} repeated cases have the engine's label; no accuracy of its own"
            )
            return _blank(name, RAN, said) | {"run": run.name}
    return _not_run(name)


def _worst_corner(runs: Sequence[Run]) -> Step:
    name = "worst PVT corner"
    for run in runs:
        if run.kind != "pvt" or run.record is None:
            continue
        s, at = run.record["summary"], run.record["summary"].get("worst_index")
        if at is None or "right" not in run.arrays:
            continue
        kit = run.record.get("provenance", {}).get("pdk", "the kit")
        step = _blank(name, RAN, f"{s.get('worst')} of {kit}; {s.get('dies')} dies by the fast engine") | {
            "run": run.name
        }
        if s.get("accuracy_min") is None:
            step["cause"] += "; withheld, as its repeats in a simulator do not agree"
        else:
            right = run.arrays["right"][at]
            source = {"run": run.name, "file": OUTPUTS, "arrays": ["right"], "rows": [int(at)]}
            step["accuracy"] = share(int(right.sum()), int(right.size * s["samples"]), source)
        return step
    return _not_run(name)
