"""The bundle: the folder that an analog designer receives, complete without any Python of ours."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcnet_eda import __version__
from kcnet_eda.dynamics.contract import node_scales, steps_for
from kcnet_eda.dynamics.engine import Evolution, covered, with_examples
from kcnet_eda.dynamics.reference import LARGE, final_states, method, trajectory
from kcnet_eda.errors import InvalidInputError
from kcnet_eda.export.circuit import LEVELS, Circuit, Stage, build_circuit, require_exportable
from kcnet_eda.export.handover import time_in_phases
from kcnet_eda.export.mos_by_hand import by_hand, write_by_hand
from kcnet_eda.export.mos_netlist import MosCircuit
from kcnet_eda.export.netlist import all_nets, edge_map_csv, render_gated_netlist, render_netlist
from kcnet_eda.export.render import render
from kcnet_eda.export.testbench import ORDERS, Sample, SolverSettings, gated_window, render_testbench, stage_window
from kcnet_eda.export.veriloga import module_source
from kcnet_eda.files import build_folder, require_free, sha256_bytes, sha256_file
from kcnet_eda.lowering.passes import DEFAULT_PASSES, Ranges, parse_passes
from kcnet_eda.network.graph import Network, labels
from kcnet_eda.network.published_form import is_generative
from kcnet_eda.network.store import load_network, network_path, save_network
from kcnet_eda.network.validate import unreachable_readout
from kcnet_eda.physical.audit import audit, voltage_ranges
from kcnet_eda.physical.pdk import LIFTED, kit_text
from kcnet_eda.physical.scaling import resolve
from kcnet_eda.units import parse_si

Floats = NDArray[np.float64]

MANIFEST = "manifest.json"
MANIFEST_VERSION = 3
DEFAULT_ERROR = 1e-3
EXPORTED_HERE = ("behavioral", "structural")  # the MOS level is calibrated first: kcnet_eda.study.mos.export
_MADE_BY_RUN = ("osdi", "results", "models", LIFTED)  # folders that run.sh makes in a bundle
_WAVEFORM_POINTS = 101
_MOST_EXAMPLES = 16
_FEW_EXAMPLES = 2  # are solved of a large network: solutions are the dearest part of its export
_NO_EXAMPLES_SEED = 0


@dataclass(frozen=True, eq=False)
class Bundle:
    """An exported bundle, read back: what a simulation of it needs."""

    path: Path
    network: Network
    circuit: Circuit
    settings: Mapping[str, SolverSettings]
    """For each simulator by its name; one error for all."""
    manifest: dict[str, Any]
    edited: tuple[str, ...]
    """Files whose content is no longer what was exported."""

    @property
    def write_time(self) -> float:
        """Seconds for which switches write the nodes before the network evolves."""
        return float((self.manifest["mos"] or {}).get("write_time", 0.0))

    @property
    def example(self) -> dict[str, Any] | None:
        """What the example did at the MOS level when it was exported
        (:class:`kcnet_eda.physical.calibration.ExampleRun`); None at the others."""
        return (self.manifest["mos"] or {}).get("example")

    def sources(self, simulator: str, gated: bool) -> list[Path]:
        """What ``simulator`` is given of it: netlists, and the Verilog-A that is compiled for them."""
        netlists = [self.netlist(simulator, part) for part in self.circuit.parts(gated)]
        return netlists + [self.path / "veriloga" / f"{module}.va" for module in self.circuit.modules(gated)]

    def netlist(self, simulator: str, stage: Stage | None) -> Path:
        """The netlist of a phase for a simulator; of all phases in one where ``stage`` is None."""
        return self.path / "netlist" / _netlist_name(self.circuit, simulator, stage)


def _netlist_name(circuit: Circuit, simulator: str, stage: Stage | None) -> str:
    part = "" if stage is None or not circuit.sequenced else f"_phase{stage.number}"
    return f"{circuit.name}{part}" + (".sp" if simulator == "ngspice" else ".inc")


@dataclass(frozen=True, eq=False)
class Examples:
    """What settings are chosen on and results are expected for: initial states ``x0`` [n, nodes], the reference final
    states ``v_ref`` [m, nodes of the last phase] of the first of them (all but for a large network), the range
    ``scales`` [nodes of the last phase] that errors are judged against, and where the inputs come from."""

    x0: Floats
    v_ref: Floats
    scales: Floats
    seen: tuple[Evolution, int]
    """Where ``x0`` and all examples of the network went (:func:`kcnet_eda.dynamics.engine.covered`)."""
    origin: str


def example_inputs(network: Network) -> tuple[Floats, str]:
    """Inputs that stand for the data, and where they come from."""
    if len(network.examples):
        return network.examples[:_MOST_EXAMPLES], "the network's own example inputs"
    random = np.random.default_rng(_NO_EXAMPLES_SEED).uniform(0, 1, (_MOST_EXAMPLES, network.inputs.size))
    return random, f"uniform in 0..1, seed {_NO_EXAMPLES_SEED}: the network file brings no examples"


def export(
    network: str | Path,
    out: Path,
    *,
    level: str = "behavioral",
    c: str | float = "1p",
    v_unit: str | float | None = None,
    i_unit: str | float | None = None,
    t_unit: str | float | None = None,
    g_unit: str | float | None = None,
    v_cm: str | float = 0.0,
    error: float = DEFAULT_ERROR,
    lower: str = ",".join(DEFAULT_PASSES),
) -> Bundle:
    """Write the bundle of a network file (or shipped network) to the folder ``out``.

    Units are as in :func:`kcnet_eda.physical.scaling.resolve`, with SPICE suffixes. ``error`` is the relative error
    that solver settings are chosen for. ``lower`` names the passes from edges to devices
    (:mod:`kcnet_eda.lowering.passes`): some of ``merge,drop,fold``, or ``none``, or ``all``.

    Raises
    ------
    InvalidInputError
        Network, units or level cannot be used, or ``out`` is somebody's; nothing is written then.
    """
    if level not in EXPORTED_HERE:
        raise InvalidInputError(f"--level {level}", ["is not built"], f"Levels: {', '.join(LEVELS)}.")
    require_place(out)
    source = network_path(network)
    net = load_network(source)
    passes = parse_passes(lower) if level == "behavioral" else ()
    optional = {
        name: None if value is None else parse_si(value)
        for name, value in (("v_unit", v_unit), ("i_unit", i_unit), ("t_unit", t_unit), ("g_unit", g_unit))
    }
    scaling = resolve(c=parse_si(c), v_cm=parse_si(v_cm), **optional)
    require_exportable(net, level)
    examples = solve_examples(net)
    settings = choose_settings(net, examples, error)
    ranges = voltage_ranges(net, examples.x0) if "drop" in passes else None
    circuit = build_circuit(net, scaling, passes, ranges, level)
    return write_bundle(out, net, circuit, settings, examples, ranges)


def write_bundle(
    out: Path,
    net: Network,
    circuit: Circuit,
    settings: Mapping[str, SolverSettings],
    examples: Examples,
    ranges: Sequence[Ranges] | None = None,
    mos: MosCircuit | None = None,
) -> Bundle:
    """Write a bundle to the folder ``out``, whole or not at all; ``mos`` are the transistors of the MOS level."""
    with build_folder(out, _claims) as folder:
        _write(folder, net, circuit, settings, examples, ranges, mos)
    return read_bundle(out)


def solve_examples(net: Network) -> Examples:
    """Examples of a network's inputs, and where they lead."""
    x, origin = example_inputs(net)
    x0 = net.initial_state(x)
    large = net.n_edges > LARGE
    few = x0[:_FEW_EXAMPLES] if large else x0
    v_ref = final_states(net, few, (os.cpu_count() or 1) if large else 1)  # few samples do not pay for processes
    seen = covered(net, with_examples(net, x0))
    return Examples(x0, v_ref, node_scales(net, x0, seen[0]), seen, origin)


