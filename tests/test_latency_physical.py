"""The physical section of a latency study: what transistors of a process, and noise, make of its time."""

from __future__ import annotations

import math
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_network
from hypothesis import given, settings
from hypothesis import strategies as st
from runs_of_cells import published

from kcnet_eda import api
from kcnet_eda.errors import InvalidInputError, RunTimeoutError
from kcnet_eda.network.laws import RELU
from kcnet_eda.network.store import save_network
from kcnet_eda.study.latency import noise
from kcnet_eda.study.latency import physical as latency_physical
from kcnet_eda.study.latency.limits import Limit, binds, fastest_kept, in_order, over_next, refuted
from kcnet_eda.study.latency.limits import crossing as where_crossed
from kcnet_eda.study.latency.record import kit_names
from kcnet_eda.study.store import Result, Status, open_store

# The limits


def test_what_is_faster_than_a_miss_is_luck() -> None:
    assert fastest_kept("labels", [(1.0, True), (4.0, True), (2.0, False), (3.0, True)]) == Limit("labels", 3.0, 2.0)
    assert fastest_kept("labels", [(4.0, False), (3.0, True)]) == Limit("labels", None, 4.0)
    assert fastest_kept("labels", [(4.0, True), (3.0, True)]) == Limit("labels", 3.0, None)


@settings(max_examples=50, deadline=None)
@given(st.floats(1e-3, 1.0), st.floats(0.3, 3.0), st.floats(0.02, 0.9))
def test_a_cell_of_twice_the_lag_crosses_at_twice_the_time(lag: float, power: float, most: float) -> None:
    times = [2.0**-k for k in range(-20, 21)]

    def knee(tau: float) -> float:
        found = where_crossed("waveform", [(t, (tau / t) ** power) for t in times], most).t_s
        assert found is not None
        return found

    # An error of (lag/t)^power is a line in logarithms, so between its points too the crossing is exact.
    assert knee(lag) == pytest.approx(lag / most ** (1 / power))
    assert knee(2 * lag) == pytest.approx(2 * knee(lag))


def test_the_slowest_limit_binds_and_one_that_is_always_missed_before_all() -> None:
    pins, labels = Limit("pins", 2.0, 2.0), Limit("labels", 0.5, 0.3)
    assert where_crossed("waveform", [(3.0, 0.5)], 0.1) == Limit("waveform", None, 3.0)
    assert where_crossed("waveform", [(3.0, 0.05), (1.0, 0.08)], 0.1) == Limit("waveform", 1.0, None)
    # Where runs failed there is no error, and nothing is known from there on.
    assert where_crossed("waveform", [(3.0, 0.05), (1.0, None), (0.5, 9.0)], 0.1) == Limit("waveform", 3.0, None)
    assert fastest_kept("labels", [(3.0, True), (1.0, None), (0.5, False)]) == Limit("labels", 3.0, None)
    assert [limit.of for limit in in_order([labels, pins])] == ["pins", "labels"]
    assert in_order([labels, pins, Limit("waveform", None, 3.0)])[0].of == "waveform"


def test_what_ends_the_speed_is_told_only_where_the_others_surely_hold_there() -> None:
    crossed, pins = Limit("waveform", 8.0, 3.0, exact=True), Limit("pins", 4.0, 4.0, exact=True)
    assert binds([crossed, pins]) and binds([crossed, Limit("labels", 8.0, None), pins])
    # Labels were lost somewhere from 9 down to 1: before the waveform or after it.
    assert not binds([Limit("labels", 9.0, 1.0), crossed, pins])
    assert binds([Limit("labels", 20.0, 9.0), crossed, pins]) and not binds([Limit("noise", None, None), crossed])
    # C ends it with its pins or its noise; all else is the process's.
    assert refuted([crossed, pins], ["pins"]) and refuted([Limit("labels", 9.0, 1.0), crossed, pins], ["pins"])
    assert refuted([pins, Limit("waveform", 4.0, None)], ["pins"]) is False
    assert refuted([Limit("labels", 9.0, 1.0), pins], ["pins"]) is None
    assert refuted([Limit("labels", None, None), pins], ["pins"]) is None
    assert refuted([Limit("labels", None, 9.0), pins], ["pins"]) is True


def test_how_far_the_next_limit_is_is_told_only_where_it_is_known() -> None:
    crossed, tried = Limit("waveform", 8.0, 3.0, exact=True), Limit("labels", 2.0, 1.0)
    pins = Limit("pins", 4.0, 4.0, exact=True)
    assert over_next(crossed, pins) == (2.0, False)
    assert over_next(crossed, tried) == (4.0, True)  # labels may hold down to just above 1.0
    assert over_next(tried, pins) == (None, False)
    assert over_next(Limit("waveform", None, 8.0), pins) == over_next(pins, Limit("noise", None, 8.0)) == (None, False)


