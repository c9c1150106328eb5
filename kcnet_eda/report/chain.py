"""The reconciliation chain: from the trained model to the worst corner, step by step, on the samples that runs share.

Each number is computed from a run's ``outputs.npz`` or taken from its record, and carries where it came from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.files import sha256_bytes
from kcnet_eda.network.graph import Network, labels
from kcnet_eda.network.store import dump_network
from kcnet_eda.report.runs import Run, look_up
from kcnet_eda.report.whole import SAMPLES
from kcnet_eda.study.accuracy import proportion
from kcnet_eda.study.pvt.chain import CALIBRATED, WORST
from kcnet_eda.study.simulate import OUTPUTS, RECORD
from kcnet_eda.study.software_steps import LOWERED, TORCH
from kcnet_eda.units import format_si

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Step = dict[str, Any]

NOT_RUN, RAN = "not run", "run"


@dataclass(frozen=True)
class _Circuit:
    """A step after the software's: its name, and what is new in it. Runs of ``kcnet simulate`` have it whose record
    says ``level`` and ``simulator``; of studies over conditions those that have it as the ``part`` of their chain."""

    name: str
    cause: str
    level: str = ""
    simulator: str = ""
    part: str = ""

    def is_of(self, run: Run) -> bool:
        """Whether ``run`` has it."""
        if run.kind == "pvt":
            return self.part != "" and f"v_end_{self.part}" in run.arrays
        s = (run.record or {}).get("summary", {})
        return self.level != "" and (s.get("level"), s.get("simulator")) == (self.level, self.simulator)


_CIRCUITS = (
    _Circuit("network in the fast engine", "the engine's fixed steps and single precision", "fast engine", "engine"),
    _Circuit("behavioural ngspice", "Verilog-A edges, and the error of ngspice's time steps", "behavioral", "ngspice"),
    _Circuit("behavioural VACASK", "another simulator's time steps on the same edges", "behavioral", "vacask"),
    _Circuit(
        "calibrated behavioural", "the law of a kit's cells: gain, offset, rounding, leakage and lag", part=CALIBRATED
    ),
    _Circuit(
        "MOS level", "transistors: what the law of the cells leaves out, and each cell's own error", "mos", "ngspice"
    ),
    _Circuit("worst PVT corner", "the transistors as calibrated at the kit's own condition, elsewhere", part=WORST),
)
#: Is listed only where it was run: nothing is built of it.
_OPTIONAL = _CIRCUITS[0]


@dataclass(frozen=True, eq=False)
class Chain:
    """``steps`` in order; the ``shared`` samples (indices in their data set); ``left_out`` says which runs are in no
    step, and why."""

    steps: list[Step]
    shared: list[int]
    left_out: list[str]


def make_chain(runs: Sequence[Run]) -> Chain:
    """The chain out of ``runs``: of the network and data that most of them have, the first run of each step."""
    left_out: list[str] = []
    why: dict[_Circuit, str] = {}

    def leave(run: Run, reason: str) -> None:
        left_out.append(f"{run.name}: {reason}")
        for circuit in _CIRCUITS:
            if circuit.is_of(run):
                why.setdefault(circuit, left_out[-1])

    usable = []
    for run in runs:
        if run.kind == "pvt" and look_up(run.record, "chain") is None:
            leave(run, "was run without samples for the chain; 'chain: N' in its study file has N of them")
        elif look_up(run.record, "two_sample"):
            leave(run, "its outputs are points, no labels")
        elif run.network is not None and run.kind in SAMPLES and set(SAMPLES[run.kind]) <= set(run.arrays):
            usable.append(run)
    chosen = _choose(usable, leave)
    for circuit in _CIRCUITS:
        for run in usable:
            if run.kind == "pvt" and circuit.part and not circuit.is_of(run):
                why.setdefault(circuit, f"{run.name}: its study has no condition but the kit's own")
    shared, rows = _shared([chosen[circuit] for circuit in _CIRCUITS if circuit in chosen], left_out, leave)
    chosen = {circuit: run for circuit, run in chosen.items() if run.name in rows}
    ran = list(dict.fromkeys(chosen[circuit] for circuit in _CIRCUITS if circuit in chosen))
    first = ran[0] if ran else None
    step, before = _software(ran, rows, None, TORCH, "trained torch model", _training_record(first))
    steps = [step]
    step, before = _reference(first, rows, before)
    steps.append(step)
    step, before = _software(ran, rows, before, LOWERED, "lowered network", "")
    steps.append(step)
    for circuit in _CIRCUITS:
        if circuit in chosen and before is not None:
            step, before = _of_circuit(circuit, chosen[circuit], rows, before)
            steps.append(step)
        elif circuit is not _OPTIONAL:
            steps.append(_not_run(circuit.name, why.get(circuit, "")))
    return Chain(steps, shared, left_out)


def _choose(usable: Sequence[Run], leave: Callable[[Run, str], None]) -> dict[_Circuit, Run]:
    """The run of each step: of the network and data that most have, and of the kit and T of the first that has any."""
    kept = [_identity(run) for run in usable]
    main = max(dict.fromkeys(kept), key=kept.count, default=None)
    chosen: dict[_Circuit, Run] = {}
    for run, identity in zip(usable, kept, strict=True):
        own = [circuit for circuit in _CIRCUITS if circuit.is_of(run)]
        other = next((of for of in chosen.values() if _process(of) and _process(run) not in ((), _process(of))), None)
        if identity != main:
            leave(run, "another network or data set")
        elif not own:
            leave(run, f"{look_up(run.record, 'summary.level')} level is no step of the chain")
        elif other is not None:
            leave(
                run,
                f"another kit or T than {other.name}'s: {', '.join(_process(run))}, not {', '.join(_process(other))}",
            )
        elif taken := [circuit for circuit in own if circuit in chosen]:
            leave(run, "; ".join(f"{chosen[circuit].name} is the step {circuit.name} already" for circuit in taken))
        else:
            chosen |= dict.fromkeys(own, run)
    return chosen


def _process(run: Run) -> tuple[str, ...]:
    """The kit and T, in words, of what a run has in transistors or on a kit's edges; nothing where it has neither."""
    of_run = (
        ("mos.pdk", "summary.t_total_s") if run.kind == "simulate" else ("provenance.pdk", "chain.calibrated.latency_s")
    )
    kit, t_total = (look_up(run.record, key) for key in of_run)
    return () if kit is None or t_total is None else (str(kit), format_si(t_total, "s"))


