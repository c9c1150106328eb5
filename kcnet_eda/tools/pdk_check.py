"""``kcnet pdk check``: each device of a kit through ngspice, at each corner and at the limits of its sizes."""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.errors import (
    BadDataError,
    KcnetError,
    NotConvergedError,
    RunTimeoutError,
    ToolFailedError,
)
from kcnet_eda.export.pdk_deck import model_header, resistor_line, transistor_line
from kcnet_eda.export.render import render
from kcnet_eda.physical.pdk import DEVICE_KINDS, Pdk, Span, load_pdk
from kcnet_eda.tools.pdk import Models, link_models, prepare
from kcnet_eda.tools.rawfile import read_sweep
from kcnet_eda.tools.simulators import NGSPICE

Floats = NDArray[np.float64]
_THRESHOLD_A = 100e-9  # of a square device: the usual constant-current threshold
_STEPS = 132
_RESISTOR_V = 0.1
_ROUGHLY = 1.5  # how far a kit's sheet resistance may be off before it must be a mistake
_SAME = 1e-3  # of its current, a transistor without its wrapper: a tenth of what a cell may be off by


@dataclass(frozen=True)
class Probe:
    """One device of the check's deck: ``name`` in the deck, ``key`` in the kit's file, sizes in µm, and the ``volts``
    of its own source, which measures its current."""

    name: str
    key: str
    model: str
    size: str
    width: float
    length: float
    volts: float
    line: str


@dataclass(frozen=True)
class Reading:
    """What one device did at one corner. Transistors: ``current`` [A] at |V_GS| = |V_DS| = half the supply,
    ``threshold`` [V] where the current is 100 nA · W/L, ``off`` [A] at V_GS = 0. The resistor: ``resistance`` [ohm]
    at 0.1 V and ``expected`` by the kit's file. What does not apply is None."""

    key: str
    model: str
    size: str
    width: float
    length: float
    corner: str
    current: float | None = None
    threshold: float | None = None
    off: float | None = None
    resistance: float | None = None
    expected: float | None = None


@dataclass(frozen=True)
class Check:
    """A kit that passed: every reading, and what it was made with."""

    pdk: Pdk
    models: Models
    simulator: str
    bias: float
    readings: tuple[Reading, ...]
    prepare_s: float
    simulate_s: float


@dataclass(frozen=True)
class _Bench:
    """What every deck of one corner shares; ``folder`` gets a folder for each deck."""

    pdk: Pdk
    models: Models
    folder: Path
    corner: str
    resistor_corner: str
    timeout_s: float
    direct: bool = False

    @property
    def named(self) -> str:
        """The corner that is not nominal."""
        return self.corner if self.resistor_corner == "typ" else self.resistor_corner


def pdk_check(
    name: str | Path, corners: Sequence[str] = (), *, models: Path | None = None, timeout_s: float = 120.0
) -> Check:
    """Compile what a kit (a shipped name, or a YAML file) needs and run an I-V of each device.

    ``corners`` are of transistors or resistors; all if none is given. Each device runs at a middle size and at the
    limits that the kit's file states. ``models`` is the models' folder, looked for if not given; ``timeout_s`` bounds
    each corner.

    Raises
    ------
    InvalidInputError
        The kit's file is wrong, lacks a corner, or names sections or files that the models lack.
    KcnetError
        The models are not on this machine, or a device does not load, converge or conduct: file, device and remedy
        are named, deck and log kept.
    """
    started = time.monotonic()
    pdk = load_pdk(name)
    runs = pdk.corner_pairs(corners)
    found = prepare(pdk, models)
    prepared = time.monotonic()
    version = NGSPICE.version()
    folder = Path(tempfile.mkdtemp(prefix="kcnet-pdk-check-"))
    readings: list[Reading] = []
    for corner, resistor_corner in runs:
        readings += _run_corner(_Bench(pdk, found, folder, corner, resistor_corner, timeout_s))
    shutil.rmtree(folder)  # kept where a run failed: the error names it
    bias = pdk.operating.supply / 2
    return Check(pdk, found, version, bias, tuple(readings), prepared - started, time.monotonic() - prepared)