# The circuits


@pytest.fixture
def ring(tmp_path: Path) -> str:
    """The head of a study file, and of its physical section: a ring of three cells, six samples."""
    rows = [(1, 2, 1.0, -1.0, 0.0, 1.0, RELU), (2, 3, 0.8, -0.8, 0.5, 1.0, RELU), (3, 1, 1.2, -1.2, 0.2, 1.0, RELU)]
    save_network(make_network(rows, 4, examples=[[1.0, 0.2, -0.5]]), tmp_path / "ring.kcnet")
    x = np.array([[1.0, 0.0, 0.2], [0.1, 0.9, 0.3], [0.2, 0.1, 1.0], [0.9, 0.3, 0.5], [0.0, 0.2, 0.9], [0.3, 0.8, 0.1]])
    np.savez(tmp_path / "data.npz", x=x, y=x.argmax(axis=1))
    return f"network: {tmp_path / 'ring.kcnet'}, data: {tmp_path / 'data.npz'}"


def study(ring: str, tmp_path: Path, *blocks: str) -> Path:
    """A study file with a block of a kit each, of which ``blocks`` is what comes after network and data."""
    text = "".join(f"- {{{ring}, {block}}}\n" for block in blocks)
    file = tmp_path / "study.yaml"
    file.write_text(ring.replace(", ", "\n") + f"\nphysical:\n{text}")
    return file


def test_transistors_are_off_by_more_when_they_have_to_be_faster(ring: str, tmp_path: Path) -> None:
    more = "samples: 1, t_units: [300n, 20n, 0.1n], drops: [0.02, 0.2], noise_draws: 2, noise_samples: 1"
    record = api.study_latency(study(ring, tmp_path, more), tmp_path / "run", jobs=1)
    x = record["sections"]["physical"]
    slow, fast, pinned = x["points"]
    assert not record["failed"] and (slow["nodes_pinned"], fast["nodes_pinned"], pinned["nodes_pinned"]) == (0, 0, 3)
    assert pinned["error_rms"] > fast["error_rms"] > 2 * slow["error_rms"]
    assert pinned["error_median"] > fast["error_median"] > slow["error_median"]
    # A 15th of the time at the same bias: so is the energy, within what the edges' own currents change.
    assert slow["energy_j"] / fast["energy_j"] == pytest.approx(15, rel=0.05)
    assert slow["energy_j"] == pytest.approx(slow["supply_v"] * slow["current_mean_a"] * slow["t_total_s"])
    with open_store(tmp_path / "run/study.sqlite") as store:
        waveform = store.result(slow["keys"][0]).waveform
    assert waveform is not None and slow["current_peak_a"] == waveform[1][:, -1].max()
    # The limits: pins have all of C at their own C·V_u/I_u, wherever the errors and labels stand.
    limits = {limit["of"]: limit for limit in x["limits"]}
    speed = slow["v_unit"] / slow["i_unit"]
    assert limits["pins"]["t_s"] == pytest.approx(slow["pins_largest_f"] * speed)
    assert fast["t_total_s"] > limits["pins"]["t_s"] > pinned["t_total_s"]
    assert [limit["t_s"] for limit in x["limits"]] == sorted((v["t_s"] for v in limits.values()), reverse=True)
    assert x["knee"]["t_total_s"] == max(v["t_s"] for v in limits.values()) and x["knee"]["pdk"] == "generic180"
    # The supply's wiring: Ohm's law of its measured current, and more of it is further off.
    little, much = x["supply"]
    for row, share in ((little, 0.02), (much, 0.2)):
        assert row["ohms"] == pytest.approx(share * slow["supply_v"] / slow["current_mean_a"])
        assert row["drop_v"] == pytest.approx(row["ohms"] * row["current_mean_a"])
        assert row["current_mean_a"] < slow["current_mean_a"]
    assert much["error_median"] > little["error_median"]
    # σ of noise goes with 1/√C. So do the nodes' errors in ngspice, whose numbers drawn are the same at every C, as
    # long as the law is straight over them: no more than 0.025 V_u here. What is not noise, the rounding of a corner
    # over 1e-3 V_u and the simulator's own error, is less than 5 % of the smallest.
    first, *_, last = x["noise"]
    assert [row["passed"] for row in x["noise"]] == [1] * len(x["noise"])
    for one, next_ in pairwise(x["noise"][1:5]):
        assert next_["error_rms"] / one["error_rms"] == pytest.approx(math.sqrt(10), rel=0.05)
    assert last["sigma_v"] / first["sigma_v"] == pytest.approx(math.sqrt(first["c"] / last["c"]))
    of_engine = [row["engine"]["accuracy"]["value"] for row in (first, last)]
    assert x["kits"][0]["noise_free"]["value"] >= of_engine[0] > of_engine[1]


