"""How the shipped digits network's settings were chosen: 5-fold cross-validation within the training images.

    python benchmarks/digits_choice.py [--folds 5] [--dies 8] [--compression C] [CONFIG.yaml ...] [key=value ...]

Prints, for each settings file (examples/digits.yaml if none), the held-out accuracy over the folds, the edges, the
largest voltage on held-out images and the training time; for settings with a cell, also the held-out accuracy on
``--dies`` random dies a fold (``kcnet_eda.dynamics.cell_dies.TYPICAL``), and with ``--compression`` also on the same
dies with cells that saturate by so much a unit. ``key=value`` overrides a setting of all of
them, as in ``pruning.edges=2800``. The test images are never read.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml
from sklearn.model_selection import StratifiedKFold

from kcnet_eda.dynamics.cell import Units
from kcnet_eda.dynamics.cell_dies import TYPICAL, Departures, solve_die
from kcnet_eda.dynamics.train_settings import TrainSettings
from kcnet_eda.dynamics.training import evaluate, fit
from kcnet_eda.network.data import DataSet, digits
from kcnet_eda.network.graph import Network, labels
from kcnet_eda.progress import NoProgress
from kcnet_eda.study.accuracy import wilson


def die_accuracies(network: Network, data: DataSet, departures: Departures, seed: int, dies: int) -> list[float]:
    """The accuracy of each die."""
    found = []
    for die in np.random.SeedSequence(seed).spawn(dies):
        v_end, _ = solve_die(network, data.x, departures, np.random.default_rng(die))
        found.append(float((labels(network, v_end) == data.y).mean()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--folds", type=int, default=5, help="of the five, how many to run")
    parser.add_argument("--dies", type=int, default=8)
    parser.add_argument("--compression", type=float, default=0.0, help="of a cell of one unit, of a second set of dies")
    arguments = parser.parse_intermixed_args()
    files = [Path(w) for w in arguments.words if "=" not in w] or [Path("examples/digits.yaml")]
    kinds = {"dies": TYPICAL}
    if arguments.compression:
        unit = Units().slope_per_unit, Units().offset_per_unit
        kinds["dies that saturate"] = replace(TYPICAL, compression=arguments.compression, unit=unit)
    data = digits("train")
    folds = list(StratifiedKFold(5, shuffle=True, random_state=1).split(data.x, data.y))[: arguments.folds]
    for file in files:
        content = yaml.safe_load(file.read_text())
        for override in (w for w in arguments.words if "=" in w):
            path, _, value = override.partition("=")
            *parents, key = path.split(".")
            section = content
            for parent in parents:
                section = section.setdefault(parent, {})
            section[key] = yaml.safe_load(value)
        hits, largest, edges, started = [], [], 0, time.monotonic()
        on_dies: dict[str, list[float]] = {name: [] for name in kinds}
        for fold, (kept, held) in enumerate(folds):
            settings = TrainSettings.model_validate(content | {"seed": fold})
            network, _ = fit(settings, data.rows(kept, f"fold {fold}"), NoProgress())
            unseen = data.rows(held, f"fold {fold}, held out")
            accuracy, voltage = evaluate(network, unseen)
            if settings.cell is not None:
                for name, departures in kinds.items():
                    on_dies[name] += die_accuracies(network, unseen, departures, fold, arguments.dies)
            hits.append(round(accuracy * len(held)))
            largest.append(voltage)
            edges = network.n_edges
        n = sum(len(held) for _, held in folds)
        low, high = wilson(sum(hits), n)
        built = "".join(
            f"{len(found)} {name} {100 * np.mean(found):.2f} %, worst {100 * min(found):.2f} %, "
            for name, found in on_dies.items()
            if found
        )
        print(
            f"{file} {' '.join(w for w in arguments.words if '=' in w)}: {edges} edges, {100 * sum(hits) / n:.2f} % "
            f"({sum(hits)}/{n}, 95 %: {100 * low:.2f} to {100 * high:.2f} %), largest |v| {np.max(largest):.2f}, "
            f"{built}{(time.monotonic() - started) / len(folds):.0f} s a fold",
            flush=True,
        )


if __name__ == "__main__":
    main()
