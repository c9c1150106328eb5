"""What circuits of a network are held against: the trained waveforms in software, its labels and the right ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.dynamics.reference import trajectory
from kcnet_eda.network.data import DataSet
from kcnet_eda.network.graph import Network, labels
from kcnet_eda.study.accuracy import proportion
from kcnet_eda.study.latency.bench import Floats, Row
from kcnet_eda.study.latency.settings import Physical
from kcnet_eda.study.store import Result
from kcnet_eda.study.waveform import at_instants

_GRID = 101  # instants of a run at which waveforms are compared
_HAIR = 1e-12  # accuracies are counts over counts


@dataclass(frozen=True, eq=False)
class Subject:
    """Samples from ``x0`` [n, nodes], the trained waveforms ``ideal`` [n, instants, nodes] at ``tau``, the ``software``
    labels and the right ones, ``y`` [n]."""

    section: Physical
    network: Network
    x0: Floats
    tau: Floats
    ideal: Floats
    software: NDArray[np.int64]
    y: NDArray[np.int64]

    @property
    def software_right(self) -> int:
        """How many of its labels are the right ones."""
        return int((self.software == self.y).sum())

    def head(self, count: int) -> Subject:
        """Its first ``count`` samples; all where there are fewer."""
        x0, ideal = self.x0[:count], self.ideal[:count]
        return replace(self, x0=x0, ideal=ideal, software=self.software[:count], y=self.y[:count])

    def judge(self, results: Sequence[Result], t_unit: float) -> Row:
        """Numbers over the samples' runs, each with a waveform in seconds of the nodes without ground, and columns
        after them that are not looked at. A run that failed is neither right nor in agreement."""
        n, nodes = len(results), self.x0.shape[1] - 1
        largest, rms = [], []
        label = np.full(n, -1)
        for i, result in enumerate(results):
            if result.waveform is None or result.v_end is None:
                continue
            label[i] = labels(self.network, result.v_end[None])[0]
            seconds, kept = result.waveform
            off = at_instants(self.tau * t_unit, seconds, kept[:, :nodes]) - self.ideal[i][:, 1:]
            largest.append(float(np.abs(off).max()))
            rms.append(float(np.sqrt(np.mean(off**2))))
        return {
            "n": n,
            "passed": len(largest),
            "labels": label.tolist(),
            "accuracy": proportion(int((label == self.y).sum()), n),
            "agreement": proportion(int((label == self.software).sum()), n),
            "error_max": max(largest, default=None),
            "error_median": float(np.median(largest)) if largest else None,
            "error_rms": float(np.mean(rms)) if rms else None,
            "wall_s": float(np.mean([r.wall_s for r in results])),
        }

    def labels_kept(self, judged: Row) -> bool | None:
        """Whether labels agree with software, and accuracy is, as asked; None where runs failed."""
        if judged["passed"] < judged["n"]:
            return None
        lost = self.software_right / len(self.y) - judged["accuracy"]["value"]
        return bool(judged["agreement"]["value"] >= self.section.agreement and self.loss_allowed(lost))

    def loss_allowed(self, lost: float) -> bool:
        """Whether so much accuracy may be lost."""
        return bool(lost <= self.section.accuracy_loss + _HAIR)

    def error(self, judged: Row) -> float | None:
        """The largest node error of a run, median over the samples, V_u; None where runs failed."""
        return judged["error_median"] if judged["passed"] == judged["n"] else None

    def waveform_kept(self, judged: Row) -> bool | None:
        """Whether nodes are as near to the trained waveforms as asked; None where runs failed."""
        error = self.error(judged)
        return None if error is None else error <= self.section.node_error


def subject_of(section: Physical, network: Network, data: DataSet, count: int) -> Subject:
    """The first ``count`` samples of ``data``; right is the software's label where the data have none."""
    some = data.head(min(count, len(data)))
    x0 = network.initial_state(some.x)
    tau = np.linspace(0, network.duration, _GRID)
    ideal = np.stack([trajectory(network, x, tau) for x in x0])
    software = labels(network, ideal[:, -1])
    return Subject(section, network, x0, tau, ideal, software, software if some.y is None else some.y)