def choose_settings(net: Network, examples: Examples, error: float) -> dict[str, SolverSettings]:
    """Each simulator's solver settings for a relative ``error``, chosen on the examples that are solved."""
    few = examples.x0[: len(examples.v_ref)]
    return {
        simulator: SolverSettings(error, steps_for(net, few, examples.v_ref, examples.scales, error, order), order)
        for simulator, order in ORDERS.items()
    }


def require_place(out: Path) -> None:
    """Raise :class:`InvalidInputError` where a bundle must not be written to ``out``: asked before work of minutes."""
    require_free(out, _claims)


def _claims(path: Path) -> list[str]:
    """Why the folder ``path`` must not be replaced by a new bundle: it is no bundle, or its receiver worked in it."""
    try:
        listed = read_manifest(path)["sha256"]
    except InvalidInputError as error:
        return [f"exists and is not a bundle that may be replaced: {error}"]
    found = {str(p.relative_to(path)): p for p in path.rglob("*") if p.is_file()}
    kept = [
        name for name in found if name not in listed and name != MANIFEST and name.split("/")[0] not in _MADE_BY_RUN
    ]
    kept += [name for name, p in found.items() if name in listed and sha256_file(p) != listed[name]]
    return [f"its file {name} was added or edited since the export" for name in sorted(kept)]