def _transistors(pdk: Pdk, direct: bool) -> list[Probe]:
    half = pdk.operating.supply / 2
    probes = []
    for kind in DEVICE_KINDS:
        device = pdk.transistor(kind)
        w, l = device.width, device.length  # noqa: E741
        middle = (_between(w, 4 * w.min), _between(l, 2 * l.min))
        for size, (width, length) in {
            "middle": middle,
            "smallest": (w.min, l.min),
            "longest": (middle[0], l.max),
            "widest": (w.max, middle[1]),
        }.items():
            name = f"{kind}_{size}"
            rest = ["g", "0", "0"] if kind == "nmos" else ["gp", "vdd", "vdd"]
            line = transistor_line(pdk, kind, name, [f"n{name}", *rest], width, length, direct=direct)
            probes.append(Probe(name, f"devices.{kind}", device.model, size, width, length, half, line))
    return probes


def _probes(pdk: Pdk) -> list[Probe]:
    probes = _transistors(pdk, direct=False)
    w, l = pdk.resistor.width, pdk.resistor.length  # noqa: E741
    for size, length in {"middle": _between(l, 20 * w.min), "smallest": l.min, "longest": l.max}.items():
        name = f"resistor_{size}"
        line = resistor_line(pdk, name, f"n{name}", "0", "0", length)
        probes.append(Probe(name, "resistor", pdk.resistor.model, size, w.min, length, _RESISTOR_V, line))
    return probes


def _between(span: Span, size: float) -> float:
    return min(max(span.snap(size), span.min), span.max)


def _run_corner(bench: _Bench) -> list[Reading]:
    probes = _probes(bench.pdk)
    folder = bench.folder / bench.named
    try:
        swept, currents = _simulate(bench, probes, folder)
    except RunTimeoutError as error:
        raise RunTimeoutError(f"{bench.pdk.file}: corner {bench.named}: {error}") from None
    except (ToolFailedError, BadDataError) as error:
        raise _blame(bench, probes, error) from None
    try:
        readings = [_read(bench.pdk, probe, bench.named, swept, currents[:, i]) for i, probe in enumerate(probes)]
    except BadDataError as error:
        raise BadDataError(f"{error}\n  Deck: {folder / 'check.sp'}") from None
    if bench.pdk.has_direct:
        _compare_direct(replace(bench, direct=True), swept, currents)
    return readings


def _compare_direct(bench: _Bench, swept: Floats, wrapped: Floats) -> None:
    """Raise where a transistor without its wrapper does not carry what it does with it (``wrapped`` [points, probes])
    at half the supply."""
    folder = bench.folder / f"{bench.named}_direct"
    probes = _transistors(bench.pdk, bench.direct)
    try:
        _, alone = _simulate(bench, probes, folder)
    except (ToolFailedError, BadDataError) as error:
        raise type(error)(
            f"{bench.pdk.file}: corner {bench.named}: transistors without their wrappers do not run: {error}\n"
            "  Correct devices.nmos.direct and devices.pmos.direct in that file, or leave both out."
        ) from None
    middle = int(np.argmin(np.abs(swept - bench.pdk.operating.supply / 2)))
    for i, probe in enumerate(probes):
        with_it, without = float(wrapped[middle, i]), float(alone[middle, i])
        if abs(without - with_it) > _SAME * abs(with_it):
            raise BadDataError(
                f"{_where(bench.pdk, probe, bench.named)}: carries {without:.5g} A without its wrapper and "
                f"{with_it:.5g} A with it.\n  Correct {probe.key}.direct in that file: globals, parameters, diffusion, "
                f"the files; or leave it out. Deck: {folder / 'check.sp'}"
            )


def _simulate(bench: _Bench, probes: Sequence[Probe], folder: Path) -> tuple[Floats, Floats]:
    pdk, supply = bench.pdk, bench.pdk.operating.supply
    folder.mkdir()
    models, osdi = link_models(bench.models, folder)
    header = model_header(
        pdk, models, osdi, corner=bench.corner, resistor_corner=bench.resistor_corner, direct=bench.direct
    )
    deck, raw = folder / "check.sp", folder / "check.raw"
    deck.write_text(
        render("mos/check.j2", pdk=pdk, header=header, probes=probes, supply=supply, step=supply / _STEPS),
        encoding="utf-8",
    )
    NGSPICE.run_to(raw, deck, folder / "check.log", bench.timeout_s)
    return read_sweep(raw, [f"i(v{probe.name})" for probe in probes], supply)


