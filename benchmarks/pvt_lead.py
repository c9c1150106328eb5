"""What a lead of the edges' currents would explain of the engine's difference from transistors, and what is static.

    python benchmarks/pvt_lead.py [--pdk generic180] [--digits 5] [--t-unit 100n 300n 3u]

A lead is a negative lag: to first order the currents at a time are those of the voltages a lead later, so that
dv/dτ = f(v + lead·f(v)). At a long T_u no lag or lead matters: what is left there is the static law's.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np

from kcnet_eda.dynamics.die_engine import edge_table, settle
from kcnet_eda.dynamics.edge_law import BuiltEdges
from kcnet_eda.export.bundle import DEFAULT_ERROR
from kcnet_eda.network.data import load_data
from kcnet_eda.network.store import load_network, network_path
from kcnet_eda.physical.condition import Condition
from kcnet_eda.physical.pdk import load_pdk
from kcnet_eda.physical.size_classes import model_classes
from kcnet_eda.progress import NoProgress
from kcnet_eda.study.mos.calibrate import calibrate
from kcnet_eda.study.mos.characterize import cell_lag
from kcnet_eda.study.mos.export import calibrated_circuit, kit_scaling, mos_settings
from kcnet_eda.study.mos.run import mos_deck, run_in_transistors
from kcnet_eda.study.pvt.conditions import at_condition, measured
from kcnet_eda.study.pvt.dies import Cells, network_cells
from kcnet_eda.study.pvt.settings import PvtStudy
from kcnet_eda.units import parse_si

LEADS_NS = (0, 1, 2, 4, 8)
STEPS = 400  # of RK4


def led(cells: Cells, edges: BuiltEdges, x0: np.ndarray, lead: float) -> np.ndarray:
    """The final state [nodes] where currents lead by ``lead`` [T_u]."""
    one = replace(edges, theta1=edges.theta1[None], theta2=edges.theta2[None], ratio=edges.ratio[None])
    table, h = edge_table(one, np.float64)[0], cells.network.duration / STEPS

    def rate(v: np.ndarray) -> np.ndarray:
        now, later = np.empty_like(v), np.empty_like(v)
        settle(*cells.ends, table, edges.conductance, v, now)
        settle(*cells.ends, table, edges.conductance, v + lead * now, later)
        return later

    v = x0[:, None].copy()
    for _ in range(STEPS):
        k1 = rate(v)
        k2 = rate(v + h / 2 * k1)
        k3 = rate(v + h / 2 * k2)
        v = v + h / 6 * (k1 + 2 * k2 + 2 * k3 + rate(v + h * k3))
    return np.asarray(v[:, 0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pdk", default="generic180")
    parser.add_argument("--digits", type=int, default=5)
    parser.add_argument("--t-unit", nargs="+", default=["100n", "300n", "3u"])
    given = parser.parse_args()
    kit, network = load_pdk(given.pdk), load_network(network_path("digits_mos"))
    supply, cells = kit.operating.supply, network_cells(network)
    conditions = [
        Condition("tt", "typ", supply, 27.0),
        Condition("ff", "typ", supply, 27.0),
        Condition("ss", "typ", supply, -40.0),
        Condition("ff", "typ", round(0.9 * supply, 6), 125.0),
    ]
    found = measured(PvtStudy(network="digits_mos", pdk=given.pdk), kit, conditions, NoProgress())
    home = calibrate(found.rig, *model_classes(found.rig.design))
    x0 = network.initial_state(load_data("digits:test", None, features=network.inputs.size, seed=0).x)[: given.digits]
    units = cells.units(found.rig.design)
    for condition, model in zip(conditions, found.models, strict=True):
        there = at_condition(found.rig, condition)
        lags = cell_lag(there, home)
        print(f"{condition.name}: median of the lags as measured {1e9 * np.nanmedian(lags):.2f} ns")
        for t_unit in map(parse_si, given.t_unit):
            scaling = kit_scaling(kit, None, t_unit)
            mos, settings = calibrated_circuit(network, found.rig, scaling), mos_settings(network, DEFAULT_ERROR)
            runs = [run_in_transistors(there, mos_deck(there, mos, settings, x)).v[-1] for x in x0]
            edges = model.edges(cells.theta1, cells.theta2, units, t_unit)
            for lead in LEADS_NS:
                ends = [led(cells, edges, x, 1e-9 * lead / t_unit) for x in x0]
                off = [float(np.abs(v[1:] - run).max()) for v, run in zip(ends, runs, strict=True)]
                print(f"  T_u {1e9 * t_unit:g} ns, lead {lead} ns: largest node difference, median over digits "
                      f"{np.median(off):.3f}, worst {max(off):.3f} V_u", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
