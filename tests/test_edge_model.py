"""The calibrated edge: its fit against known edges, its Verilog-A against the Python law, mismatch against known σ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from kcnet_eda.dynamics.edge_law import BuiltEdges
from kcnet_eda.export.calibrated import MODULE
from kcnet_eda.files import resource_dir
from kcnet_eda.physical.cell_design import CellLimits
from kcnet_eda.physical.condition import Condition
from kcnet_eda.physical.edge_model import ADDED, EdgeModel, MeasuredCells, fit_model
from kcnet_eda.physical.mismatch import UnitSpread, unit_spread
from kcnet_eda.physical.relu_fit import box_points
from kcnet_eda.physical.sensitivity import sensitivities
from kcnet_eda.tools.openvaf import compile_file
from kcnet_eda.tools.simulators import NGSPICE

BOLTZMANN = 1.380649e-23
SIZES = np.array([0.16, 0.48, 0.95, 1.9])
TRUE = EdgeModel(
    tuple(SIZES.tolist()), (1.05, 1.06, 1.04, 1.05), (0.002, 0.02, 0.1), rounding=0.12, common_mode=0.002,
    compression=0.01, leakage=0.001, conductance=-0.004, ratio=1.01, lag=2e-9,
)  # fmt: skip


def cells_of(model: EdgeModel, theta1: np.ndarray, theta2: np.ndarray, units: np.ndarray) -> MeasuredCells:
    x, u, weight = box_points(41, 5)
    mean = u * (2 - np.abs(x) / 2)
    v_s, v_d = mean + x / 2, mean - x / 2
    sink, source = model.edges(theta1, theta2, units, 1.0).settled(v_s[:, None], v_d[:, None])
    return MeasuredCells(theta1, theta2, units, v_s, v_d, weight, source.T, sink.T)


def classes() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    theta1 = np.concatenate([np.tile(SIZES, 3), [0.0]])
    theta2 = np.concatenate([np.repeat([0.25, -0.1, 1.0], SIZES.size), [1.0]])
    return theta1, theta2, np.maximum(1, np.ceil(np.maximum(6 * theta1, theta2 / 0.65)))


def test_the_fit_finds_the_edges_that_were_measured() -> None:
    cells = cells_of(TRUE, *classes())
    found = fit_model(cells, np.array([[np.nan, 1e-9], [2e-9, 5e-9]]))
    for name in ("gain", "shift", *ADDED):
        assert getattr(found, name) == pytest.approx(getattr(TRUE, name), rel=1e-3, abs=1e-5), name
    assert (found.lag, found.lag_span) == (2e-9, (1e-9, 5e-9))
    assert found.error.largest < 1e-5 < found.plain_error.largest < found.departure
    assert found.error.rms < found.plain_error.rms
    # a lead is told, and is no lag
    assert fit_model(cells, np.array([-3e-9, -1e-9, 1e-9])).lag == 0.0


def test_the_parabola_is_closed_form_and_the_ideal_edge_is_eq_6() -> None:
    one = np.ones(1)
    edge = BuiltEdges(2 * one, -0.5 * one, 1.5 * one, 0.2 * one, 0.4 * one, 0.1 * one, 0.01 * one, -0.1)
    into, out = edge.settled(np.array([0.5]), np.array([0.1]))
    y = (2 * 0.4 + 0.2 * 0.3 - 0.5 + 0.4) ** 2 / 1.6  # within the corner
    i = y - 0.1 * y * y + 0.01
    assert (into[0], out[0]) == pytest.approx((i * (1 - 0.1 * 0.1), 1.5 * i))


def simulate(folder: Path, cards: Sequence[str], control: Sequence[str]) -> np.ndarray:
    """The numbers that ``wrdata out.txt`` of ``control`` wrote."""
    (folder / f"{MODULE}.osdi").write_bytes(compile_file(resource_dir("veriloga") / f"{MODULE}.va").read_bytes())
    deck = folder / "deck.sp"
    lines = ["* one edge", *cards, ".control", f"pre_osdi {MODULE}.osdi", *control, "quit", ".endc", ".end", ""]
    deck.write_text("\n".join(lines))
    (folder / "out.txt").unlink(missing_ok=True)
    done = NGSPICE.run(deck, folder / "log", 60.0)
    assert (folder / "out.txt").is_file(), done
    return np.loadtxt(folder / "out.txt")


def test_the_verilog_a_device_is_the_python_law_point_by_point(tmp_path: Path) -> None:
    units, spread, z = 3.0, UnitSpread(0.05, 0.03, 0.1), (0.7, -1.2, 0.4)
    model = " ".join(f"{name}={getattr(TRUE, name)}" for name in ADDED)
    sigma = " ".join(f"{name}={getattr(spread, name)}" for name in ("sigma_gain", "sigma_offset", "sigma_ratio"))
    swept = "dc vs 1.4 2.2 0.05 vd 1.4 2.2 0.2"
    control = ["set wr_singlescale", "option numdgt=12", swept, "wrdata out.txt i(vs) i(vd) v(s) v(d)"]
    for theta1, temperature in ((0.5, 27.0), (-0.5, 27.0), (0.5, 77.0)):
        cards = [
            f".model cal {MODULE} {model} lag=2n {sigma} tnom=27 tc_scale=1m tc_offset=2m tc_rounding=10m dsupply=0.3",
            "+ vc_scale=0.05 i_unit=2u v_unit=0.2",
            "vref ref 0 1.8", "vs s 0 1.8", "vd d 0 1.8",
            f"n1 s d ref cal theta1={theta1} theta2=-0.2 size={units} z_gain={z[0]} z_offset={z[1]} z_ratio={z[2]}",
            f".temp {temperature}", ".options reltol=1e-9 abstol=1e-18 vntol=1e-12",
        ]  # fmt: skip
        out, into, v_s, v_d = simulate(tmp_path, cards, control).T[1:]
        dt, one = temperature - 27.0, np.ones(1)
        scale = 1 + 1e-3 * dt + 0.05 * 0.3
        gain, offset, ratio = (of[0] * n for of, n in zip(spread.of(units * one), z, strict=True))
        law = BuiltEdges(
            theta1 * scale * (1 + gain) * one,
            (-0.2 * scale + units * 2e-3 * dt + offset) * one,
            TRUE.ratio * (1 + ratio) * one,
            units * TRUE.common_mode * one,
            units * TRUE.rounding * np.exp(0.01 * dt) * one,
            TRUE.compression / units * one,
            units * TRUE.leakage * one,
            TRUE.conductance,
        )
        entering, leaving = law.settled((v_s[:, None] - 1.8) / 0.2, (v_d[:, None] - 1.8) / 0.2)
        assert v_s.size == 17 * 5
        # 2e-11 A of at most 10 uA; a source's current is the one that enters it
        assert np.abs(-out / 2e-6 - leaving[:, 0]).max() < 1e-5
        assert np.abs(into / 2e-6 - entering[:, 0]).max() < 1e-5


@pytest.mark.parametrize("flicker", [False, True])
def test_noise_is_that_of_its_formula(tmp_path: Path, flicker: bool) -> None:
    """An edge of constant current into R beside C: S = R²·S_i/(1 + (2πf·RC)²)/(1 + (2πf·lag)²)."""
    r, c, lag, i = 1e4, 1e-9, 2e-6, 2e-6
    source = "kf=1e-16 af=1.5 ef=1" if flicker else "noise_g=1m"
    cards = [
        f".model cal {MODULE} i_unit={i} v_unit=0.2 lag={lag} noise=1 {source}",
        "vref ref 0 1.8", "vs s ref 0 ac 1", "n1 s d ref cal theta1=0 theta2=1", f"rd d ref {r} noisy=0",
        f"cd d ref {c}", ".temp 27",
    ]  # fmt: skip
    control = ["noise v(d,ref) vs dec 2 10 1meg", "setplot noise1", "wrdata out.txt onoise_spectrum"]
    f, root = simulate(tmp_path, cards, control).T[:2]
    s_i = 1e-16 * i**1.5 / f if flicker else np.full(f.size, 4 * BOLTZMANN * 300.15 * 1e-3)
    wanted = r**2 * s_i / (1 + (2 * np.pi * f * r * c) ** 2) / (1 + (2 * np.pi * f * lag) ** 2)
    # wrdata keeps 6 digits; Boltzmann's constant of the simulator is an older one, 2e-6 away
    assert root**2 == pytest.approx(wanted, rel=1e-4)


def test_the_spread_of_known_dies_is_found_and_falls_with_the_area() -> None:
    """σ of 40 dies of 4 copies of 5 sizes: 600 degrees of freedom for cells, 39 for the bias."""
    rng = np.random.default_rng(5)
    theta1, theta2 = np.tile(np.append(SIZES, 0.0), 4), np.tile([0.25] * 4 + [1.0], 4)
    units = np.maximum(1, np.ceil(np.maximum(6 * theta1, theta2 / 0.65)))
    true = UnitSpread(0.04, 0.02, 0.1, 0.02, 0.01)
    ideal = EdgeModel((1.0,), (1.0,), (0.0, 0.0, 0.0))
    dies = []
    for _ in range(40):
        of_gain, of_offset, of_ratio = true.of(units)
        z, w = rng.standard_normal((3, units.size)), rng.standard_normal(2)
        t1 = theta1 * (1 + of_gain * z[0]) * (1 + true.bias_gain * w[0])
        t2 = theta2 + of_offset * z[1] + units * true.bias_offset * w[1]
        cells = cells_of(ideal, t1, t2, units)
        source = cells.source * (1 + of_ratio * z[2])[:, None]
        dies.append(MeasuredCells(theta1, theta2, units, cells.v_s, cells.v_d, cells.weight, source, cells.sink))
    found = unit_spread(dies)
    # four standard errors of a σ: 4/√(2·480) for θ1 and θ2 (sloped sizes), 4/√(2·600) for the ratio, 4/√(2·39) for the
    # bias
    assert found.sigma_gain == pytest.approx(true.sigma_gain, rel=0.13)
    assert found.sigma_offset == pytest.approx(true.sigma_offset, rel=0.13)
    assert found.sigma_ratio == pytest.approx(true.sigma_ratio, rel=0.12)
    assert found.bias_gain == pytest.approx(true.bias_gain, rel=0.45)
    assert found.bias_offset == pytest.approx(true.bias_offset, rel=0.45)
    assert found.dies == 40


def test_sensitivities_are_the_slopes_about_the_condition() -> None:
    def at(supply: float, t: float) -> EdgeModel:
        gain = 1 + 1e-3 * (t - 27) + 0.05 * (supply - 3.3)
        return EdgeModel((1.0,), (gain,), (0.0, 6e-4 * (t - 27), 0.0), rounding=0.02 * np.exp(0.01 * (t - 27)))

    conditions = [Condition("tt", "typ", v, t) for v in (3.0, 3.3, 3.6) for t in (-40.0, 27.0, 125.0)]
    conditions.append(Condition("ff", "typ", 3.3, 27.0))
    models = [at(c.supply, c.temperature) for c in conditions]
    found = sensitivities(conditions, models, Condition("tt", "typ", 3.3, 27.0))
    wanted = {"tc_scale": 1e-3, "tc_offset": 6e-4 * CellLimits().slope_per_unit, "tc_rounding": 0.01, "vc_scale": 0.05}
    assert {name: found[name] for name in wanted} == pytest.approx(wanted)
    assert sensitivities(conditions[-1:], models[-1:], conditions[-1])["tc_scale"] is None
