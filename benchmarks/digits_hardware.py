"""Digits networks made for hardware: what edges, voltage range, mismatch and the edges' law do to the accuracy.

    python benchmarks/digits_hardware.py [--dies 100] [--only GROUP] [--line WORD] [--json OUT.json]

Each line is a training of examples/digits.yaml with what is named changed, seen once on the 450 test images: nominal,
and on dies whose θ1 and θ2 are off by 5 and by 10 % (independent, normal, drawn by seed). Nothing is chosen here.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from kcnet_eda.dynamics.engine import evolve
from kcnet_eda.dynamics.train_settings import TrainSettings
from kcnet_eda.dynamics.training import evaluate, fit
from kcnet_eda.network.data import DataSet, digits
from kcnet_eda.network.graph import Network, labels
from kcnet_eda.progress import NoProgress
from kcnet_eda.study.accuracy import wilson

DIE_SEED = 2310
SIGMAS = (0.05, 0.10)
LESS = 0.95  # accuracy that a die must have to count as good
#: Heun steps in the comparison of laws: resistors make a network stiff, and training by the usual five steps then suits
#: their error and not the network (a loss of 0.7, and labels by chance once the steps are fine).
LAW_STEPS = 20
PRUNED = {"begin": 0.4, "end": 0.75, "score": "sensitivity"}


def kept(edges: int = 1200, **changes: Any) -> dict[str, Any]:
    """Changes to the shipped settings: pruned to ``edges``, and others."""
    return {"pruning": {**PRUNED, "edges": edges}, **changes}


RUNS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "edges": [(f"{n} edges", kept(n)) for n in (300, 600, 1200, 2400)],
    "range": [(f"1200 edges, voltage_limit {limit:g}", kept(voltage_limit=limit)) for limit in (0.6, 0.9, 1.2)],
    "limit": [(f"1200 edges, theta_limit {limit:g}", kept(theta_limit=limit)) for limit in (0.3, 0.6)],
    "noise": [(f"1200 edges, theta_noise {noise:g}", kept(theta_noise=noise)) for noise in (0.05, 0.1)],
    "law": [
        (f"1200 edges, {word}, peak rate {rate:g}", kept(law=law, steps=LAW_STEPS, learning_rate=rate))
        for word, law, rate in (
            ("rc: resistors alone", "rc", 0.04),
            ("passive: Eq. (6), θ1 >= 0", "passive", 0.04),
            ("eq6: Eq. (6)", "eq6", 0.04),
            ("tanh", "tanh", 0.04),
            ("tanh", "tanh", 0.003),
        )
    ],
}


def on_dies(network: Network, test: DataSet, sigma: float, dies: int) -> np.ndarray:
    """Test accuracy of each die [dies]; a die's draw is its own, the same for every network of as many edges."""
    x0, found = network.initial_state(test.x), []
    for seed in np.random.SeedSequence(DIE_SEED).spawn(dies):
        rng, phases = np.random.default_rng(seed), []
        for phase in network.phases:
            e = phase.edges
            a, c = (p * (1 + sigma * rng.standard_normal(len(e))) for p in (e.a, e.c))
            phases.append(replace(phase, edges=replace(e, a=a, b=-a, c=c)))
        die = replace(network, phases=tuple(phases))
        found.append(float((labels(die, evolve(die, x0).v_end) == test.y).mean()))
    return np.array(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dies", type=int, default=100)
    parser.add_argument("--only", choices=RUNS, help="a group of lines")
    parser.add_argument("--line", default="", help="lines whose name has this word")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    content = yaml.safe_load(Path("examples/digits.yaml").read_text())
    train, test = digits("train"), digits("test")
    results = []
    for group, runs in RUNS.items():
        if given.only not in (None, group):
            continue
        print(f"\n| {group} | test accuracy (450 images) | largest \\|v\\| | largest \\|θ\\| |"
              + "".join(f" {100 * s:g} % off: mean, 5 % of dies below, dies >= {100 * LESS:g} % |" for s in SIGMAS)
              + " training |\n|---|---|---|---|" + "---|" * (len(SIGMAS) + 1))  # fmt: skip
        for name, change in runs:
            if given.line not in name:
                continue
            settings = TrainSettings.model_validate(content | change)
            started = time.monotonic()
            network, _ = fit(settings, train, NoProgress())
            seconds = time.monotonic() - started
            accuracy, voltage = evaluate(network, test)
            hits = round(accuracy * len(test))
            low, high = wilson(hits, len(test))
            theta = max(float(np.abs(p).max()) for phase in network.phases for p in (phase.edges.a, phase.edges.c))
            line = f"| {name} | {100 * accuracy:.2f} % ({hits}; {100 * low:.1f}–{100 * high:.1f} %) |"
            line += f" {voltage:.2f} | {theta:.2f} |"
            row = {"group": group, "name": name, "edges": network.n_edges, "accuracy": accuracy, "voltage": voltage}
            for sigma in SIGMAS:
                found = on_dies(network, test, sigma, given.dies)
                good = int((found >= LESS).sum())
                line += f" {100 * found.mean():.2f} %, {100 * np.quantile(found, 0.05):.2f} %, {good}/{found.size} |"
                row[f"dies {sigma:g}"] = found.tolist()
            print(line + f" {seconds:.0f} s |", flush=True)
            results.append(row)
    if given.json:
        given.json.write_text(json.dumps(results) + "\n")


if __name__ == "__main__":
    main()