def _identity(run: Run) -> tuple[str, str]:
    assert run.record is not None
    data = run.record.get("provenance", {}).get("data", "")
    # The samples of a set keep their index in it, however they were drawn: "digits:test, drawn by seed 1".
    return _hash(run), str(data).partition(",")[0]


def _hash(run: Run) -> str:
    """Of its network as this version writes it; '' without one."""
    return "" if run.network is None else sha256_bytes(dump_network(run.network))


def _shared(
    runs: Sequence[Run], left_out: list[str], leave: Callable[[Run, str], None]
) -> tuple[list[int], dict[str, Labels]]:
    """The samples that all runs have with the same inputs, and of each run their rows; those that share none with most
    others are told to ``leave``, and have no rows; samples whose inputs differ are told to ``left_out``."""
    inputs = {run.name: dict(zip(run.arrays["index"].tolist(), run.arrays["x0"], strict=True)) for run in runs}

    def alike(one: str, other: str) -> set[int]:
        return {i for i, x in inputs[one].items() if i in inputs[other] and np.array_equal(x, inputs[other][i])}

    base = max(inputs, key=lambda name: sum(bool(alike(name, other)) for other in inputs), default=None)
    if base is None:
        return [], {}
    common, kept = set(inputs[base]), [base]
    for run in {run.name: run for run in runs if run.name != base}.values():
        both = common & alike(base, run.name)
        if not both:
            leave(run, f"has no sample, with the same inputs, of those of {', '.join(kept)}")
            continue
        if differ := (common & inputs[run.name].keys()) - both:
            many = "1 sample: its" if len(differ) == 1 else f"{len(differ)} samples: their"
            left_out.append(f"{many} inputs in {run.name} are not those in {base}")
        common = both
        kept.append(run.name)
    shared = sorted(common)
    at = {name: {i: row for row, i in enumerate(inputs[name])} for name in kept}
    return shared, {name: np.array([at[name][i] for i in shared], dtype=np.int64) for name in kept}


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
    runs: Sequence[Run], rows: dict[str, Labels], before: Labels | None, key: str, name: str, told: str
) -> tuple[Step, Labels | None]:
    """A step that runs of ``kcnet simulate`` have with them, of the first of ``runs`` that has it, and its labels;
    those before where none has it."""
    array = f"v_end_{key}"
    why = [str(look_up(run.record, f"software_steps.{key}.said") or "") for run in runs]
    for run, said in zip(runs, why, strict=True):
        if array in run.arrays:
            step = _blank(name, RAN, "; ".join(text for text in (said, told) if text))
            return _by_voltages(step, run, rows[run.name], before, array)
    reasons = dict.fromkeys(text for text in (*why, told) if text)
    return _not_run(name, "; ".join(reasons)), before