def _blame(bench: _Bench, probes: Sequence[Probe], together: KcnetError) -> KcnetError:
    """The error for a corner that failed: each device is tried alone, and the first that fails alone is named, unless
    all do."""
    pdk, corner = bench.pdk, bench.named
    alone: dict[str, KcnetError] = {}
    for probe in probes:
        try:
            _simulate(bench, [probe], bench.folder / f"{corner}_{probe.name}")
        except (ToolFailedError, BadDataError) as error:
            alone[probe.name] = error
    guilty = next((probe for probe in probes if probe.name in alone), None)
    if guilty is None or len(alone) == len(probes):
        what = "no device loads" if alone else "the devices fail together, each passes alone"
        return ToolFailedError(
            f"{pdk.file}: corner {corner}: {what}: {together}\n  Look at what that corner loads, at includes, "
            "parameters, options and osdi in that file."
        )
    cause = alone[guilty.name]
    said = f"{_where(pdk, guilty, corner)}: {cause}"
    if isinstance(cause, NotConvergedError):
        return NotConvergedError(f"{said}\n  Its operating point cannot be found: look at its model, and at options.")
    if "valid modelname" in str(cause) and "can't find model" not in str(cause):
        return ToolFailedError(
            f"{said}\n  No bin of the models holds that size: raise {guilty.key}.length.min or width.min, or lower max."
        )
    if "model type" in str(cause):
        return ToolFailedError(f"{said}\n  A model in Verilog-A is not loaded: add it to osdi in that file.")
    return ToolFailedError(f"{said}\n  Correct {guilty.key} in that file: model, instance letter, parameters.")


def _where(pdk: Pdk, probe: Probe, corner: str) -> str:
    return f"{pdk.file}: {probe.key} {probe.model} at W = {probe.width:g} µm, L = {probe.length:g} µm, corner {corner}"


def _read(pdk: Pdk, probe: Probe, corner: str, swept: Floats, source: Floats) -> Reading:
    """A reading from the current [points] that flows into the probe's source; a device that does none of what its kind
    does is an error."""
    known = Reading(probe.key, probe.model, probe.size, probe.width, probe.length, corner)
    where = _where(pdk, probe, corner)
    if probe.key == "resistor":
        expected = pdk.resistor.resistance(probe.length, probe.width)
        # The kit's file states the nominal value, which short resistors are not held to: they are mostly ends.
        nominal = corner in pdk.corners and probe.size != "smallest"
        return replace(known, resistance=_resistance(expected, nominal, where, float(source[0])), expected=expected)
    drain = source if probe.key == "devices.pmos" else -source
    wanted = _THRESHOLD_A * probe.width / probe.length
    bias = pdk.operating.supply / 2
    on = float(np.interp(bias, swept, drain))
    above = np.flatnonzero(drain >= wanted)
    if above.size == 0 or above[0] == 0 or on < 10 * max(float(drain[0]), 0.0):
        raise BadDataError(
            f"{where}: is no transistor that turns on: {drain[0]:.3g} A at V_GS = 0, {on:.3g} A at {bias:g} V, "
            f"{drain[-1]:.3g} A at {swept[-1]:g} V.\n  Look at its model, at size_unit with the option scale, and at "
            "operating.supply."
        )
    i = int(above[0])
    share = math.log(wanted / max(drain[i - 1], 1e-18)) / math.log(drain[i] / max(drain[i - 1], 1e-18))
    threshold = float(swept[i - 1] + share * (swept[i] - swept[i - 1]))
    return replace(known, current=on, threshold=threshold, off=float(drain[0]))


def _resistance(expected: float, nominal: bool, where: str, source: float) -> float:
    found = -_RESISTOR_V / source if source else math.inf
    if not 0 < found < math.inf or (nominal and not expected / _ROUGHLY < found < expected * _ROUGHLY):
        raise BadDataError(
            f"{where}: has {found:.4g} ohm, where sheet_resistance, width_offset and end_resistance make "
            f"{expected:.4g}.\n  Correct these, or size_unit, length_parameter and width_parameter."
        )
    return found
