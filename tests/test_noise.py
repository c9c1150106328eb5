"""Noise in the fast engine against closed forms, and in ngspice against the same."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_network
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy.constants import Boltzmann
from scipy.integrate import quad
from scipy.interpolate import BSpline

from kcnet_eda import api
from kcnet_eda.dynamics.die_engine import evolve_dies
from kcnet_eda.dynamics.edge_law import BuiltEdges, eq6_edges
from kcnet_eda.dynamics.noise import WhiteNoise, evolve_noisy
from kcnet_eda.export.calibrated import CalibratedDie, DrawnNoise, render_die
from kcnet_eda.export.testbench import SolverSettings
from kcnet_eda.files import resource_dir
from kcnet_eda.network.laws import RELU
from kcnet_eda.network.store import load_network, network_path, save_network
from kcnet_eda.physical.edge_model import EdgeModel
from kcnet_eda.physical.mos_cell import cell_edges
from kcnet_eda.physical.scaling import resolve
from kcnet_eda.study.pvt.dies import Dies, network_cells
from kcnet_eda.study.pvt.noise import count_right, smallest_c
from kcnet_eda.study.pvt.noise_spot import spread_ratio
from kcnet_eda.study.pvt.record import withhold
from kcnet_eda.study.pvt.settings import Noise, PvtStudy
from kcnet_eda.study.pvt.work import Shared
from kcnet_eda.study.store import open_store
from kcnet_eda.tools.openvaf import compile_file
from kcnet_eda.tools.rawfile import read_transient
from kcnet_eda.tools.simulators import NGSPICE

PATHS = 20_000


def _rc(g: float, current: float = 1.0) -> BuiltEdges:
    """Edge 0 from node 1 to ground conducts g; edge 1 from ground keeps ``current`` flowing through it."""
    return eq6_edges(np.array([[g, 0.0]]), np.array([[0.0, current]]))


RC = (np.array([1, 0]), np.array([0, 1]))


@pytest.mark.parametrize("g", [0.5, 2.0])
@pytest.mark.parametrize("mirror", [0.0, 1.5])
def test_a_conducting_edge_and_a_capacitor_have_the_variance_of_kt_over_c(g: float, mirror: float) -> None:
    level, h = 1e-4, 0.1 / g
    start = np.tile([0.0, 1 / g], (PATHS, 1))  # where the currents balance; no noise in it
    v = evolve_noisy(RC, _rc(g), start, 60 * h, WhiteNoise(level, mirror), np.random.default_rng(5), steps=60,
                     dtype=np.float64)[1]  # fmt: skip
    # Mirrors: both edges carry 1 I_u, each with mirror · 1 G_u. Density over damping, less what e^−12 of the start is.
    wanted = level * (g + 2 * mirror) / g
    # the splitting's gh·coth(gh) is 1 + 3.3e-3 at gh = 0.1; σ of the variance of n normal numbers is sqrt(2/n), 4 of it
    assert v.var() / wanted == pytest.approx(1 + 3.3e-3, abs=4 * np.sqrt(2 / PATHS))
    assert v.mean() == pytest.approx(1 / g, abs=4 * np.sqrt(wanted / PATHS))


def test_an_edge_that_is_off_has_no_noise_and_one_between_nodes_moves_both_apart() -> None:
    ends, start = (np.array([1]), np.array([2])), np.tile([0.0, -1.0, 1.0], (100, 1))
    off = eq6_edges(np.array([[1.0]]), np.array([[0.0]]))
    v = evolve_noisy(ends, off, start, 1.0, WhiteNoise(1e-2, 1.0), np.random.default_rng(1), steps=10)
    assert np.array_equal(v, start.T.astype(np.float32))
    on = evolve_noisy(ends, off, -start, 1.0, WhiteNoise(1e-4), np.random.default_rng(1), steps=10, dtype=np.float64)
    # what enters one node leaves the other: charge is kept to rounding, while each node is off its path by the noise
    assert np.abs(on[1] + on[2]).max() < 1e-12 and on[1].std() > 1e-3
    assert not on[0].any()


def test_without_noise_it_is_the_engine_to_the_bit() -> None:
    network = load_network(network_path("digits_mos"))
    (phase,) = network.phases
    cells = cell_edges(phase.edges)[0]
    x0 = network.initial_state(np.random.default_rng(3).uniform(0, 1, (5, network.inputs.size)))
    model = EdgeModel((1.0,), (0.95,), (0.01, 0.0, 0.0), rounding=0.05, compression=0.01, leakage=1e-3, lag=5e-9)
    theta1 = cells.theta1[cells.cell]
    built = model.edges(theta1, cells.theta2[cells.cell], np.ones(len(cells)), 300e-9)
    edges = BuiltEdges(built.theta1[None], built.theta2[None], built.ratio[None], built.common_mode, built.rounding,
                       built.compression, built.leakage, built.conductance, built.lag)  # fmt: skip
    ends = (cells.source, cells.target)
    plain = evolve_dies(ends, edges, x0, phase.duration, steps=15)[0]
    noisy = evolve_noisy(ends, edges, x0, phase.duration, WhiteNoise(0.0), np.random.default_rng(0), steps=15)
    assert plain.tobytes() == noisy.tobytes()


def test_draws_are_common_to_all_levels_and_the_same_seed_gives_the_same_bytes() -> None:
    start = np.tile([0.0, 1.0], (50, 1))

    def deviation(level: float) -> NDArray[np.float64]:
        rng = np.random.default_rng(9)
        return evolve_noisy(RC, _rc(1.0), start, 1.0, WhiteNoise(level), rng, steps=20, dtype=np.float64)[1] - 1

    assert deviation(1e-4).tobytes() == deviation(1e-4).tobytes()
    # far from the corner the equation is linear, so that the same draws scale with the root of the level
    np.testing.assert_allclose(deviation(4e-4), 2 * deviation(1e-4), rtol=1e-9, atol=1e-14)


def test_counts_are_those_of_the_draw_and_fall_with_the_noise() -> None:
    network = load_network(network_path("digits_mos"))
    cells = network_cells(network)
    dies = Dies(cells, (EdgeModel((1.0,), (1.0,), (0.0, 0.0, 0.0)),), np.ones(cells.theta1.size), None, 0, 300e-9)
    x0 = network.initial_state(np.random.default_rng(3).uniform(0, 1, (60, network.inputs.size)))
    v = dies.evolve(dies.nominal(0), x0, 60, 1)[0]
    y = v[network.readout].argmax(axis=0)
    shared = Shared(PvtStudy(network="digits_mos", pdk="generic180"), dies, (), resolve(), x0, y, y)
    assert count_right(dies, shared, 60, None) == 60

    def right(sigma: float, draw: int) -> int:
        return count_right(dies, shared, 60, (sigma, WhiteNoise(2 * sigma**2, 1.0), draw))

    assert right(1e-6, 0) >= 59  # at most one of 60 margins is near 1e-6 of a range of about 1
    assert right(0.3, 0) == right(0.3, 0) < 55
    assert len({right(0.3, draw) for draw in range(4)}) > 1


def test_the_smallest_c_is_the_last_before_the_first_that_falls_short() -> None:
    points = [(3e-12, 0.95), (1e-12, 0.945), (1e-13, 0.944), (1e-14, 0.95)]
    assert smallest_c(points, 0.95) == 1e-12  # half a point is within; what lies below a miss does not count
    assert smallest_c(points, 0.96) is None
    with pytest.raises(ValidationError, match="capacitances"):
        Noise(capacitances=())


def test_the_smallest_c_is_withheld_where_the_engine_is_not_believed() -> None:
    for kept, wanted in ((True, {"noise": 1e-12}), (False, None)):
        record: dict[str, Any] = {"summary": {}, "limits": [{"kept": True}], "noise": {"smallest": {"noise": 1e-12}}}
        record |= {"check": None, "check_mos": None, "chain": {"worst": {"check": {"kept": kept}}}}
        withhold(record)
        assert record["noise"]["smallest"] == wanted and record["limits"] == [{"kept": kept}]


def test_a_study_reports_noise_and_repeats_to_the_byte(tmp_path: Path) -> None:
    # one node discharged by one edge, decided against a second: C must be tiny for noise to be seen
    network = make_network([(1, 2, 1.0, -1.0, 0.25, 1.0, RELU)], 3, 1.0, examples=[[1.0, -0.5]])
    save_network(network, tmp_path / "net.kcnet")
    x = np.array([[1.0, -0.5], [0.5, -1.0], [-1.0, 1.0]] * 20)
    np.savez(tmp_path / "data.npz", x=x, y=np.array([0, 0, 1] * 20))
    file = tmp_path / "study.yaml"
    file.write_text(
        f"network: {tmp_path / 'net.kcnet'}\ndata: {tmp_path / 'data.npz'}\npdk: generic180\ndies: 1\nmismatch: null\n"
        "t_unit: 1u\nnoise: {capacitances: [1e-18, 10p], draws: 3}\n"
    )
    one, two = (api.study_pvt(file, tmp_path / f"run{n}", at_nominal=True, workers=n)["noise"] for n in (1, 2))
    assert one == two
    large, small = one["rows"]
    assert (large["c"], small["c"]) == (10e-12, 1e-18)
    assert large["noise"] == {**large["noise"], "value": one["reference"]["value"], "trials": 180}
    assert small["noise"]["right"] < 180 and large["above_pins"] and not small["above_pins"]
    # T_u = C·V_u/I_u = 10 pF · 0.2 V / 2 µA, and energy is current · supply · T
    assert large["t_s"] == pytest.approx(1e-6)
    assert large["energy_j"] == pytest.approx(one["supply_current_a"] * 3.3 * 1e-6)
    assert "Noise against C" in (tmp_path / "run1/report.html").read_text()


def test_the_noise_of_an_edge_in_verilog_a_has_the_variance_of_kt_over_c(tmp_path: Path) -> None:
    """40 nodes, each drained by an edge that conducts 1 µS and fed 1 I_u by another, 1 pF (τ = 1 µs), for 100 τ."""
    nodes, points, mirror, excess = 40, 2000, 1.5, 2.0
    rows = [(k, 0, 1.0, -1.0, 0.0, 1.0, RELU) for k in range(1, nodes + 1)]
    rows += [(0, k, 0.0, 0.0, 1.0, 1.0, RELU) for k in range(1, nodes + 1)]
    network = make_network(rows, nodes + 1, 100.0, examples=[[1.0] * nodes])
    scaling = resolve(c=1e-12, v_unit=0.2, i_unit=0.2e-6, v_cm=1.0)
    assert scaling.t_unit == pytest.approx(1e-6)
    cells = network_cells(network)
    ends = cells.ends
    edges, ones = eq6_edges(cells.theta1[None], cells.theta2[None]), np.ones(2 * nodes)
    model = EdgeModel((1.0,), (1.0,), (0.0, 0.0, 0.0))
    die = CalibratedDie(network, ends, edges, ones, model, None, np.zeros((3, 2 * nodes)), -1, 27.0)
    drawn = DrawnNoise(np.random.default_rng(8).standard_normal((points + 1, 2 * nodes)), excess, mirror)
    settings = SolverSettings(1e-3, points, 2)
    text, window = render_die(die, scaling, settings, np.array([0.0] + [1.0] * nodes), "die", drawn)
    for module in ("kc_cal_relu", "kc_cal_noise"):
        shutil.copyfile(compile_file(resource_dir("veriloga") / f"{module}.va"), tmp_path / f"{module}.osdi")
    (tmp_path / "die.sp").write_text(text)
    NGSPICE.run(tmp_path / "die.sp", tmp_path / "log.txt", 60.0)
    waves = read_transient(tmp_path / "die.raw", window.nets, window.t_end)
    grid = np.linspace(5e-6, 100e-6, points)  # from 5 τ of no noise at all
    v = np.stack([np.interp(grid, waves.time, of) for of in waves.values.T]) - 1.2
    # Both edges carry 1 I_u, and have mirror · 1 G_u of it; the one that conducts has 1 G_u more.
    wanted = excess * Boltzmann * 300.15 / 1e-12 * (1 + 2 * mirror)
    # numbers a twentieth of τ apart: the share that straight lines between them leave, as below
    spline = BSpline.basis_element([-2, -1, 0, 1, 2])
    share = quad(lambda t: float(spline(t)) * np.exp(-abs(t) / 20), -2, 2, points=[-1, 0, 1])[0]
    assert (v**2).mean() / wanted == pytest.approx(share, abs=4 * share * np.sqrt(2 / (nodes * 95)))
    # what enters one node leaves the other, times ratio; here the other is the rail, and no two nodes have a source
    correlation = np.corrcoef(v)[~np.eye(nodes, dtype=bool)]
    assert np.abs(correlation).max() < 5 / np.sqrt(95 / 2)  # σ of a correlation of paths of n τ is sqrt(1/n)


def test_an_interval_of_a_ratio_covers_the_truth_and_of_one_sample_there_is_none() -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(400):
        of_engine = rng.uniform(0.5, 2, 20)
        # mean squares of 10 outputs whose true variance is 1.44 times the engine's
        found = spread_ratio(1.44 * of_engine * rng.chisquare(10, 20) / 10, of_engine)
        assert found is not None
        covered += found[1] <= 1.2 <= found[2]
    assert covered / 400 == pytest.approx(0.95, abs=0.04)  # 4σ of 400 trials
    assert spread_ratio(np.array([1.0]), np.array([1.0])) is None
    assert spread_ratio(np.array([1.0, 2.0]), np.zeros(2)) is None


def test_spot_checks_in_ngspice_are_rows_and_agree_with_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node discharged by one edge, and one that only kT/C moves: seeded, so that what is found is what it was."""
    network = make_network([(1, 2, 1.0, -1.0, 0.25, 1.0, RELU)], 3, 1.0, examples=[[1.0, -0.5]])
    save_network(network, tmp_path / "net.kcnet")
    x = np.random.default_rng(1).uniform(-1, 1, (30, 2))
    np.savez(tmp_path / "data.npz", x=x, y=np.zeros(30, dtype=int))
    file = tmp_path / "study.yaml"
    file.write_text(
        f"network: {tmp_path / 'net.kcnet'}\ndata: {tmp_path / 'data.npz'}\npdk: generic180\ndies: 1\nmismatch: null\n"
        "t_unit: 1u\nnoise: {capacitances: [1f], draws: 1, spot_checks: 8}\n"
    )
    spot = api.study_pvt(file, tmp_path / "run", at_nominal=True)["noise"]["spot"]
    assert (spot["runs"], spot["failed"], spot["samples"], spot["c"]) == (16, 0, 8, 1e-15)
    # 8 differences of two correlated outputs: σ of σ is at most sqrt(1/(2·8)) = 25 %, 3 of it
    assert spot["kept"] and spot["ratio"] == pytest.approx(1, abs=0.75)
    assert spot["interval"][0] < spot["ratio"] < spot["interval"][1]
    table = (tmp_path / "run/runs.csv").read_text()
    assert table.count("transient noise, C 1 fF") == 16
    assert "Spot checks in ngspice" in (tmp_path / "run/report.html").read_text()
    with open_store(tmp_path / "run/study.sqlite") as store:
        ends = [store.result(row["key"]).v_end for row in store.planned() if row["variant"] == "spot"]
    assert len({v.tobytes() for v in ends if v is not None}) == 16
    # the same seed plans the same decks: nothing is left to run
    left: list[int] = []
    monkeypatch.setattr("kcnet_eda.study.pvt.site.run_campaign", lambda *of: left.append(len(of[3])))
    assert api.study_pvt(file, tmp_path / "run", at_nominal=True)["noise"]["spot"] == spot
    assert left == [0]