def _write(
    folder: Path,
    net: Network,
    circuit: Circuit,
    settings: Mapping[str, SolverSettings],
    examples: Examples,
    ranges: Sequence[Ranges] | None,
    mos: MosCircuit | None,
) -> None:
    scaling = circuit.scaling
    for name in ("netlist", "testbench", "expected"):
        (folder / name).mkdir()
    several = circuit.sequenced
    if mos is None:
        _write_devices(folder, circuit, settings)
    else:
        (folder / "netlist" / _netlist_name(circuit, "ngspice", None)).write_text(mos.netlist())
        (folder / "netlist" / "edge_map.csv").write_text(mos.edge_map_csv())
        (folder / "netlist" / "devices.csv").write_text(mos.devices_csv())
        (folder / "netlist" / "periphery.sp").write_text(mos.periphery())
        write_by_hand(folder, mos)
        if mos.kit_file is not None:
            (folder / mos.kit_file).write_text(kit_text(mos.pdk, mos.models))
    save_network(net, folder / "network.kcnet")

    sample = Sample("the first example input", examples.x0[0, 1:] * scaling.v_unit, "example")
    own = settings["ngspice"]
    lead_in = 0.0 if mos is None else mos.write_time
    window = gated_window(circuit, own) if several else stage_window(circuit, circuit.stages[0], own, lead_in)
    used = sorted(circuit.modules(gated=several))
    (folder / "testbench" / "example.sp").write_text(
        render_testbench(
            circuit,
            window,
            own,
            [sample],
            simulator="ngspice",
            ascii_output=True,
            netlist=f"../netlist/{_netlist_name(circuit, 'ngspice', None)}",
            osdi=[f"../osdi/{m}.osdi" for m in used],
            header="" if mos is None else mos.header("../models", [f"../osdi/{o.module}.osdi" for o in mos.pdk.osdi]),
        )
    )
    tolerance = own.error * examples.scales
    (folder / "expected" / "final.csv").write_text(_final_csv(net, circuit, examples.v_ref[0], tolerance))
    (folder / "expected" / "waveforms.csv").write_text(_waveforms_csv(net, circuit, examples.x0[0]))

    context = {
        "network": net,
        "circuit": circuit,
        "scaling": scaling,
        "settings": own,
        "version": __version__,
        "audit": audit(net, examples.x0, scaling, examples.seen),
        "label": None if is_generative(net) else int(labels(net, examples.v_ref)[0]),
        "undecided": 2 * float(tolerance[net.readout].max()) * scaling.v_unit,
        "origin": examples.origin,
        "phases": list(zip(net.phases, circuit.stages, strict=True)),
        "several": several,
        "n_capacitors": len(all_nets(circuit)),
        "t_end": lead_in + circuit.run_time(several),
        "modules": used,
        "reference": method(net),
        "readout": [circuit.banks[-1].nets[n] for n in net.readout],
        "inputs": [circuit.nets[n] for n in net.inputs],
        "mos": mos,
    } | ({} if mos is None else mos.readme() | {"by_hand": by_hand(mos)})
    readme = "bundle/README.md.j2" if mos is None else "bundle/README_mos.md.j2"
    (folder / "README.md").write_text(render(readme, **context))
    run = folder / "run.sh"
    run.write_text(render("bundle/run.sh.j2", **context))
    run.chmod(0o755)
    manifest = json.loads(json.dumps(_manifest(folder, net, circuit, settings, examples.origin, ranges, mos)))
    manifest["fingerprint"] = _fingerprint(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def _write_devices(folder: Path, circuit: Circuit, settings: Mapping[str, SolverSettings]) -> None:
    """Devices and netlists of the levels without transistors."""
    several = circuit.sequenced
    modules = circuit.modules(gated=False) | (circuit.modules(gated=True) if several else {})
    if modules:
        (folder / "veriloga").mkdir()
    for module, shape in modules.items():
        (folder / "veriloga" / f"{module}.va").write_text(module_source(module, shape))
    for simulator in circuit.simulators:
        for stage in circuit.stages:
            path = folder / "netlist" / _netlist_name(circuit, simulator, stage)
            path.write_text(render_netlist(circuit, stage, simulator))
        if several:
            path = folder / "netlist" / _netlist_name(circuit, simulator, None)
            path.write_text(render_gated_netlist(circuit, settings[simulator].steps, simulator))
    (folder / "netlist" / "edge_map.csv").write_text(edge_map_csv(circuit))


def _final_csv(net: Network, circuit: Circuit, v_end: Floats, tolerance: Floats) -> str:
    """Each node's expected final voltage and the tolerance of the accuracy contract, in volts."""
    role = _roles(net)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["net", "role", "volts", "tolerance"])
    for node, net_name in enumerate(circuit.banks[-1].nets[1:], start=1):
        volts = circuit.scaling.v_cm + circuit.scaling.v_unit * v_end[node]
        allowed = circuit.scaling.v_unit * tolerance[node]
        writer.writerow([net_name, role[node], f"{volts:.9g}", f"{allowed:.3g}"])
    return out.getvalue()


