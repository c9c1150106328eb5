"""What the time of reading does to the answer: pure functions of read-out waveforms that reach beyond T.

A reading is lost where it is right at T and its label is no longer that of T at the time of reading, or was not that
on the way from there to T: from the first change of the lead on, away from T, a reading does not count as kept. So
what is lost never falls when readings move farther from T, and a label that is right again by luck is not counted.
Times beyond what was simulated count as lost: nobody has looked there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.study.accuracy import decision_time, decision_times

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Bools = NDArray[np.bool_]

_BISECTIONS = 60


@dataclass(frozen=True, eq=False)
class Reading:
    """One sample's outputs: ``time`` [points] in seconds from 0 to beyond ``t_read``, ``volts`` [points, outputs]."""

    time: Floats
    volts: Floats
    t_read: float

    def at(self, t: float) -> Floats:
        """The outputs at ``t``, linear between points."""
        return np.array([np.interp(t, self.time, column) for column in self.volts.T])

    @property
    def label(self) -> int:
        """The label at T."""
        return int(np.argmax(self.at(self.t_read)))

    def labels(self, times: Floats) -> Labels:
        """The labels at ``times``."""
        return np.array([int(np.argmax(self.at(t))) for t in times.tolist()])

    @property
    def decided(self) -> float:
        """The earliest time from which the lead does not change any more until T."""
        return decision_time(*self._part(self.time < self.t_read, end=True))

    @property
    def leaves(self) -> float:
        """The first time after T at which the lead changes; the end of the waveform where it does not."""
        time, volts = self._part(self.time > self.t_read, end=False)
        return -decision_time(-time[::-1], volts[::-1])

    def _part(self, rows: Bools, end: bool) -> tuple[Floats, Floats]:
        at_t = self.at(self.t_read)[None]
        time, volts = self.time[rows], self.volts[rows]
        if end:
            return np.append(time, self.t_read), np.concatenate([volts, at_t])
        return np.append(self.t_read, time), np.concatenate([at_t, volts])

    @property
    def margin(self) -> float:
        """The lead over the second output at T [V]."""
        top = np.sort(self.at(self.t_read))
        return float(top[-1] - top[-2])

    @property
    def slope(self) -> float:
        """How fast the lead of the first over the second output at T grows [V/s], over the last step before T."""
        second, first = np.argsort(self.at(self.t_read))[-2:]
        before = float(self.time[self.time < self.t_read * (1 - 1e-9)][-1])
        earlier = self.at(before)
        return float((self.margin - (earlier[first] - earlier[second])) / (self.t_read - before))


def room(time: Floats, volts: NDArray[np.floating[Any]], at: int) -> tuple[Floats, Floats]:
    """How far before and after T = ``time[at]`` each label of T stands ([samples] each; ``time``'s unit), of outputs
    ``volts`` [points, outputs, samples]: T less :attr:`Reading.decided`, and :attr:`Reading.leaves` less T."""
    early = time[at] - decision_times(time[: at + 1], volts[: at + 1])
    return early, -decision_times(-time[at:][::-1], volts[at:][::-1]) - time[at]


def right_at(readings: Sequence[Reading], y: Labels, times: Floats) -> NDArray[np.int64]:
    """How many of the readings have the label ``y`` [n] at each of ``times``."""
    hits = np.zeros(times.size, dtype=np.int64)
    for reading, label in zip(readings, y.tolist(), strict=True):
        hits += reading.labels(times) == label
    return hits


def tolerated_shift(room: Floats, right: Bools, n: int, loss: float) -> float:
    """The largest shift of T off which at most ``loss`` percentage points of ``n`` are lost. ``room`` [samples] is how
    far each label stands in that direction [s], ``right`` whether it is right at T. inf where no loss is too large."""
    allowed = int(np.floor(loss / 100 * n + 1e-9))
    held = np.sort(room[right])
    return float(held[allowed]) if allowed < held.size else float("inf")


def lost_to_jitter(early: Floats, late: Floats, right: Bools, n: int, sigma: float, z: Floats) -> float:
    """The share of ``n`` that is lost where each reading is off by ``sigma`` times ``z`` [draws, samples], mean over
    the draws. It never falls with ``sigma``: ``z`` are the same."""
    shift = sigma * z
    lost = ((shift < -early) | (shift > late)) & right
    return float(lost.sum() / (n * len(z)))


def tolerated_jitter(early: Floats, late: Floats, right: Bools, n: int, loss: float, z: Floats, most: float) -> float:
    """The largest standard deviation, up to ``most`` [s], with at most ``loss`` percentage points of ``n`` lost."""
    if lost_to_jitter(early, late, right, n, most, z) <= loss / 100:
        return most
    low, high = 0.0, most
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        if lost_to_jitter(early, late, right, n, middle, z) <= loss / 100:
            low = middle
        else:
            high = middle
    return low
