"""The physical section: a network in transistors of processes, from slow to fast, against its trained laws in software.

A kit's cells are calibrated once; T_u then sets the nodes' capacitors, C = T_u·I_u/V_u, and with them how fast the
cells have to follow. A node whose cells' pins have more than C has no capacitor of its own and those pins: that circuit
can be built and is run like the others, but it is no longer the trained network, and nodes of unequal capacitance are
unequally fast. Accuracy, labels and waveforms are of those runs; supply current and energy those of the supply source.
Noise is :mod:`kcnet_eda.study.latency.noise`'s.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest

import numpy as np
from scipy.integrate import trapezoid

from kcnet_eda.export.calibrated import noise_lines
from kcnet_eda.export.circuit import build_circuit
from kcnet_eda.export.mos_netlist import MosCircuit
from kcnet_eda.files import sha256_bytes
from kcnet_eda.network.data import DataSet, load_data
from kcnet_eda.network.graph import Network
from kcnet_eda.network.store import load_network, network_path
from kcnet_eda.physical.calibration import CellGroup
from kcnet_eda.physical.pdk import Pdk, load_pdk
from kcnet_eda.physical.thermal import ktc_noise
from kcnet_eda.study.accuracy import proportion
from kcnet_eda.study.latency.bench import Floats, LatencyBench, Row, Task, failures, right_means
from kcnet_eda.study.latency.limits import Limit, binds, crossing, fastest_kept, in_order, over_next, refuted
from kcnet_eda.study.latency.noise import Noisy, accuracy_kept, noise_against_c, noisy_network
from kcnet_eda.study.latency.pareto import not_dominated
from kcnet_eda.study.latency.settings import LatencyStudy, Physical
from kcnet_eda.study.latency.subject import Subject, subject_of
from kcnet_eda.study.mos.export import buildable, calibrated, kit_scaling, mos_settings
from kcnet_eda.study.mos.rig import Bench, Rig
from kcnet_eda.study.mos.run import mos_deck, run_in_transistors
from kcnet_eda.study.mos.sizing import size_cells
from kcnet_eda.study.pvt.noise_spot import MODULES, POINTS
from kcnet_eda.study.pvt.repeat import tools_of
from kcnet_eda.study.simulate import require_fit
from kcnet_eda.study.store import Result, Status
from kcnet_eda.tools.pdk import Models, prepare
from kcnet_eda.tools.simulators import NGSPICE

VARIANT = "physical"

#: The limits, as records and pages name them.
WAVEFORM, LABELS, PINS, NOISY_WAVEFORM, NOISE = "waveform", "labels", "pins", "noisy_waveform", "noise"


@dataclass(frozen=True, eq=False)
class Block:
    """A block of the section and what it names."""

    section: Physical
    kit: Pdk
    models: Models
    network: Network
    data: DataSet


def read_block(section: Physical, study: LatencyStudy) -> Block:
    """What a block names, where all of it is here and fits together.

    Raises
    ------
    KcnetError
        A kit, its models, a network that can be cells, or data for it are not here.
    """
    kit = load_pdk(section.pdk)
    network = load_network(network_path(section.network))
    buildable(network, kit)
    data = load_data(section.data, study.data_dir, features=network.inputs.size, seed=study.seed)
    require_fit(data, network)
    return Block(section, kit, prepare(kit, section.models), network, data)


def run_physical(bench: LatencyBench, sections: Sequence[Physical]) -> Row:
    """Run the section, a kit after another; its part of the record. Rows of its tables name their kit by number."""
    blocks = [read_block(section, bench.study) for section in sections]
    kits = [block.kit for block in blocks]
    found = [_run_kit(bench, block) for block in blocks]
    tables: dict[str, list[Row]] = {
        name: [
            {"kit": i, "pdk": kit.name} | row
            for i, (kit, f) in enumerate(zip(kits, found, strict=True))
            for row in f.pop(name)
        ]
        for name in ("points", "limits", "noise", "mos_noise", "supply", "failed")
    }
    knees = [f for f in found if f["knee"] is not None]
    fastest = min(knees, key=lambda f: float(f["knee"]["t_total_s"]), default=None)
    return {
        "level": "mos",
        "simulator": NGSPICE.name,
        "simulator_version": NGSPICE.version(),
        "kits": found,
        "knee": None if fastest is None else {"pdk": fastest["pdk"]} | fastest["knee"],
        "n": min(f["n"] for f in found) if fastest is None else fastest["n"],
        **tables,
    }


def _run_kit(bench: LatencyBench, block: Block) -> Row:
    section, kit, models, network, data = block.section, block.kit, block.models, block.network, block.data
    noisy = noisy_network(bench, section, network, data, kit)
    most = section.samples if noisy is None else max(section.samples, section.noise_samples)
    every = subject_of(section, network, data, most)
    subject, with_noise = every.head(section.samples), every.head(section.noise_samples)
    n = len(subject.y)
    points: list[Row] = []
    limits: list[Row] = []
    supply: list[Row] = []
    mos_noise: list[Row] = []
    otherwise: list[bool | None] = []  # whether something else than C ends the speed, for each unit current
    noise, noise_free, failed = noise_against_c(noisy, with_noise) if noisy is not None else ([], None, [])
    for factor in section.currents:
        rig = size_cells(Bench(_at_current(kit, factor), models))
        groups = calibrated(rig, buildable(network, rig.pdk), bench.progress)
        own = []
        for t_unit in sorted(section.t_units, reverse=True):
            point, missed = _point(bench, subject, rig, groups, factor, t_unit)
            own.append(point)
            failed += missed
        points += own
        # Noise is a current's and a voltage's: at another unit current the same C is another speed.
        speed = network.duration * rig.pdk.operating.v0 / rig.pdk.operating.i0
        found = [*_limits(subject, own), *_noise_limits(with_noise, noise, noise_free, speed)]
        limits += [{"current_factor": factor} | row for row in _ordered(found)]
        otherwise.append(refuted(found, (PINS, NOISY_WAVEFORM, NOISE)))
        if factor == section.currents[0]:
            supply, missed = _supply(bench, subject, rig, groups, own[0])
            failed += missed
            if noisy is not None:
                mos_noise, missed = _with_noise(bench, subject, rig, groups, own, noisy)
                failed += missed
    judged = [p for p in points if p["passed"]]
    front = not_dominated([(p["t_total_s"], p["energy_j"], -p["accuracy"]["value"]) for p in judged])
    for point, on_front in zip(judged, front, strict=True):
        point["on_front"] = on_front
    return {
        "pdk": kit.name,
        "network": network.name,
        "edges": network.n_edges,
        "currents": list(section.currents),
        "n": n,
        "right_means": right_means(data),
        "software_accuracy": proportion(subject.software_right, n),
        "asked": {
            "agreement": section.agreement,
            "accuracy_loss": section.accuracy_loss,
            "node_error": section.node_error,
        },
        "noise_free": noise_free,
        "points": points,
        "limits": limits,
        "noise": noise,
        "mos_noise": mos_noise,
        "supply": supply,
        "knee": _knee(points, limits),
        "other_than_c": None if None in otherwise else any(otherwise),
        "failed": failed,
    }


def _at_current(kit: Pdk, factor: float) -> Pdk:
    """The kit with another unit current, for which its cells are sized and calibrated."""
    if factor == 1.0:
        return kit
    return kit.model_copy(update={"operating": kit.operating.model_copy(update={"i0": kit.operating.i0 * factor})})


def _point(
    bench: LatencyBench,
    subject: Subject,
    rig: Rig,
    groups: tuple[CellGroup, ...],
    factor: float,
    t_unit: float,
    supply_ohms: float = 0.0,
    noisy: Noisy | None = None,
) -> tuple[Row, list[Row]]:
    """All samples at one speed, behind a resistance of the supply's or with noise: the row, and the runs that
    failed."""
    network = subject.network
    circuit = build_circuit(network, kit_scaling(rig.pdk, None, t_unit), (), None, "mos")
    mos = MosCircuit(circuit, rig.pdk, rig.design, groups, rig.direct)
    op, pins = mos.pdk.operating, mos.parasitics[1:]
    tasks = _tasks(bench, subject, rig, mos, supply_ohms, noisy)
    behind = f", supply behind {supply_ohms:.3g} Ω" if supply_ohms else ", noise" if noisy is not None else ""
    results = bench.attempt(tasks, f"{rig.pdk.name}, {1e9 * t_unit:g} ns a unit of time{behind}", bench.jobs)
    where = {
        "current_factor": factor,
        "i_unit": op.i0,
        "v_unit": op.v0,
        "t_unit": t_unit,
        "t_total_s": t_unit * network.duration,
        "c": circuit.scaling.c,
        "supply_v": op.supply,
        "edges_out_of_reach": sum(len(group.found.out_of_reach) for group in groups),
        "pins_largest_f": float(pins.max()),
        "nodes": int(pins.size),
        "nodes_pinned": len(mos.capacitance_problems()),
    }
    found = subject.judge(results, t_unit) | _drawn_from_supply(results, op.supply)
    return where | {"keys": [t.key for t in tasks]} | found, failures(tasks, results)


def _tasks(
    bench: LatencyBench, subject: Subject, rig: Rig, mos: MosCircuit, supply_ohms: float, noisy: Noisy | None
) -> list[Task]:
    settings, scaling = mos_settings(subject.network, bench.study.error), mos.circuit.scaling
    tools = "" if noisy is None else tools_of(MODULES, NGSPICE.version())
    same = [sha256_bytes(mos.netlist(supply_ohms=supply_ohms).encode()), rig.header(), rig.models.sha256, str(settings)]

    def task(i: int, x0: Floats) -> Task:
        words = " ".join([*same, sha256_bytes(x0.tobytes())])
        if noisy is not None:
            words = f"{words} {noisy.words(scaling.c)} {noisy.die.model} {POINTS} {i}"
            words = f"{words} {tools}"

        def make() -> Result:
            v0, noise = x0, ""
            if noisy is not None:
                v0, drawn = noisy.start(i, x0, scaling.c)
                noise = noise_lines(noisy.die, scaling, drawn)
            deck = mos_deck(rig, mos, settings, v0, supply_ohms, noise)
            folder = bench.scratch(VARIANT, words)
            folder.mkdir(parents=True)
            run = run_in_transistors(rig, deck, subject.section.timeout_s, folder, bench.cancel)
            shutil.rmtree(folder)
            kept = np.concatenate([run.v, run.supply[:, None]], axis=1)
            end = np.append(0.0, run.v[-1])
            waveform = run.tau * scaling.t_unit, kept
            return Result(Status.PASSED, "", run.seconds, int(run.peak_mib * 1024), end, None, waveform)

        return Task(words, i, VARIANT, NGSPICE.name, NGSPICE.version(), make)

    return [task(i, x0) for i, x0 in enumerate(subject.x0)]


def _drawn_from_supply(results: Sequence[Result], supply_v: float) -> Row:
    """Current and energy of the supply's source over the runs that passed."""
    current, peak, energy = [], [], []
    for result in results:
        if result.waveform is None:
            continue
        seconds, kept = result.waveform
        own = kept[:, -1]
        charge = float(trapezoid(own, seconds))
        current.append(charge / (seconds[-1] - seconds[0]))
        peak.append(float(own.max()))
        energy.append(supply_v * charge)
    return {
        "current_mean_a": float(np.mean(current)) if current else None,
        "current_peak_a": max(peak, default=None),
        "energy_j": float(np.mean(energy)) if energy else None,
        "on_front": False,
    }