def _waveforms_csv(net: Network, circuit: Circuit, x0: Floats) -> str:
    """The reference waveforms of the read-out nodes, seconds and volts; in a transfer window they stand at what the
    next phase starts at."""
    times = np.linspace(0, circuit.run_time(circuit.sequenced), _WAVEFORM_POINTS)
    taus = time_in_phases(times, list(circuit.timeline.windows.values())) / circuit.scaling.t_unit
    volts = circuit.scaling.v_cm + circuit.scaling.v_unit * trajectory(net, x0, taus)[:, net.readout]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["seconds", *(circuit.nets[n] for n in net.readout)])
    for t, row in zip(times, volts, strict=True):
        writer.writerow([f"{t:.9g}", *(f"{v:.9g}" for v in row)])
    return out.getvalue()


def _roles(net: Network) -> list[str]:
    role = ["ground"] + ["internal"] * (net.max_nodes - 1)
    for i, node in enumerate(net.inputs):
        role[node] = f"input {i}"
    for i, node in enumerate(net.readout):
        role[node] = f"output {i}"
    return role


def _manifest(
    folder: Path,
    net: Network,
    circuit: Circuit,
    settings: Mapping[str, SolverSettings],
    origin: str,
    ranges: Sequence[Ranges] | None,
    mos: MosCircuit | None,
) -> dict[str, Any]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {
        "manifest_version": MANIFEST_VERSION,
        "kcnet_eda": __version__,
        "network": {
            "name": net.name,
            "nodes": net.max_nodes,
            "edges": net.n_edges,
            "duration": net.duration,
            "record": dict(net.record),
        },
        "level": circuit.level,
        "mos": None if mos is None else mos.as_dict(),
        "scaling": circuit.scaling.as_dict(),
        "t_end": circuit.run_time(circuit.sequenced),
        "t_windows": circuit.timeline.in_windows,
        "solver": {simulator: s.as_dict(circuit.scaling) for simulator, s in settings.items()},
        "examples": origin,
        "node_map": [
            {"node": i, "net": name, "role": role}
            for i, (name, role) in enumerate(zip(circuit.nets, _roles(net), strict=True))
        ],
        "edge_map": "netlist/edge_map.csv",
        "lowering": {
            "passes": list(circuit.passes),
            "phases": [
                {
                    "edges": len(phase.edges),
                    "devices": stage.n_devices,
                    "folded_edges": int(stage.folded.size),
                    "dropped_edges": int(stage.dropped.size),
                }
                for phase, stage in zip(net.phases, circuit.stages, strict=True)
            ],
            "ranges": None if ranges is None else [[low.tolist(), high.tolist()] for low, high in ranges],
        },
        "warnings": [
            *(f"no input reaches read-out net {circuit.nets[n]}" for n in unreachable_readout(net)),
            *(() if mos is None else mos.warnings),
        ],
        "sha256": {str(p.relative_to(folder)): sha256_file(p) for p in files},
    }


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of the bundle in ``path``, its own hash checked (under ``edited``: whether it was changed).

    Raises
    ------
    InvalidInputError
        ``path`` is not a bundle, or is of a newer version.
    """
    try:
        manifest = dict(json.loads((path / MANIFEST).read_text()))
        version = int(manifest["manifest_version"])
        if version <= MANIFEST_VERSION:
            manifest["edited"] = manifest.pop("fingerprint") != _fingerprint(manifest)
            return manifest
    except FileNotFoundError:
        raise InvalidInputError(
            str(path), [f"is not a bundle: it has no {MANIFEST}"], "Make one with 'kcnet export'."
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInputError(
            str(path / MANIFEST), [f"is not the manifest of a bundle: {error!r}"], "Export again."
        ) from None
    raise InvalidInputError(
        str(path),
        [f"has manifest version {version}; this kcnet_eda reads up to {MANIFEST_VERSION}"],
        "Update kcnet_eda, or export again.",
    )


def _fingerprint(manifest: dict[str, Any]) -> str:
    return sha256_bytes(json.dumps(manifest, sort_keys=True).encode())


def read_bundle(path: Path) -> Bundle:
    """Read a bundle back.

    Raises
    ------
    InvalidInputError
        ``path`` is not a bundle, is of a newer version, has lost files, or its manifest makes no sense.
    """
    manifest = read_manifest(path)
    try:
        hashes = {str(name): str(digest) for name, digest in manifest["sha256"].items()}
        units = {name: float(manifest["scaling"][name]) for name in ("c", "v_unit", "i_unit", "v_cm")}
        level = str(manifest["level"])
        if level not in LEVELS:
            raise ValueError(f"level {level}")
        settings = {
            simulator: SolverSettings(float(s["error"]), int(s["steps"]), int(s["order"]), adaptive=level == "mos")
            for simulator, s in manifest["solver"].items()
        }
        passes = parse_passes(",".join(manifest["lowering"]["passes"]) or "none")
        ranges = manifest["lowering"]["ranges"]
        if ranges is not None:
            ranges = [(np.array(low, dtype=float), np.array(high, dtype=float)) for low, high in ranges]
        for simulator, s in settings.items():
            order = ORDERS[simulator]
            if s.steps < 1 or not s.error > 0 or s.order != order:
                raise ValueError(f"{simulator}: error {s.error:g} in {s.steps} steps of order {s.order}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInputError(str(path / MANIFEST), [f"cannot be used: {error!r}"], "Export again.") from None
    scaling = resolve(**units)
    lost = [name for name in hashes if not (path / name).is_file()]
    if lost:
        raise InvalidInputError(str(path), [f"its file {name} is missing" for name in lost], "Export again.")
    edited = [name for name, digest in hashes.items() if sha256_file(path / name) != digest]
    if manifest["edited"]:
        edited.append(MANIFEST)
    network = load_network(path / "network.kcnet")
    circuit = build_circuit(network, scaling, passes, ranges, level)
    return Bundle(path, network, circuit, settings, manifest, tuple(edited))
