"""The whole inference in one deck of ngspice: precharge, write, evolve, sample, compare, and the time of each."""

from __future__ import annotations

import math
import shutil
import time
from dataclasses import replace

import numpy as np

from kcnet_eda.export.inference import MODULES, Blocks, InferencePlan, decode, plan_inference, render_inference
from kcnet_eda.export.testbench import Sample, Window, render_testbench
from kcnet_eda.export.veriloga import module_source
from kcnet_eda.files import resource_dir
from kcnet_eda.network.graph import labels
from kcnet_eda.physical.scaling import Scaling
from kcnet_eda.study.accuracy import proportion
from kcnet_eda.study.latency.bench import Floats, LatencyBench, Row, Task, failures, made_by
from kcnet_eda.study.latency.settings import Inference
from kcnet_eda.study.latency.written import what_writing_costs
from kcnet_eda.study.store import Result, Status
from kcnet_eda.study.transient import compile_into
from kcnet_eda.tools.rawfile import read_transient
from kcnet_eda.tools.simulators import NGSPICE

VARIANT = "inference"
#: What a row of the store holds of a whole inference, in this order: seconds, and shares of what had to be reached.
MEASURED = (
    "precharge_s",
    "precharge_left",
    "write_s",
    "write_left",
    "sample_s",
    "hold_error",
    "compare_s",
    "label",
    "label_at_t",
    "margin_v",
)
#: Time given to a block over what one time constant needs to leave the share asked for: it must be seen to be reached.
_SPARE = 1.1
_STEPS_A_TAU = 10


def blocks_of(section: Inference, scaling: Scaling) -> Blocks:
    """The blocks of the study file, in SI units; times that it does not give follow from the accuracy asked for."""
    t_u, settle = scaling.t_unit, _SPARE * math.log(1 / section.accuracy)
    write = section.write if section.write is not None else settle * section.switch
    return Blocks(
        precharge=write * t_u,
        write=write * t_u,
        follow=settle * section.sample * t_u,
        switch_ohms=section.switch * t_u / scaling.c,
        tau_sample=section.sample * t_u,
        aperture=section.aperture * t_u,
        tau_compare=section.compare * t_u,
        resolution=section.resolution * scaling.v_unit,
        level=settle * section.compare * t_u,
    )


def run_inference(bench: LatencyBench, section: Inference) -> Row:
    """Run the section; its part of the record."""
    circuit, network = bench.bundle.circuit, bench.network
    blocks = blocks_of(section, circuit.scaling)
    plan = plan_inference(circuit, blocks, network.readout.tolist())
    n = min(section.samples, len(bench.data))
    tasks = [_task(bench, section, plan, i, n) for i in range(n)]
    results = bench.attempt(tasks, "whole inferences")
    rows: list[Row] = []
    for task, result in zip(tasks, results, strict=True):
        numbers = [None] * len(MEASURED) if result.v_end is None else result.v_end.tolist()
        numbers = [None if v is None or not math.isfinite(v) else v for v in numbers]
        rows.append(
            {"sample": task.sample, "status": result.status}
            | dict(zip(MEASURED, numbers, strict=True))
            | {"key": task.key}
        )
    good = [row for row in rows if row["status"] == Status.PASSED]
    software = labels(network, bench.v_ref[:n]).tolist()
    agree = sum(row["label"] == label for row, label in zip(rows, software, strict=True))
    steps = _table(section, plan, good)
    total = sum(step["given_s"] for step in steps)
    written = what_writing_costs(bench, section)
    return made_by(NGSPICE.name) | {
        "n": n,
        "labels_as_software": proportion(agree, n),
        "steps": steps,
        "total_s": total,
        "t_total_s": circuit.run_time(True),
        "total_over_t": total / circuit.run_time(True),
        "f_hz": 1 / total,
        "f_of_t_hz": 1 / circuit.run_time(True),
        "switch_ohms": blocks.switch_ohms,
        "rc_s": blocks.switch_ohms * circuit.scaling.c,
        "write_left_by_rc": math.exp(-blocks.write / (blocks.switch_ohms * circuit.scaling.c)),
        "write_left": max((row["write_left"] for row in good), default=None),
        "levels": len(plan.levels),
        "outputs": [network.node_names[node] for node in network.readout],
        "instants_s": {
            "write": plan.write_begin,
            "evolve": plan.evolve_begin,
            "freeze": plan.evolve_end,
            "hold": plan.sample_at,
            "compare": plan.compare_begin,
        },
        "samples": rows,
        **written,
        "failed": failures(tasks, results) + written["failed"],
    }


def _table(section: Inference, plan: InferencePlan, good: list[Row]) -> list[Row]:
    """Each step's time as given, and as measured: when the share asked for was reached, the largest over samples."""
    circuit, b = plan.circuit, plan.blocks

    def largest(name: str) -> float | None:
        values = [row[name] for row in good if row[name] is not None]
        return max(values) if values and len(values) == len(good) else None

    rows: list[tuple[str, float, float | None, float | None]] = [
        ("precharge", b.precharge, largest("precharge_s"), largest("precharge_left")),
        ("write", b.write, largest("write_s"), largest("write_left")),
        ("evolve", circuit.t_end, circuit.t_end, None),
        ("hand over between phases", circuit.timeline.in_windows, circuit.timeline.in_windows, None),
        ("sample", b.follow + b.aperture, largest("sample_s"), largest("hold_error")),
        ("compare", len(plan.levels) * b.level, largest("compare_s"), None),
    ]
    return [
        {"step": name, "given_s": given, "needed_s": needed, "left": left, "asked": section.accuracy, "n": len(good)}
        for name, given, needed, left in rows
    ]