def test_transient_noise_in_ngspice_has_the_same_variance(tmp_path: Path) -> None:
    """40 independent RC, g = 1 µS and 1 pF (τ = 1 µs), each with its own source, 200 τ; other numbers each time, since
    no seed reaches trnoise."""
    nodes, g, c, step, gamma = 40, 1e-6, 1e-12, 1e-7, 2.0
    kt = Boltzmann * 300.15
    # numbers of rms NA, one every NT, are at low frequency a one-sided density of 2·NA²·NT
    rms = np.sqrt(4 * kt * gamma * g / (2 * step))
    body = [
        f"C{i} n{i} 0 {c}\nG{i} n{i} 0 n{i} 0 {g}\nI{i} 0 n{i} dc 0 trnoise({rms} {step} 0 0)" for i in range(nodes)
    ]
    data = tmp_path / "v.txt"
    names = " ".join(f"v(n{i})" for i in range(nodes))
    control = f"set wr_singlescale\nset numdgt=9\ntran 50n 200u 0 20n uic\nlinearize\nwrdata {data} {names}\nquit"
    (tmp_path / "rc.cir").write_text("\n".join(["noise", *body, ".control", control, ".endc", ".end"]) + "\n")
    NGSPICE.run(tmp_path / "rc.cir", tmp_path / "log.txt", 60.0)
    v = np.loadtxt(data)[:, 1:]
    v = v[v.shape[0] * 3 // 100 :]  # 6 τ from no noise at all
    # ngspice draws straight lines between the numbers. Their correlation is the cubic B-spline over the step, which
    # the exponential one of the RC weighs: 0.955 of the white source's γ·kT/C.
    spline = BSpline.basis_element([-2, -1, 0, 1, 2])
    share = quad(lambda t: float(spline(t)) * np.exp(-abs(t) * step * g / c), -2, 2, points=[-1, 0, 1])[0]
    # The variance of an Ornstein-Uhlenbeck path of n τ, about a known mean, has σ = sqrt(2/n) of it.
    n = nodes * 194
    assert (v**2).mean() / (gamma * kt / c) == pytest.approx(share, abs=4 * share * np.sqrt(2 / n))
