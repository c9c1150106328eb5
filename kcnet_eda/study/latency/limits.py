"""Which of a process's limits ends the speed first: pure functions of what was measured from slow to fast.

Five things bound T from below. The cells lag, so that nodes leave the trained law's waveforms; at some point labels
change; below some T a node's cells alone have more capacitance than T_u·I_u/V_u, so that the trained network cannot be
drawn any more; the noise of a small C takes nodes off their waveforms; and it costs accuracy. They need not come in
this order, so each is found by itself.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Limit:
    """What ``of`` names holds down to ``t_s`` [s], None where the slowest T tried misses it; ``missed_s`` is the
    slowest T at which it was found missed, None where it was missed nowhere, so that the limit lies below ``t_s``.
    ``exact``: it lies at ``t_s``, and not anywhere between that and ``missed_s``."""

    of: str
    t_s: float | None
    missed_s: float | None
    exact: bool = False


def fastest_kept(of: str, points: Sequence[tuple[float, bool]]) -> Limit:
    """The least T of (T, whether it is kept) before the first miss from the slow side: what is right again at a faster
    T is luck."""
    found = None
    for t, kept in sorted(points, reverse=True):
        if not kept:
            return Limit(of, found, t)
        found = t
    return Limit(of, found, None)


def crossing(of: str, points: Sequence[tuple[float, float]], most: float) -> Limit:
    """Where the value of (T, value), from the slow side, first passes ``most``: between the two points around it on a
    line in logarithms of both; where the value is infinite there, somewhere between them."""
    before: tuple[float, float] | None = None
    for t, value in sorted(points, reverse=True):
        if value > most:
            if before is None:
                return Limit(of, None, t)
            last = max(before[1], sys.float_info.min)
            if math.isinf(value):
                return Limit(of, before[0], t)
            share = math.log(most / last) / math.log(value / last)
            return Limit(of, before[0] * (t / before[0]) ** share, t, exact=True)
        before = t, value
    return Limit(of, None if before is None else before[0], None)


def in_order(limits: Sequence[Limit]) -> list[Limit]:
    """The limits, the one that binds first (the longest T) in front; one that the slowest T misses binds before all."""
    return sorted(limits, key=lambda limit: -math.inf if limit.t_s is None else -limit.t_s)


def over_next(limit: Limit, after: Limit) -> tuple[float | None, bool]:
    """How many times the T of the limit ``after`` the T of ``limit`` is, and whether it may be more, since it is not
    known how far down the other holds; None where it is not known where ``limit`` lies."""
    if not limit.exact or limit.t_s is None or after.t_s is None:
        return None, False
    return limit.t_s / after.t_s, not after.exact