def _limits(subject: Subject, points: Sequence[Row]) -> list[Limit]:
    """What bounds T at one unit current, but for noise."""
    first = points[0]
    t = [p["t_total_s"] for p in points]
    # Where a node's own pins are all of C; what is faster is not the trained network.
    pins = first["pins_largest_f"] * first["v_unit"] / first["i_unit"] * subject.network.duration
    return [
        crossing(WAVEFORM, list(zip(t, map(subject.error, points), strict=True)), subject.section.node_error),
        fastest_kept(LABELS, [(p["t_total_s"], subject.labels_kept(p)) for p in points]),
        Limit(PINS, pins, pins, exact=True),
    ]


def _noise_limits(subject: Subject, rows: Sequence[Row], noise_free: Row | None, speed: float) -> list[Limit]:
    """What noise bounds where a farad is ``speed`` seconds of T; nothing where it was not tried."""
    if not rows or noise_free is None:
        return []
    errors = [(row["c"] * speed, subject.error(row)) for row in rows]
    kept = [(row["c"] * speed, accuracy_kept(subject, row, noise_free)) for row in rows]
    return [crossing(NOISY_WAVEFORM, errors, subject.section.node_error), fastest_kept(NOISE, kept)]


def _ordered(found: Sequence[Limit]) -> list[Row]:
    """Limits as rows, the one that is to bind first in front; whether it surely does."""
    ordered = in_order(found)
    rows = []
    for place, (limit, after) in enumerate(zip_longest(ordered, ordered[1:])):
        over, at_least = (None, False) if after is None else over_next(limit, after)
        own = {"binds": place == 0 and binds(ordered)} | asdict(limit)
        rows.append({"first": place == 0} | own | {"over_next": over, "over_next_at_least": at_least})
    return rows


