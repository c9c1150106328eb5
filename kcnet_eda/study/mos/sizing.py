"""gm/I_D tables of a kit's transistors, simulated once and cached, and the edge cell sized from them."""

from __future__ import annotations

import io
from dataclasses import fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.export.charac_bench import FREQUENCY, GateProbe, gmid_probes, render_gmid
from kcnet_eda.files import cache_dir, sha256_bytes, write_atomic
from kcnet_eda.physical.cell_design import design_cell
from kcnet_eda.physical.gmid import GmIdTable, table_gates, table_lengths, table_width
from kcnet_eda.physical.pdk import DEVICE_KINDS, Pdk
from kcnet_eda.study.mos.rig import Bench, Rig
from kcnet_eda.tools.rawfile import read_ac, read_sweep
from kcnet_eda.tools.simulators import NGSPICE

Floats = NDArray[np.float64]

_TIMEOUT_S = 600.0


def size_cells(bench: Bench) -> Rig:
    """The bench, at its kit's nominal corner, with the edge cell sized from that corner's gm/I_D tables.

    Raises
    ------
    InvalidInputError
        The transistors do not reach a gm/I_D that the kit's file asks for.
    ToolFailedError, NotConvergedError, RunTimeoutError
        The simulator gave no result; the message names its log.
    """
    design = design_cell(bench.pdk, *gmid_tables(bench))
    return Rig(**{f.name: getattr(bench, f.name) for f in fields(Bench)}, design=design)


def gmid_deck(bench: Bench) -> tuple[str, list[GateProbe]]:
    """The deck of both gm/I_D tables, and its transistors."""
    probes = [probe for kind in DEVICE_KINDS for probe in gmid_probes(bench.pdk, kind, bench.direct)]
    return render_gmid(bench.pdk, bench.header(), probes, _v_ds(bench.pdk)), probes


def _v_ds(pdk: Pdk) -> float:
    return pdk.operating.supply / 2


def gmid_tables(bench: Bench) -> tuple[GmIdTable, GmIdTable]:
    """The gm/I_D tables of the n- and the p-channel transistor, at |V_DS| of half the supply; kept in the cache under
    the hash of all that determines them.

    Raises
    ------
    ToolFailedError, NotConvergedError, RunTimeoutError
        The simulator gave no result; the message names its log.
    """
    deck, probes = gmid_deck(bench)
    key = sha256_bytes("\n".join([deck, bench.models.sha256, NGSPICE.version()]).encode())[:24]
    path = cache_dir() / "mos" / f"gmid-{key}.npz"
    if not path.is_file():
        buffer = io.BytesIO()
        np.savez_compressed(buffer, columns=_measure(bench, deck, probes))
        write_atomic(path, buffer.getvalue())
    with np.load(path, allow_pickle=False) as arrays:
        columns = arrays["columns"]
    v_gs = np.array(table_gates(bench.pdk))
    found, start = [], 0
    for kind in DEVICE_KINDS:
        length, width = np.array(table_lengths(bench.pdk, kind)), table_width(bench.pdk, kind)
        stop = start + length.size * v_gs.size
        current, gm, gds, cgg = (column[start:stop].reshape(length.size, v_gs.size) for column in columns)
        found.append(
            GmIdTable(
                kind, width, _v_ds(bench.pdk), length, v_gs, current / width, gm / current, gds / current, cgg / width
            )
        )
        start = stop
    return found[0], found[1]


def _measure(bench: Bench, deck: str, probes: list[GateProbe]) -> Floats:
    """Current [A], gm, gds [S] and all of the gate's capacitance [F] of each transistor, [4, probes]."""
    gates = [f"i(vg{probe.name})" for probe in probes]
    drains = [f"i(vd{probe.name})" for probe in probes]

    def read(folder: Path) -> Floats:
        _, current = read_sweep(folder / "op.raw", drains, 0.0)
        by_gate = read_ac(folder / "g.raw", [*drains, *gates])
        by_drain = read_ac(folder / "d.raw", drains)
        n = len(probes)
        return np.stack(
            [np.abs(current[0]), by_gate[:n].real, by_drain.real, by_gate[n:].imag / (2 * np.pi * FREQUENCY)]
        )

    return bench.run(deck, "gmid", _TIMEOUT_S, read)
