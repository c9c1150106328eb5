"""The numbers of a latency record against the rows of the store that they name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs_of_cells import make_cells, make_latency, published
from scipy.integrate import trapezoid

from kcnet_eda.dynamics.reference import trajectory
from kcnet_eda.network.store import load_network
from kcnet_eda.report.write import write_report
from kcnet_eda.study.latency.inference import MEASURED as OF_INFERENCE
from kcnet_eda.study.latency.size import MEASURED as OF_SIZE
from kcnet_eda.study.store import open_store

Number = tuple[str, float, Callable[[], float]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A latency study with every section."""
    root = tmp_path_factory.mktemp("latency")
    return make_latency(root, *make_cells(root))


def numbers_of(run: Path, store: Any) -> list[Number]:
    """Every kind of number of the record: its name, its value, and how it is had from the store, network and data."""
    sections = json.loads((run / "report.json").read_text())["sections"]
    network = load_network(run / "network.kcnet")
    with np.load(run.with_name("data.npz")) as archive:
        x, y = archive["x"], archive["y"]
    x0 = network.initial_state(x)
    truth = trajectory(network, x0[0], [0.0, network.duration])[-1]

    def v(key: str) -> np.ndarray:
        return np.asarray(store.result(key).v_end)

    found: list[Number] = []
    scaling = sections["scaling"]
    first = {row["simulator"]: row["keys"][0] for row in reversed(scaling["rows"])}
    for row in scaling["rows"]:
        key, start = row["keys"][0], first[row["simulator"]]
        span = scaling["range_v"]
        off = lambda a=key, b=start, s=span: float(np.abs(v(a) - v(b)).max() / s)  # noqa: E731
        found.append(("scaling.from_first", row["from_first"], off))
        away = lambda a=key, s=span: float(np.abs(v(a) - truth).max() / s)  # noqa: E731
        found.append(("scaling.from_reference", row["from_reference"], away))
        found.append(("scaling.label", row["labels"][0], lambda a=key: int(v(a)[network.readout].argmax())))
    for row in sections["size"]["rows"]:
        for i, name in enumerate(OF_SIZE):
            found.append((f"size.{name}", row[name], lambda a=row["key"], i=i: v(a)[i]))
        found.append(("size.wall_s", row["wall_s"], lambda a=row["key"]: store.result(a).wall_s))
    x_decision = sections["decision"]
    t_read = x_decision["t_read_s"]

    def volts(i: int, t: float) -> np.ndarray:
        """Outputs of sample i at t, in ngspice; before its first point they are where they were written."""
        time, waves = store.result(x_decision["keys"][i]).waveform
        time, waves = np.append(0.0, time), np.concatenate([x0[i : i + 1, network.readout], waves])
        return np.array([np.interp(t, time, wave) for wave in waves.T])

    for point in x_decision["early_exit"]:
        right = lambda t=point["t_s"]: sum(int(volts(i, t).argmax()) == y[i] for i in range(len(y))) / len(y)  # noqa: E731
        found.append(("decision.early_exit", point["accuracy"]["value"], right))
    for i, row in enumerate(x_decision["samples"]):
        lead = lambda i=i: float(np.diff(np.sort(volts(i, t_read))[-2:])[0])  # noqa: E731
        found.append(("decision.margin", row["margin_v"], lead))
    for row in sections["inference"]["samples"]:
        for i, name in enumerate(OF_INFERENCE):
            found.append((f"inference.{name}", row[name], lambda a=row["key"], i=i: v(a)[i]))
    physical = sections["physical"]
    counted = [*sections["inference"]["noise"], *sections["inference"]["write_errors"]]
    counted += [row["engine"] for row in physical["noise"]]
    counted = [(row["accuracy"], row["key"]) for row in counted]
    counted += [(kit["noise_free"], kit["noise_free"]["key"]) for kit in physical["kits"]]
    for accuracy, key in counted:
        found.append(("noise.count", accuracy["count"], lambda a=key: v(a)[0]))
        found.append(("noise.n", accuracy["n"], lambda a=key: v(a)[1]))
    tau = np.linspace(0, network.duration, 101)  # the instants at which waveforms are compared
    nodes = len(x0[0]) - 1  # without ground; what is kept after them is the supply's current
    for row in [*physical["points"], *physical["supply"], *physical["noise"]]:

        def errors(row: Any = row) -> list[float]:
            largest = []
            for i, key in enumerate(row["keys"]):
                time, kept = store.result(key).waveform
                at = np.stack([np.interp(tau * row["t_unit"], time, wave) for wave in kept[:, :nodes].T], axis=1)
                largest.append(float(np.abs(at - trajectory(network, x0[i], tau)[:, 1:]).max()))
            return largest

        found.append(("physical.error_median", row["error_median"], lambda of=errors: float(np.median(of()))))
        found.append(("physical.error_max", row["error_max"], lambda of=errors: max(of())))
        right = lambda row=row: sum(  # noqa: E731
            int(v(key)[network.readout].argmax()) == label for key, label in zip(row["keys"], y, strict=False)
        )
        found.append(("physical.accuracy", row["accuracy"]["count"], right))
    for row in [*physical["points"], *physical["supply"]]:

        def charge(row: Any = row) -> float:
            waves = [store.result(key).waveform for key in row["keys"]]
            return float(np.mean([trapezoid(kept[:, -1], time) for time, kept in waves]))

        found.append(("physical.energy", row["energy_j"], lambda of=charge, row=row: row["supply_v"] * of()))
        found.append(("physical.current", row["current_mean_a"], lambda of=charge, row=row: of() / row["t_total_s"]))
    return found


@pytest.mark.parametrize("seed", [2310, 15872, 7])
def test_numbers_drawn_at_random_are_in_the_store(run: Path, seed: int) -> None:
    """Ten of all, and one more of each kind that they missed."""
    with open_store(run / "study.sqlite") as store:
        told = numbers_of(run, store)
        drawn = [told[i] for i in np.random.default_rng(seed).permutation(len(told))]
        rest = {number[0]: number for number in drawn[10:]}
        missed = rest.keys() - {name for name, *_ in drawn[:10]}
        for name, value, again in [*drawn[:10], *(rest[name] for name in missed)]:
            # Two solutions of the same equations at 1e-10 of their values; all else is the same sums in another order.
            close = pytest.approx(again(), rel=1e-9, abs=1e-9 if "error" in name or "from" in name else 0)
            assert value == close, name


def test_the_record_is_what_the_published_schema_says_and_so_is_its_markdown(run: Path, tmp_path: Path) -> None:
    validator = published("latency")
    record = json.loads((run / "report.json").read_text())
    validator.validate(record)
    for section, rows in (("size", "rows"), ("physical", "noise"), ("physical", "limits"), ("decision", "samples")):
        for broken in (lambda row: row.pop(next(iter(row))), lambda row: row.update(more=1)):
            other = json.loads(json.dumps(record))
            broken(other["sections"][section][rows][0])
            assert not validator.is_valid(other)
    write_report(run, tmp_path / "page.html")
    text = (tmp_path / "page.md").read_text()
    for point in record["sections"]["physical"]["points"]:
        assert f"{point['error_median']:.4g} | {point['error_rms']:.4g}" in text
    assert all(f"## {section}" in text for section in record["sections"])
    assert all(v["claim"] in text for v in record["summary"]["verdicts"])
