"""What is done about the yield of the digits network: larger edges, calibration of each die, training with mismatch.

    python benchmarks/yield_digits.py [--pdk generic180] [--dies 500] [--top 250] [--epochs 200] [--workers 1]

At the kit's nominal condition and at ff, −10 % of supply, 125 °C, with the kit's own mismatch: every edge's
sensitivity, by the gradient and by running all dies again with half its σ; the edges of the largest gradient with four
times the area; each die calibrated; and the network trained on for ``--epochs`` with the kit's mismatch, and, for
comparison, as long without any. Before and after on the same dies and the test digits. The training needs torch.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from kcnet_eda import api
from kcnet_eda.dynamics.train_settings import TrainSettings
from kcnet_eda.dynamics.training import fit
from kcnet_eda.network.data import digits
from kcnet_eda.network.graph import Network
from kcnet_eda.network.store import load_network, network_path, save_network
from kcnet_eda.physical.mismatch import UnitSpread
from kcnet_eda.physical.pdk import load_pdk
from kcnet_eda.progress import NoProgress
from kcnet_eda.study.pvt.conditions import grid, measured, nominal
from kcnet_eda.study.pvt.dies import Dies, network_cells, right_labels
from kcnet_eda.study.pvt.remedies import effect
from kcnet_eda.study.pvt.settings import PvtStudy

STUDY = """
network: digits_mos
pdk: {pdk}
corners: [ff]
supplies: ["-10%"]
temperatures: [125]
limits: {{die_accuracy: 0.93}}
dies: {dies}
sensitivity: {{dies: 200, samples: 100, top: {top}}}
calibration: {{samples: 100, trims: 20, bits: 5}}
"""
LARGER = (5, 20, 50)  # edges of the largest gradient that get four times the area


def text(found: dict[str, Any]) -> str:
    """An effect in a line."""
    a, y = found["accuracy"], found["yield"]
    change = "" if not found["error"] else f", change {100 * found['change']:+.2f} ± {100 * found['error']:.2f}"
    return (
        f"accuracy {100 * a['value']:.2f} % ({100 * a['wilson95'][0]:.2f} to {100 * a['wilson95'][1]:.2f}){change}; "
        f"worst die {100 * found['die_min']:.2f} %; yield {100 * y['value']:.1f} % ({100 * y['wilson95'][0]:.1f} to "
        f"{100 * y['wilson95'][1]:.1f}), {found['repaired']} repaired, {found['spoilt']} spoilt"
    )


def trained_on(spread: UnitSpread | None, epochs: int) -> Network:
    """The shipped network, trained on with the mismatch ``spread``, None: without."""
    shipped = yaml.safe_load(Path("examples/digits_mos.yaml").read_text())
    same = {key: shipped[key] for key in ("weight_decay", "gradient_clip", "logit_gain", "voltage_limit", "steps")}
    cell: dict[str, Any] = {"dies": 1, "sigma_theta1": 0, "sigma_theta2": 0, "sigma_gain": 0}
    if spread is not None:
        cell = {
            "dies": 128,
            "units": {},
            "sigma_theta1": spread.sigma_gain,
            "sigma_theta2": spread.sigma_offset,
            "sigma_gain": spread.sigma_ratio,
            "bias_theta1": spread.bias_gain,
            "bias_theta2": spread.bias_offset,
        }
    settings = TrainSettings.model_validate(
        {
            **same,
            "name": "digits_mos_on",
            "seed": 0,
            "start": "digits_mos",
            "epochs": epochs,
            "learning_rate": 0.03,
            "augmentation": shipped["augmentation"],
            "cell": cell,
        }
    )
    return fit(settings, digits("train"), NoProgress())[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pdk", default="generic180")
    parser.add_argument("--dies", type=int, default=500)
    parser.add_argument("--top", type=int, default=250)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    out = Path(tempfile.mkdtemp())
    file = out / "study.yaml"
    file.write_text(STUDY.format(pdk=given.pdk, dies=given.dies, top=given.top))
    begun = time.monotonic()
    record = api.study_pvt(file, out / "run", workers=given.workers)
    s = record["sensitivity"]
    print(f"{given.pdk}: study {time.monotonic() - begun:.0f} s with {given.workers} threads, report {out / 'run'}")
    print(
        f"sensitivity at {s['condition']}, dies from {s['first_die']}, {s['dies']} x {s['samples']}: yield "
        f"{s['yield']:.3f}, smoothed {s['smoothed_yield']:.4f}, {s['without_gradient']} dies without gradient; rank "
        f"correlation of gradient and difference of {s['run_again']} edges: {s['rank_correlation']:.3f}"
    )
    again = [row["edge"] for row in s["edges"][: s["run_again"]]]
    print(f"first 20 by both: {len(set(again[:20]) & set(s['by_gradient'][:20]))}")
    for row in s["edges"][:10]:
        gained = f"{100 * row['gradient']:.3f}, run again {100 * row['difference']:.3f} ± {100 * row['error']:.3f}"
        print(f"  {row['source']} -> {row['target']}, {row['units']:.0f} units: {gained} points of smoothed yield")
    c = record["calibration"]
    numbers = f"{c['runs_of_a_die']} runs and {c['numbers_of_a_die']} numbers a die, {c['not_finite']} not finite"
    print(f"calibration: {c['samples']} samples, {len(c['edges'])} DACs of {c['bits']} bits, {numbers}")
    for row in c["rows"]:
        print(f"  {row['condition']}, {row['what']}, calibrated at {row['calibrated_at']}: {text(row)}")

    kit, study = load_pdk(given.pdk), PvtStudy.model_validate(yaml.safe_load(file.read_text()))
    places = [nominal(kit), *grid(study, kit)]
    cells = measured(study, kit, places, NoProgress())
    test = digits("test")
    y = test.y
    if y is None:
        raise SystemExit(f"{test.name} has no labels")

    def right(network: Network, at: int, larger: list[int]) -> tuple[np.ndarray, float]:
        of = network_cells(network)
        dies = Dies(of, cells.models, of.units(cells.rig.design), cells.spread, study.seed, study.t_unit)
        scale = np.ones(dies.units.size)
        scale[larger] = 0.5
        edges = dies.edges(at, range(study.dies), scale)
        outputs, finite = dies.outputs(edges, network.initial_state(test.x), study.steps, given.workers)
        return right_labels(outputs, finite, y).sum(axis=1), float((dies.units / scale**2).sum())

    networks = {"as shipped": load_network(network_path("digits_mos"))}
    for name, spread in (("trained on without mismatch", None), ("trained on with the kit's mismatch", cells.spread)):
        started = time.monotonic()
        networks[name] = replace(trained_on(spread, given.epochs), record={})
        save_network(networks[name], out / f"{name.split()[2]}.kcnet")
        print(f"{name}: {time.monotonic() - started:.0f} s")
    for at, place in enumerate(places):
        base, area = right(networks["as shipped"], at, [])
        for name, network in networks.items():
            found, units = right(network, at, [])
            line = text(effect(found, base, len(test), study.limits.die_accuracy))
            print(f"{place.name}, {name}, area {units / area:.2f}: {line}")
        for n in LARGER:
            found, units = right(networks["as shipped"], at, s["by_gradient"][:n])
            line = text(effect(found, base, len(test), study.limits.die_accuracy))
            print(f"{place.name}, {n} edges of four times the area, area {units / area:.2f}: {line}")


if __name__ == "__main__":
    main()
