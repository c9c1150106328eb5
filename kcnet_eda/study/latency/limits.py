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
    """What ``of`` names holds down to ``t_s`` [s], None where that was shown at no T tried; ``missed_s`` is the slowest
    T at which it was found missed, None where that was nowhere. Where runs failed nothing is found, there or at any
    faster T. ``exact``: it lies at ``t_s``, and not anywhere between that and ``missed_s``."""

    of: str
    t_s: float | None
    missed_s: float | None
    exact: bool = False

    @property
    def surely_above_s(self) -> float:
        """The T below which it is known not to hold; 0 where nothing is known."""
        known = self.t_s if self.exact else self.missed_s
        return 0.0 if known is None else known


def fastest_kept(of: str, points: Sequence[tuple[float, bool | None]]) -> Limit:
    """The least T of (T, whether it is kept, None where that is not known) before the first miss from the slow side:
    what is right again at a faster T is luck."""
    found = None
    for t, kept in sorted(points, key=lambda point: point[0], reverse=True):
        if not kept:
            return Limit(of, found, None if kept is None else t)
        found = t
    return Limit(of, found, None)


def crossing(of: str, points: Sequence[tuple[float, float | None]], most: float) -> Limit:
    """Where the value of (T, value), from the slow side, first passes ``most``: between the two points around it on a
    line in logarithms of both. Nothing is known from a T on that has no value."""
    before: tuple[float, float] | None = None
    for t, value in sorted(points, key=lambda point: point[0], reverse=True):
        if value is None:
            return Limit(of, None if before is None else before[0], None)
        if value > most:
            if before is None:
                return Limit(of, None, t)
            last = max(before[1], sys.float_info.min)
            share = math.log(most / last) / math.log(value / last)
            return Limit(of, before[0] * (t / before[0]) ** share, t, exact=True)
        before = t, value
    return Limit(of, None if before is None else before[0], None)


def in_order(limits: Sequence[Limit]) -> list[Limit]:
    """The limits by the T that they hold down to, the longest in front; before all one that was shown nowhere."""
    return sorted(limits, key=lambda limit: -math.inf if limit.t_s is None else -limit.t_s)


def binds(limits: Sequence[Limit]) -> bool:
    """Whether the first of ``limits`` in their order surely ends the speed: the others hold where it is missed."""
    first, *others = limits
    return first.surely_above_s > 0 and all(o.t_s is not None and o.t_s <= first.surely_above_s for o in others)


def over_next(limit: Limit, after: Limit) -> tuple[float | None, bool]:
    """How many times the T of the limit ``after`` the T of ``limit`` is, and whether it may be more, since it is not
    known how far down the other holds; None where it is not known where ``limit`` lies."""
    if not limit.exact or limit.t_s is None or after.t_s is None:
        return None, False
    return limit.t_s / after.t_s, not after.exact


def refuted(limits: Sequence[Limit], by_c: Sequence[str]) -> bool | None:
    """Whether something else than ``by_c``, the limits that C itself sets, surely ends the speed before one of these
    does; False where all else holds down to them, None where neither is known."""
    own = [limit for limit in limits if limit.of in by_c and limit.t_s is not None]
    fastest = max((limit.t_s for limit in own if limit.t_s is not None), default=0.0)
    others = [limit for limit in limits if limit.of not in by_c]
    if any(limit.surely_above_s > fastest for limit in others):
        return True
    return False if own and all(o.t_s is not None and o.t_s <= fastest for o in others) else None