def _by_voltages(step: Step, run: Run, rows: Labels, before: Labels | None, array: str) -> tuple[Step, Labels]:
    """A step of which ``run`` has the final voltages in ``array``, and its labels."""
    assert run.network is not None
    v = run.arrays[array][rows]
    label = finite_labels(run.network, v)
    return _compared(step, run, rows, before, (array, v), (array, label)), label


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


def finite_labels(network: Network, v: Floats) -> Labels:
    """The labels of final states ``v`` [n, nodes]; -1 where one is not finite."""
    return np.where(np.isfinite(v).all(axis=1), labels(network, v), -1)


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
    before: Labels | None,
    volts: tuple[str, Floats],
    answers: tuple[str, Labels],
) -> Step:
    """``step`` with its numbers: ``volts`` are its final states [n, nodes], ``answers`` its labels (-1 where it failed:
    it agrees with nothing), each with the array of ``run`` that they come from, in ``rows``."""
    assert run.network is not None
    (of_v, v), (of_label, own), n = volts, answers, rows.size
    truth = run.arrays["v_end_software"][rows]
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
    if not finite.all():
        step["cause"] += f"; {int((~finite).sum())} of {n} samples FAILED"
    if finite.any():
        error = np.abs(v[finite] - truth[finite])
        of_volts = _source(run, rows[finite], of_v, "v_end_software")
        step["error_max"] = _number(error.max(), of_volts)
        step["error_rms"] = _number(np.sqrt((error[:, 1:] ** 2).mean()), of_volts)
        if run.network.readout.size > 1:
            margin = [signed_margin(run.network, x[finite], software[finite]) for x in (truth, v)]
            step["margin_lost"] = _number(np.median(margin[0] - margin[1]), of_volts)
    return step


def _of_circuit(circuit: _Circuit, run: Run, rows: dict[str, Labels], before: Labels) -> tuple[Step, Labels]:
    """The step ``circuit`` of a run, and its labels."""
    assert run.record is not None
    of_run = rows[run.name]
    if circuit.part:
        part = f"chain.{circuit.part}"
        where = f"{look_up(run.record, 'provenance.pdk')} at {look_up(run.record, f'{part}.condition')}"
        cause = f"{circuit.cause}; {where}, the die without mismatch"
        step, own = _by_voltages(_blank(circuit.name, RAN, cause), run, of_run, before, f"v_end_{circuit.part}")
        return step | {what: _recorded(run, f"{part}.{what}") for what in ("latency_s", "energy_j")}, own
    own = np.asarray(run.arrays["label"][of_run], dtype=np.int64)
    volts, kit = ("v_end", run.arrays["v_end"][of_run]), look_up(run.record, "mos.pdk")
    cause = circuit.cause if kit is None else f"{circuit.cause}; {kit}"
    step = _compared(_blank(circuit.name, RAN, cause), run, of_run, before, volts, ("label", own))
    step["latency_s"] = _recorded(run, "summary.t_total_s")
    energy = {"mos": "mos.static_power_w × summary.t_total_s", "behavioral": "audit.energy_delivered"}.get(
        circuit.level
    )
    if energy is not None and look_up(run.record, energy.split(" × ")[0]) is not None:  # older records lack it
        step["energy_j"] = _recorded(run, energy)
    return step, own


def _recorded(run: Run, key: str) -> dict[str, Any]:
    """A number of a run's record, or the product of several, with its source."""
    factors = [look_up(run.record, part) for part in key.split(" × ")]
    if None in factors:
        raise KeyError(key)
    return _number(float(np.prod(factors)), {"run": run.name, "file": RECORD, "key": key})