def test_cells_of_twice_the_capacitance_are_further_off_and_their_knee_is_slower(ring: str, tmp_path: Path) -> None:
    # At level 1 with kp and gamma given no current depends on the oxide, so that all capacitances of the transistors
    # can be doubled and nothing else.
    kits = {1: "generic180"}
    shipped = Path(__file__).parents[1] / "pdk_examples"
    shutil.copytree(shipped / "generic180", tmp_path / "generic180")
    library = tmp_path / "generic180/generic180.lib"
    text = library.read_text()
    once = {"tox=7n": "tox=3.5n", "cgso=0.3n": "cgso=0.6n", "cgdo=0.3n": "cgdo=0.6n", "cgbo=0.1n": "cgbo=0.2n"}
    for old, new in (once | {"cj=0.9m": "cj=1.8m", "cj=1m": "cj=2m", "cjsw=0.2n": "cjsw=0.4n"}).items():
        assert old in text
        text = text.replace(old, new)
    library.write_text(text)
    kits[2] = str(shutil.copyfile(shipped / "generic180.yaml", tmp_path / "thin.yaml"))
    points, knees = {}, {}
    for poles, kit in kits.items():
        more = f"pdk: {kit}, samples: 1, t_units: [1u, 100n, 30n], drops: [], capacitances: [], node_error: 0.025"
        x = api.study_latency(study(ring, tmp_path, more), tmp_path / f"run{poles}", jobs=1)["sections"]["physical"]
        points[poles] = x["points"]
        knees[poles] = {limit["of"]: limit["t_s"] for limit in x["limits"]}
    # Pins are transistors' alone. The cells' lead and their wells are not, so that the lag is not quite twice.
    assert points[2][0]["pins_largest_f"] == pytest.approx(2 * points[1][0]["pins_largest_f"], rel=0.01)
    assert knees[2]["pins"] == pytest.approx(2 * knees[1]["pins"], rel=0.01)
    assert points[2][0]["error_median"] == pytest.approx(points[1][0]["error_median"], rel=0.05)  # where none lags
    for fast in (1, 2):
        assert points[2][fast]["error_median"] > 1.5 * points[1][fast]["error_median"]
    assert knees[2]["waveform"] > 1.5 * knees[1]["waveform"]
    assert points[2][0]["current_mean_a"] == pytest.approx(points[1][0]["current_mean_a"], rel=0.02)


