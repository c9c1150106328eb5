"""How the yield hangs on each edge: what is gained if its devices have four times the area, so half the σ.

A yield is a count of steps, so it is smoothed twice. With m a sample's margin, the label's output over the largest of
the others, a die's accuracy is the mean of logistic(m / ``margin``), and the yield the mean over the dies of
logistic((accuracy − what a die must reach) / ``accuracy``). Two answers, on the same dies and samples:

- of all edges, the gradient: with θ + σ·z for θ1, θ2 and ratio, −½·∂(yield)/∂(ln σ), from one run back
  through the engine;
- of those with the largest gradient, the difference: all dies run again with this edge's z halved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import spearmanr

from kcnet_eda.dynamics.die_gradient import edge_gradients
from kcnet_eda.network.graph import Network
from kcnet_eda.study.pvt.dies import Dies, right_labels
from kcnet_eda.study.pvt.yield_settings import Sensitivity

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class SoftYield:
    """The smoothed yield of dies that must reach the accuracy ``limit``; scales of the two logistics."""

    limit: float
    margin: float
    accuracy: float

    def of(self, outputs: Floats, y: Labels) -> Floats:
        """Of each die, from ``outputs`` [dies, outputs, samples] and labels ``y`` [samples]; a sample that is not
        finite is wrong."""
        margin = _margins(outputs, y)[0]
        right = expit(np.where(np.isfinite(margin), margin, -np.inf) / self.margin).mean(axis=1)
        return np.asarray(expit((right - self.limit) / self.accuracy))

    def pull(self, outputs: Floats, y: Labels) -> Floats:
        """The gradient of :meth:`of` a die with respect to its ``outputs`` [outputs, samples]."""
        margin, other = _margins(outputs[None], y)
        right = expit(margin[0] / self.margin)
        good = expit((right.mean() - self.limit) / self.accuracy)
        of = good * (1 - good) / self.accuracy * right * (1 - right) / self.margin / y.size
        found, at = np.zeros_like(outputs), np.arange(y.size)
        found[y, at] += of
        found[other[0], at] -= of
        return found


def _margins(outputs: Floats, y: Labels) -> tuple[Floats, Labels]:
    """Margins [dies, samples], and which output is the largest of those that are not the label's."""
    at = np.arange(y.size)
    others = outputs.copy()
    others[:, y, at] = -np.inf
    return outputs[:, y, at] - others.max(axis=1), others.argmax(axis=1)


def yield_gradient(
    dies: Dies, condition: int, which: range, x0: Floats, y: Labels, soft: SoftYield, steps: int, threads: int
) -> tuple[Floats, int]:
    """To first order, what the smoothed yield gains if an edge's σ is halved, [E]; and how many dies have no gradient,
    since a sample of theirs is not finite: these gain nothing."""
    network = dies.cells.network
    edges, without = dies.edges(condition, which), dies.edges(condition, which, 0.0)

    def pull(die: int, v: Floats) -> Floats:
        of_end = np.zeros_like(v)
        of_end[network.readout] = soft.pull(v[network.readout], y)
        return of_end

    duration = network.phases[0].duration
    found = edge_gradients(dies.cells.ends, edges, x0, duration, pull, steps=steps, threads=threads)
    off = np.stack([getattr(edges, p) - getattr(without, p) for p in ("theta1", "theta2", "ratio")], axis=1)
    gain = -0.5 * (found * off).sum(axis=1)  # [dies, E]
    lost = ~np.isfinite(gain).all(axis=1)
    return np.where(lost[:, None], 0.0, gain).mean(axis=0), int(lost.sum())


def of_dies(
    dies: Dies,
    condition: int,
    which: range,
    scale: float | Floats,
    x0: Floats,
    y: Labels,
    soft: SoftYield,
    steps: int,
    threads: int,
) -> Floats:
    """Smoothed yield and accuracy of each die, [2, dies], with the σ of edges multiplied by ``scale``."""
    outputs, finite = dies.outputs(dies.edges(condition, which, scale), x0, steps, threads)
    return np.stack([soft.of(outputs, y), right_labels(outputs, finite, y).mean(axis=1)])


def halved(edges: int, edge: int) -> Floats:
    """What multiplies the σ of ``edges`` where that of one of them is halved."""
    scale = np.ones(edges)
    scale[edge] = 0.5
    return scale


def sensitivity_record(
    dies: Dies,
    which: range,
    settings: Sensitivity,
    limit: float,
    gain: Floats,
    lost: int,
    drawn: Floats,
    again: Sequence[Floats],
) -> dict[str, Any]:
    """The ranked list, plain JSON values: ``edges`` has first those run again, by their difference, then the rest by
    their gradient. Of a difference, ``error`` is the standard error of its mean over the dies.

    ``gain`` and ``lost`` are of :func:`yield_gradient`; ``drawn`` is :func:`of_dies` of the dies as drawn, and
    ``again`` of the first edges by ``gain``, the σ of each halved.
    """
    good, accuracy = drawn
    order = by_gradient(gain)
    rows = [_edge(dies, int(e), float(gain[e])) for e in order]
    for row, (new, accurate) in zip(rows, again, strict=False):
        change = new - good
        row |= {
            "difference": float(change.mean()),
            "error": float(change.std(ddof=1) / np.sqrt(change.size)),
            "accuracy_change": float((accurate - accuracy).mean()),
            "yield_change": float((accurate >= limit).mean() - (accuracy >= limit).mean()),
        }
    rank = None
    n = len(again)
    if n > 2:
        value = float(spearmanr(gain[order[:n]], [row["difference"] for row in rows[:n]]).statistic)
        rank = value if np.isfinite(value) else None
    rows[:n] = sorted(rows[:n], key=lambda row: -row["difference"])
    return {
        **settings.model_dump(mode="json"),
        "first_die": which.start,
        "die_accuracy": limit,
        "mean_accuracy": float(accuracy.mean()),
        "yield": float((accuracy >= limit).mean()),
        "smoothed_yield": float(good.mean()),
        "run_again": n,
        "rank_correlation": rank,
        "without_gradient": lost,
        "by_gradient": order.tolist(),
        "edges": rows,
    }


def by_gradient(gain: Floats) -> NDArray[np.int64]:
    """The edges, those first whose σ the yield gains most by halving."""
    return np.argsort(-gain, kind="stable")


def _edge(dies: Dies, e: int, gain: float) -> dict[str, Any]:
    network: Network = dies.cells.network
    names = network.node_names or tuple(f"n{i}" for i in range(network.max_nodes))
    source, target = (int(end[e]) for end in dies.cells.ends)
    return {
        "edge": e,
        "source": names[source],
        "target": names[target],
        "theta1": float(dies.cells.theta1[e]),
        "theta2": float(dies.cells.theta2[e]),
        "units": float(dies.units[e]),
        "gradient": gain,
        **dict.fromkeys(("difference", "error", "accuracy_change", "yield_change")),
    }
