"""The reconciliation chain: from the trained model to the worst corner, step by step, on the samples that runs share.

Each number is computed from a run's ``outputs.npz`` or taken from its record, and carries where it came from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.files import sha256_bytes
from kcnet_eda.network.graph import Network, labels
from kcnet_eda.network.store import dump_network
from kcnet_eda.report.runs import Run, look_up
from kcnet_eda.study.accuracy import proportion
from kcnet_eda.study.simulate import OUTPUTS, RECORD, STORE
from kcnet_eda.study.software_steps import LOWERED, TORCH

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Step = dict[str, Any]

NOT_RUN, RAN = "not run", "run"
CALIBRATED, WORST = "calibrated behavioural", "worst PVT corner"
#: The steps over samples of their own: between them and the step before, the samples change too.
OWN_SAMPLES = (CALIBRATED, WORST)
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
    studies = [run for run in runs if run.kind == "pvt" and run.record is not None]
    foreign = [run for run in studies if main is not None and _hash(run) != main[0]]
    left_out += [f"{run.name}: another network" for run in foreign]
    studies = [run for run in studies if run not in foreign]
    shared, rows = _shared(list(chosen.values()), left_out)
    if not shared:
        chosen = {}
    ran = list(chosen.values())
    first = ran[0] if ran else None
    truth = np.empty((0, 0)) if first is None else first.arrays["v_end_software"][rows[first.name]]
    told = _training_record(first)
    step, before = _software(ran, rows, truth, None, TORCH, "trained torch model", told)
    steps = [step]
    step, before = _reference(first, rows, before)
    steps.append(step)
    step, before = _software(ran, rows, truth, before, LOWERED, "lowered network", "")
    steps.append(step)
    for place, (_, _, name, cause) in enumerate(_SIMULATED):
        if place == len(_SIMULATED) - 1:
            steps.append(_calibrated(studies))
        if place in chosen and before is not None:
            run = chosen[place]
            step, before = _simulated(run, rows[run.name], truth, before, name, cause)
            steps.append(step)
        elif place:
            steps.append(_not_run(name))
    steps.append(_worst_corner(studies))
    return Chain(steps, shared, left_out)


def _identity(run: Run) -> tuple[str, str]:
    assert run.record is not None
    data = run.record.get("provenance", {}).get("data", "")
    # The samples of a set keep their index in it, however they were drawn: "digits:test, drawn by seed 1".
    return _hash(run), str(data).partition(",")[0]


def _hash(run: Run) -> str:
    """Of its network as this version writes it; '' without one."""
    return "" if run.network is None else sha256_bytes(dump_network(run.network))


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


def _training_record(first: Run | None) -> str:
    """What the training record says is said, not compared: its samples are not these."""
    result = look_up(None if first is None else first.record, "network.record.result.test_accuracy")
    return "" if result is None else f"its training record says {100 * result:.2f} % of its own test set"


def _source(run: Run, rows: Labels, *arrays: str) -> dict[str, Any]:
    return {"run": run.name, "file": OUTPUTS, "arrays": list(arrays), "rows": rows.tolist()}


def _software(
    runs: Sequence[Run],
    rows: dict[str, Labels],
    truth: Floats,
    before: Labels | None,
    key: str,
    name: str,
    told: str,
) -> tuple[Step, Labels | None]:
    """A step that runs of ``kcnet simulate`` have with them, of the first of ``runs`` that has it, and its labels;
    those before where none has it."""
    array = f"v_end_{key}"
    why = [str(look_up(run.record, f"software_steps.{key}.said") or "") for run in runs]
    for run, said in zip(runs, why, strict=True):
        if array in run.arrays and run.network is not None:
            own = rows[run.name]
            v = run.arrays[array][own]
            finite = np.isfinite(v).all(axis=1)
            label = np.full(own.size, -1)
            label[finite] = labels(run.network, v[finite])
            cause = "; ".join(text for text in (said, told) if text)
            return _compared(_blank(name, RAN, cause), run, own, truth, before, (array, v), (array, label)), label
    reasons = dict.fromkeys(text for text in (*why, told) if text)
    return _not_run(name, "; ".join(reasons)), before


def _reference(first: Run | None, rows: dict[str, Labels], before: Labels | None) -> tuple[Step, Labels | None]:
    if first is None or first.network is None:
        return _not_run("reference ODE"), before
    own = rows[first.name]
    step = _blank("reference ODE", RAN, str(look_up(first.record, "provenance.reference") or ""))
    software = labels(first.network, first.arrays["v_end_software"][own])
    if "y" in first.arrays:
        hits = int((software == first.arrays["y"][own]).sum())
        step["accuracy"] = share(hits, own.size, _source(first, own, "v_end_software", "y"))
    if before is not None:
        hits = int((software == before).sum())
        step["agreement_before"] = share(hits, own.size, _source(first, own, "v_end_software"))
    return step | {"run": first.name}, software


def signed_margin(network: Network, v: Floats, of: Labels) -> Floats:
    """Voltage of the read-out ``of`` [n] minus the largest other [n], in model units; below 0 where it is not first."""
    out = v[:, network.readout]
    own = out[np.arange(len(of)), of]
    others = out.copy()
    others[np.arange(len(of)), of] = -np.inf
    return np.asarray(own - others.max(axis=1))


def _compared(
    step: Step,
    run: Run,
    rows: Labels,
    truth: Floats,
    before: Labels | None,
    volts: tuple[str, Floats],
    answers: tuple[str, Labels],
) -> Step:
    """``step`` with its numbers: ``volts`` are its final states [n, nodes], ``answers`` its labels (-1 where it failed:
    it agrees with nothing), each with the array of ``run`` that they come from, in ``rows``."""
    assert run.network is not None
    (of_v, v), (of_label, own), n = volts, answers, rows.size
    software = labels(run.network, truth)
    step = step | {"run": run.name}
    if "y" in run.arrays:
        hits = int((own == run.arrays["y"][rows]).sum())
        step["accuracy"] = share(hits, n, _source(run, rows, of_label, "y"))
    if before is not None:
        hits = int(((own == before) & (own >= 0)).sum())
        step["agreement_before"] = share(hits, n, _source(run, rows, of_label))
    hits = int((own == software).sum())
    step["agreement_software"] = share(hits, n, _source(run, rows, of_label, "v_end_software"))
    finite = np.isfinite(v).all(axis=1)
    if finite.any():
        error = np.abs(v[finite] - truth[finite])
        of_volts = _source(run, rows[finite], of_v, "v_end_software")
        step["error_max"] = _number(error.max(), of_volts)
        step["error_rms"] = _number(np.sqrt((error[:, 1:] ** 2).mean()), of_volts)
        if run.network.readout.size > 1:
            margin = [signed_margin(run.network, x[finite], software[finite]) for x in (truth, v)]
            step["margin_lost"] = _number(np.median(margin[0] - margin[1]), of_volts)
    return step


def _simulated(run: Run, rows: Labels, truth: Floats, before: Labels, name: str, cause: str) -> tuple[Step, Labels]:
    """The step of a run of ``kcnet simulate``, and its labels."""
    assert run.record is not None
    own = np.asarray(run.arrays["label"][rows], dtype=np.int64)
    volts = ("v_end", run.arrays["v_end"][rows])
    step = _compared(_blank(name, RAN, cause), run, rows, truth, before, volts, ("label", own))
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
    """Cases of a study over conditions that were repeated on calibrated edges: their accuracy over the conditions, dies
    and samples that were drawn, and how many have the engine's label. One that failed is right nowhere."""
    name, variant = CALIBRATED, "behavioral"
    for run in runs:
        check = look_up(run.record, "check")
        if check and check.get("level") == variant:
            said = f"{check['agree']} of {check['cases']} repeated cases, of all conditions, have the engine's label"
            step = _blank(name, RAN, said) | {"run": run.name}
            right, n = run.repeated.get(variant, (0, 0))
            if n == check["cases"]:
                step["accuracy"] = share(right, n, {"run": run.name, "file": STORE, "variant": variant})
            return step
    return _not_run(name)


def _worst_corner(runs: Sequence[Run]) -> Step:
    name = WORST
    for run in runs:
        assert run.record is not None
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
            for what, array in (("accuracy", "right"), ("agreement_software", "agree")):
                if array in run.arrays:  # older studies counted no agreement
                    hits = run.arrays[array][at]
                    source = {"run": run.name, "file": OUTPUTS, "arrays": [array], "rows": [int(at)]}
                    step[what] = share(int(hits.sum()), int(hits.size * s["samples"]), source)
        for what in ("latency_s", "energy_j"):
            value = look_up(run.record, f"conditions[{at}].{what}")
            if value is not None:
                step[what] = _number(value, {"run": run.name, "file": RECORD, "key": f"conditions[{at}].{what}"})
        return step
    return _not_run(name)