def test_a_noisy_run_that_fails_says_nothing_of_smaller_c_and_is_tried_again(
    ring: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = noise.run_die

    def fails_once(deck: Any, modules: Any, scaling: Any, *rest: Any) -> Result:
        if scaling.c > 1e-13 or fails:
            return real(deck, modules, scaling, *rest)
        fails.append(True)
        return Result(Status.TIMED_OUT, "killed")

    fails: list[bool] = []
    monkeypatch.setattr(noise, "run_die", fails_once)
    more = "samples: 1, t_units: [300n], drops: [], noise_draws: 1, noise_samples: 2, capacitances: [3p, 10f]"
    file = study(ring, tmp_path, more)
    record = api.study_latency(file, tmp_path / "run", jobs=2)
    published("latency").validate(record)
    x = record["sections"]["physical"]
    large, little = x["noise"]
    assert [(row["passed"], row["n"]) for row in x["noise"]] == [(2, 2), (1, 2)] and -1 in little["labels"]
    limits = {limit["of"]: limit for limit in x["limits"]}
    for name in ("noisy_waveform", "noise"):
        assert limits[name]["t_s"] == pytest.approx(large["t_total_s"]) and limits[name]["missed_s"] is None
    assert record["summary"]["failed_runs"] == 1 and record["failed"][0]["message"] == "killed"
    assert "1 of 2 runs failed" in (tmp_path / "run/report.html").read_text()
    record = api.study_latency(file, tmp_path / "run", jobs=2)
    x = record["sections"]["physical"]
    assert not record["failed"] and x["noise"][0] == large and x["noise"][1]["passed"] == 2
    assert all(limit["missed_s"] is None for limit in x["limits"] if "nois" in limit["of"])


def test_noise_is_tried_at_slower_speeds_too_and_without_that_of_the_edges(ring: str, tmp_path: Path) -> None:
    more = "samples: 1, t_units: [300n], drops: [], noise_draws: 1, noise_samples: 2, excess: 0, capacitances: [10a]"
    record = api.study_latency(study(ring, tmp_path, more), tmp_path / "run", jobs=1)
    x = record["sections"]["physical"]
    # A C far too small ends no speed that was tried: at the speeds' own C noise is little.
    assert [row["c"] for row in x["noise"]] == [3e-12, 1e-17] and not record["failed"]
    assert x["knee"]["t_total_s"] == x["points"][0]["t_total_s"] == pytest.approx(x["noise"][0]["t_total_s"])
    # kT/C alone is what is written off v(0): by the law's own growth it is larger or smaller, but not white.
    off = [row["error_rms"] for row in x["noise"]]
    assert off[1] > 100 * off[0]


def test_the_same_noise_moves_transistors_as_it_moves_the_law(ring: str, tmp_path: Path) -> None:
    # γ of 200, so that noise is ten times that of edges and far above the simulator's own error.
    more = "samples: 3, t_units: [300n], drops: [], noise_draws: 1, noise_samples: 3, excess: 200, capacitances: [3p]"
    x = api.study_latency(study(ring, tmp_path, more), tmp_path / "run", jobs=2)["sections"]["physical"]
    (quiet,), (noisy,), (law,) = x["points"], x["mos_noise"], x["noise"]
    instants = np.linspace(0, quiet["t_unit"], 101)
    off = []
    with open_store(tmp_path / "run/study.sqlite") as store:
        for keys in zip(quiet["keys"], noisy["keys"], strict=True):
            waves = [store.result(key).waveform for key in keys]
            at = [np.stack([np.interp(instants, time, v) for v in kept[:, :3].T]) for time, kept in waves]
            off.append(float(np.sqrt(np.mean((at[1] - at[0]) ** 2))))
    # The numbers drawn are the same. The cells follow the law within 2 % of full scale, and so does what noise adds.
    assert noisy["c"] == pytest.approx(law["c"]) and noisy["sigma_v"] == pytest.approx(law["sigma_v"])
    assert np.mean(off) == pytest.approx(law["error_rms"], rel=0.05)


def test_a_kit_of_which_no_run_passes_is_said_and_the_rest_is_reported(
    ring: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any, **__: Any) -> Any:
        raise RunTimeoutError("killed")

    monkeypatch.setattr(latency_physical, "run_in_transistors", killed)
    more = "samples: 2, t_units: [300n, 100n], drops: [0.1], capacitances: []"
    record = api.study_latency(study(ring, tmp_path, more), tmp_path / "run", jobs=1)
    x = record["sections"]["physical"]
    assert x["knee"] is None and [p["passed"] for p in x["points"]] == [0, 0] and x["supply"] == []
    assert record["summary"]["failed_runs"] == 4
    published("latency").validate(record)
    page = (tmp_path / "run/report.html").read_text()
    assert "no run passed" in page and "even at the slowest one tried a limit is missed, or runs failed" in page
    assert record["summary"]["verdicts"][3]["holds"] is None and x["kits"][0]["other_than_c"] is None
    assert "Noise was not tried" in page


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        ([("a", "n", [1.0]), ("b", "n", [1.0])], ["a", "b"]),
        ([("a", "n", [1.0]), ("a", "m", [1.0])], ["a, n", "a, m"]),
        ([("a", "n", [1.0]), ("a", "n", [2.0])], ["a, 1 I_u", "a, 2 I_u"]),
        ([("a", "n", [1.0]), ("a", "n", [1.0])], ["a, n, 1 I_u (1)", "a, n, 1 I_u (2)"]),
    ],
)
def test_blocks_are_named_by_what_tells_them_apart(rows: Any, names: list[str]) -> None:
    assert kit_names([dict(zip(("pdk", "network", "currents"), row, strict=True)) for row in rows]) == names


def test_a_list_of_blocks_is_a_kit_each_and_a_bad_one_is_named(ring: str, tmp_path: Path) -> None:
    slow = "samples: 1, t_units: [300n], drops: [], capacitances: []"
    x = api.study_latency(study(ring, tmp_path, slow, slow), tmp_path / "run", jobs=1)["sections"]["physical"]
    assert [k["pdk"] for k in x["kits"]] == ["generic180"] * 2 and [p["kit"] for p in x["points"]] == [0, 1]
    assert x["points"][0]["keys"] == x["points"][1]["keys"]
    assert not x["knee"]["bracketed"]  # nothing missed down to the one T tried
    with pytest.raises(InvalidInputError, match=r"physical\.1\.t_units"):
        api.study_latency(study(ring, tmp_path, slow, "t_units: []"), tmp_path / "bad")