def _knee(points: Sequence[Row], limits: Sequence[Row]) -> Row | None:
    """The fastest T, over the unit currents, that no limit rules out, with what was measured at the nearest slower T;
    None where the slowest T tried misses a limit at each."""
    held = [row for row in limits if row["first"] and row["t_s"] is not None]
    if not held:
        return None
    binding = min(held, key=lambda row: float(row["t_s"]))
    slower = [
        p
        for p in points
        if p["current_factor"] == binding["current_factor"] and p["t_total_s"] >= binding["t_s"] * (1 - 1e-9)
    ]
    if not slower:  # pins allow only what is slower than all that was tried
        return None
    at = min(slower, key=lambda p: float(p["t_total_s"]))
    kept = ("current_factor", "c", "accuracy", "agreement", "error_median", "error_max", "energy_j", "current_mean_a")
    return {
        "t_total_s": binding["t_s"],
        "f_hz": 1 / binding["t_s"],
        "by": binding["of"],
        "over_next": binding["over_next"],
        "over_next_at_least": binding["over_next_at_least"],
        "bracketed": binding["binds"],
        "measured_at_s": at["t_total_s"],
    } | {name: at[name] for name in kept}


def _supply(
    bench: LatencyBench, subject: Subject, rig: Rig, groups: tuple[CellGroup, ...], at: Row
) -> tuple[list[Row], list[Row]]:
    """The same at the slowest T behind a resistance of the supply's wiring, chosen by the current measured there."""
    rows: list[Row] = []
    failed: list[Row] = []
    if not at["current_mean_a"]:
        return rows, failed
    for drop in sorted(subject.section.drops):
        ohms = drop * at["supply_v"] / at["current_mean_a"]
        point, missed = _point(bench, subject, rig, groups, at["current_factor"], at["t_unit"], ohms)
        failed += missed
        lost = None if point["current_mean_a"] is None else ohms * point["current_mean_a"]
        kept = {"labels_kept": subject.labels_kept(point), "waveform_kept": subject.waveform_kept(point)}
        rows.append({"share": drop, "ohms": ohms, "drop_v": lost} | point | kept)
    return rows, failed


def _with_noise(
    bench: LatencyBench, subject: Subject, rig: Rig, groups: tuple[CellGroup, ...], points: Sequence[Row], noisy: Noisy
) -> tuple[list[Row], list[Row]]:
    """The same with noise at the smallest C tried that every node can be drawn with; nothing where none can."""
    drawn = [point for point in points if not point["nodes_pinned"]]
    if not drawn:
        return [], []
    at = min(drawn, key=lambda point: float(point["c"]))
    point, missed = _point(bench, subject, rig, groups, at["current_factor"], at["t_unit"], noisy=noisy)
    sigma = ktc_noise(at["c"], noisy.kit.operating.nominal_temperature)
    kept = {"labels_kept": subject.labels_kept(point), "waveform_kept": subject.waveform_kept(point)}
    return [{"sigma_v": sigma, "error_median_without": at["error_median"]} | point | kept], missed
