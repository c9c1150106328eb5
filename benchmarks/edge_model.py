"""The calibrated edge: what each parameter is worth, how its lag is treated, how mismatch goes with the area.

    python benchmarks/edge_model.py [--pdk generic180 gf180mcu] [--digits 10] [--only PART]

Fit: cells of the size classes at 5 corners x 3 supplies x 3 temperatures, the law fitted at each with and without each
of its parameters; errors over full scale. Steps: of the engine. Lag: digits through one die at the nominal condition
by the engine, by training's rule (currents that see the voltages of a lag ago), and by ngspice with a state for each
edge. Mismatch: σ of each size by the kit's statistics over that of Pelgrom's rule, within dies.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.dynamics.die_engine import evolve_dies
from kcnet_eda.dynamics.edge_law import BuiltEdges
from kcnet_eda.network.data import load_data
from kcnet_eda.network.store import load_network, network_path
from kcnet_eda.physical.condition import Condition
from kcnet_eda.physical.edge_model import ADDED, fit_model
from kcnet_eda.physical.mismatch import within_dies
from kcnet_eda.physical.pdk import Pdk, load_pdk
from kcnet_eda.physical.size_classes import model_classes
from kcnet_eda.progress import NoProgress
from kcnet_eda.study.mos.calibrate import calibrate
from kcnet_eda.study.mos.export import kit_scaling
from kcnet_eda.study.mos.rig import Bench, Rig
from kcnet_eda.study.mos.sizing import size_cells
from kcnet_eda.study.pvt.conditions import cells_at, nominal
from kcnet_eda.study.pvt.dies import Dies, network_cells
from kcnet_eda.study.pvt.repeat import Behavioral, Case
from kcnet_eda.study.pvt.spread import drawn_dies, kit_spread
from kcnet_eda.tools.pdk import prepare

Floats = NDArray[np.float64]

T_UNIT = 300e-9
TIMEOUT_S = 120.0
LAGS = (0.0, 2e-9, 6e-9, 12e-9)
CORNERS = ("tt", "ff", "ss", "fs", "sf")


def fits(kit: Pdk, rig: Rig) -> None:
    """Fit errors of the law and of the law without each of its parameters, over all conditions."""
    home = calibrate(rig, *model_classes(rig.design))
    op = kit.operating
    conditions = [
        Condition(corner, "typ", round(op.supply * f, 6), t)
        for corner in CORNERS for f in (0.9, 1.0, 1.1) for t in (-40.0, 27.0, 125.0)
    ]  # fmt: skip
    sets = {"all": tuple(ADDED)} | {f"without {name}": tuple(n for n in ADDED if n != name) for name in ADDED}
    sets["gain and shift alone"] = ()
    largest: dict[str, list[float]] = {name: [] for name in sets}
    rms: dict[str, list[float]] = {name: [] for name in sets}
    lags, models = [], []
    for condition in conditions:
        cells, lag = cells_at(rig, home, condition)
        for name, added in sets.items():
            model = fit_model(cells, lag, added)
            largest[name].append(model.error.largest)
            rms[name].append(model.error.rms)
            if name == "all":
                models.append(model)
                lags.append((model.lag, *model.lag_span))
    print(f"{home.theta1.size} cells at {len(conditions)} conditions; over full scale, median and worst condition, %")
    for name in sets:
        a, b = 100 * np.array(largest[name]), 100 * np.array(rms[name])
        print(f"  {name}: largest {np.median(a):.2f}, {a.max():.2f}; rms {np.median(b):.2f}, {b.max():.2f}")
    for name in ADDED:
        values = [getattr(model, name) for model in models]
        print(f"  {name}: {min(values):.4f} to {max(values):.4f}")
    lag, low, high = (1e9 * np.array(v) for v in zip(*lags, strict=True))
    print(f"  lag: median of cells, a lead as 0, {lag.min():.2f} to {lag.max():.2f} ns; ", end="")
    print(f"of single cells {low.min():.2f} to {high.max():.2f} ns")


def delayed(
    edges: BuiltEdges, ends: tuple[NDArray[np.int64], NDArray[np.int64]], x0: Floats, steps: int = 200
) -> Floats:
    """v(1) [nodes] of one die by currents that see the voltages of a lag ago, RK4 in double precision."""
    source, target = ends
    built = replace(edges, theta1=edges.theta1[0], theta2=edges.theta2[0], ratio=edges.ratio[0])

    def settled(v: Floats) -> Floats:
        into, out = built.settled(v[source], v[target])
        rate = np.asarray(np.bincount(target, into, v.size) - np.bincount(source, out, v.size), np.float64)
        rate[0] = 0.0
        return rate

    def slope(v: Floats) -> Floats:
        return settled(v - edges.lag * settled(v))

    v, h = x0.copy(), 1 / steps
    for _ in range(steps):
        k1 = slope(v)
        k2 = slope(v + h / 2 * k1)
        k3 = slope(v + h / 2 * k2)
        v = v + h / 6 * (k1 + 2 * k2 + 2 * k3 + slope(v + h * k3))
    return v


def steps(kit: Pdk, rig: Rig) -> None:
    """Labels and voltages of few steps in single precision against 200 in double, 4 dies, all test digits."""
    home = calibrate(rig, *model_classes(rig.design))
    hot = Condition("ff", "typ", kit.operating.supply, 125.0)
    model = fit_model(*cells_at(rig, home, hot))
    cells = network_cells(load_network(network_path("digits_mos")))
    dies = Dies(cells, (model,), cells.units(rig.design), kit_spread(rig, NoProgress()), 0, T_UNIT)
    network, edges = cells.network, dies.edges(0, range(4))
    x0 = network.initial_state(load_data("digits:test", None, features=network.inputs.size, seed=0).x)
    duration = network.phases[0].duration
    fine = evolve_dies(cells.ends, edges, x0, duration, steps=200, dtype=np.float64)
    label = fine[:, network.readout].argmax(axis=1)
    print(f"steps, 4 dies x {len(x0)} digits at {hot.name}, against 200 in double precision")
    for n in (5, 8, 10, 15):
        v = dies.evolve(edges, x0, n, 1)
        same = int((v[:, network.readout].argmax(axis=1) == label).sum())
        off = np.abs(v - fine).max() / np.ptp(fine)
        print(f"  {n}: {same} of {label.size} labels, voltages within {off:.1e} of the range")


def of_ngspice(level: Behavioral, case: Case, x0: np.ndarray, folder: Path) -> np.ndarray:
    """Where ngspice ends; a run that fails ends the benchmark."""
    result = level.run(case, x0, level.settings, folder, TIMEOUT_S)
    if result.v_end is None:
        raise SystemExit(result.message)
    return result.v_end


def lag(kit: Pdk, rig: Rig, digits: int) -> None:
    """Differences from ngspice of three treatments of the lag."""
    home = calibrate(rig, *model_classes(rig.design))
    at = nominal(kit)
    model = fit_model(*cells_at(rig, home, at))
    cells = network_cells(load_network(network_path("digits_mos")))
    data = load_data("digits:test", None, features=cells.network.inputs.size, seed=0).head(digits)
    x0 = cells.network.initial_state(data.x)
    spread = kit_spread(rig, NoProgress())
    print(
        f"lag, {digits} digits on a die, differences from ngspice over the range: the engine, training's rule, no lag"
    )
    for seconds in LAGS:
        dies = Dies(cells, (replace(model, lag=seconds),), cells.units(rig.design), spread, 0, T_UNIT)
        level = Behavioral(dies, [at], kit_scaling(kit, None, T_UNIT))
        edges = dies.edges(0, range(1))
        found = dies.evolve(edges, x0, 15, 1)[0].T
        without = dies.evolve(replace(edges, lag=0.0), x0, 15, 1)[0].T
        late = np.array([delayed(edges, cells.ends, x) for x in x0])
        with tempfile.TemporaryDirectory() as folder:
            ends = np.array([of_ngspice(level, Case(0, 0, i), x, Path(folder) / str(i)) for i, x in enumerate(x0)])
        miss = [float(np.abs(v - ends).max() / np.ptp(ends)) for v in (found, late, without)]
        print(f"  {1e9 * seconds:g} ns: {miss[0]:.1e}, {miss[1]:.1e}, {miss[2]:.1e}")
    many, begun = dies.edges(0, range(20)), time.monotonic()
    dies.evolve(many, np.tile(x0, (-(-450 // digits), 1))[:450], 15, 1)
    print(f"  the engine: {(time.monotonic() - begun) / 20 * 1e3:.1f} ms a die of 450 samples, one thread")


def mismatch(rig: Rig) -> None:
    """σ of each size over the rule's."""
    spread = kit_spread(rig, NoProgress())
    print(f"mismatch: {spread}")
    sizes, units, variances = within_dies(drawn_dies(rig, NoProgress()))
    rule = np.stack(spread.of(units))
    for i in range(units.size):
        of = [f"{what} {s:.4f} ({s / r:.2f} of the rule)" for what, s, r in zip(
            ("θ1", "θ2", "ratio"), np.sqrt(variances[:, i]), rule[:, i], strict=True) if sizes[0, i] > 0 or what != "θ1"
        ]  # fmt: skip
        print(f"  θ1 = {sizes[0, i]:.3f}, θ2 = {sizes[1, i]:.2f}, {units[i]:g} units: {', '.join(of)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pdk", nargs="+", default=["generic180", "gf180mcu"])
    parser.add_argument("--only", choices=["fits", "steps", "lag", "mismatch"])
    parser.add_argument("--digits", type=int, default=10)
    given = parser.parse_args()
    for name in given.pdk:
        kit = load_pdk(name)
        rig = size_cells(Bench(kit, prepare(kit)))
        print(f"{kit.name}")
        parts: dict[str, Callable[[], None]] = {
            "fits": partial(fits, kit, rig),
            "steps": partial(steps, kit, rig),
            "lag": partial(lag, kit, rig, given.digits),
            "mismatch": partial(mismatch, rig),
        }
        for part in [given.only] if given.only else parts:
            parts[part]()


if __name__ == "__main__":
    main()