def _task(bench: LatencyBench, section: Inference, plan: InferencePlan, i: int, n: int) -> Task:
    settings, circuit = bench.bundle.settings[NGSPICE.name], plan.circuit
    blocks = plan.blocks
    shortest = min(stage.duration for stage in circuit.stages)
    tau = min(blocks.tau_sample, blocks.tau_compare, blocks.switch_ohms * circuit.scaling.c)
    step = min(shortest / settings.steps, tau / _STEPS_A_TAU)
    own = replace(settings, steps=math.ceil(shortest / step))
    before = bench.v_ref[i - 1] if n > 1 else bench.v_ref[i]
    title = f"sample {int(bench.data.index[i])}"
    netlist = render_inference(
        plan, bench.network.readout.tolist(), bench.x0[i, 1:] * circuit.scaling.v_unit, own.steps, title
    )
    sources = {module: module_source(module, shape) for module, shape in circuit.modules(gated=True).items()}
    sources |= {module: (resource_dir("veriloga") / f"{module}.va").read_text() for module in MODULES}
    deck = render_testbench(
        circuit,
        Window(plan.nets, plan.end, step),
        own,
        [Sample(title, before[1:] * circuit.scaling.v_unit, "whole")],
        simulator=NGSPICE.name,
        netlist="whole.inc",
        osdi=[f"{module}.osdi" for module in sorted(sources)],
    )

    def make() -> Result:
        folder = bench.out / "decks" / f"inference_{i}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        compile_into(folder, sources)
        (folder / "whole.inc").write_text(netlist)
        file, raw = folder / f"whole{NGSPICE.suffix}", folder / "whole.raw"
        file.write_text(deck)
        started = time.monotonic()
        done = NGSPICE.run_to(raw, file, folder / "log.txt", bench.study.timeout_s)
        wall = time.monotonic() - started
        waves = read_transient(raw, plan.nets, plan.end)
        raw.unlink()  # the deck stays, to be run by hand
        v = (waves.values - circuit.scaling.v_cm) / circuit.scaling.v_unit
        start = np.zeros((1, v.shape[1]))
        start[0, : before.size - 1] = before[1:]
        t, v = np.append(0.0, waves.time), np.concatenate([start, v])
        numbers, kept = _measure(bench, section, plan, i, t, v)
        return Result(Status.PASSED, "", wall, done.peak_kib, numbers, None, (t, kept))

    words = " ".join([deck, netlist, *sources.values(), f"{section.accuracy}"])
    return Task(words, int(bench.data.index[i]), VARIANT, NGSPICE.name, NGSPICE.version(), make)


def _measure(
    bench: LatencyBench, section: Inference, plan: InferencePlan, i: int, t: Floats, v: Floats
) -> tuple[Floats, Floats]:
    """:data:`MEASURED` of a run, and what is kept of its waveforms: the outputs and what holds them, in volts."""
    column = {net: k for k, net in enumerate(plan.nets)}
    first = bench.network.phases[0].n_nodes - 1
    nodes, target = v[:, :first], bench.x0[i, 1:]
    outputs = v[:, [column[plan.circuit.banks[-1].nets[node]] for node in bench.network.readout]]
    holds = v[:, [column[net] for net in plan.holds]]
    precharge = np.abs(nodes).max(axis=1) / max(float(np.abs(nodes[0]).max()), np.finfo(float).tiny)
    write = np.abs(nodes - target).max(axis=1) / max(float(np.abs(target).max()), np.finfo(float).tiny)
    at_t = np.array([np.interp(plan.sample_at, t, volts) for volts in outputs.T])
    span = max(float(np.ptp(at_t)), np.finfo(float).tiny)
    behind = np.abs(holds - at_t).max(axis=1) / span
    decisions = {cell.decision: v[:, column[cell.decision]] for level in plan.levels for cell in level}
    label = decode(plan.levels, plan.holds, decisions)
    other = np.flatnonzero((label != label[-1]) & (t >= plan.compare_begin))
    # A level that is not enabled yet has decided nothing, so the label stands only once the last level has spoken.
    stands = t[other[-1] + 1] if other.size and other[-1] + 1 < t.size else plan.compare_begin
    top = np.sort(at_t)
    scale = bench.bundle.circuit.scaling
    numbers = [
        _reached(t, precharge, 0.0, plan.write_begin, section.accuracy),
        float(np.interp(plan.write_begin, t, precharge)),
        _reached(t, write, plan.write_begin, plan.written_at, section.accuracy),
        float(np.interp(plan.written_at, t, write)),
        _reached(t, behind, plan.evolve_end, plan.sample_at, section.accuracy) + plan.blocks.aperture,
        float(np.interp(plan.compare_begin, t, behind)),
        float(stands - plan.compare_begin),
        float(label[-1]),
        float(np.argmax(at_t)),
        float(top[-1] - top[-2]) * scale.v_unit if top.size > 1 else math.inf,
    ]
    return np.array(numbers), scale.v_cm + scale.v_unit * np.concatenate([outputs, holds], axis=1)


def _reached(t: Floats, left: Floats, begin: float, end: float, asked: float) -> float:
    """How long after ``begin`` what is ``left`` has come down to ``asked``; NaN where it does not before ``end``."""
    inside = (t >= begin) & (t <= end)
    times, values = t[inside], left[inside]
    above = np.flatnonzero(values > asked)
    if not above.size:
        return 0.0
    last = int(above[-1])
    if last + 1 == values.size:
        return math.nan
    # What settles does so exponentially: between the points it is linear in the logarithm.
    high, low = math.log(values[last]), math.log(max(values[last + 1], np.finfo(float).tiny))
    share = (high - math.log(asked)) / (high - low)
    return float(times[last] + share * (times[last + 1] - times[last]) - begin)
