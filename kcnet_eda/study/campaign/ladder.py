"""A transient run that failed is tried again along a ladder of solver options; every attempt is told.

Each rung keeps the error asked for. What the options do is said in ngspice's manual, chapter "Simulator variables":

- Half the step (``tmax`` of ``tran``): Newton starts from the time point before, and has half as far to go.
- ``method=gear``: the trapezoidal rule does not damp what is faster than its step and may ring about it; Gear's of
  order 2 damps it. Its error is h²/3 where the trapezoidal rule's is h²/12, so at half the step it is that of
  the planned step.
- ``itl4``, the iterations at a time point (10 if not given), and Newton's tolerances: where rounding alone keeps
  iterations from settling, ten times the tolerance still is a hundredth of the error asked for.

``gmin`` is no rung: it lies across the junctions of device models, and edges have none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from kcnet_eda.export.testbench import SolverSettings
from kcnet_eda.study.store import Attempt, Result, Status

_MOST_TIMEOUTS = 2  # a second one is no accident of the machine, and further rungs take longer still
_LARGEST_FILE = 256 * 1024  # bytes of a failed attempt's file that are kept


@dataclass(frozen=True)
class Rung:
    """A set of solver options, and how they differ from those planned."""

    name: str
    settings: SolverSettings


def ladder(planned: SolverSettings) -> tuple[Rung, ...]:
    """The rungs in their order, the first as planned."""
    half = planned.halved()
    gear = replace(half, gear=True)
    patient = replace(gear.halved(), iterations=100, newton=10 * planned.newton)
    return (
        Rung("as planned", planned),
        Rung("half the step", half),
        Rung("half the step, gear", gear),
        Rung("quarter of the step, gear, itl4 100, tolerances x 10", patient),
    )


def climb(planned: SolverSettings, attempt: Callable[[SolverSettings, Path], Result], scratch: Path) -> Result:
    """Try ``attempt(settings, folder)`` along the ladder until it passes; the result of the last attempt, with all
    attempts. ``folder`` is a new one under ``scratch`` each time; where the run fails, its deck and log are taken from
    there into the result, and its path in messages is made independent of the machine."""
    attempts: list[Attempt] = []
    kept: dict[str, bytes] = {}
    for number, rung in enumerate(ladder(planned)):
        folder = scratch / f"attempt{number}"
        result = attempt(rung.settings, folder)
        message = result.message.replace(f"{scratch}/", "")
        attempts.append(Attempt(rung.name, result.status, message, result.wall_s))
        result = replace(result, message=message)
        if result.status is Status.PASSED:
            break
        for file in sorted(folder.glob("*")):
            if file.suffix in (".sp", ".inc", ".log") and file.is_file():
                kept[f"{folder.name}/{file.name}"] = file.read_bytes()[-_LARGEST_FILE:]
        if sum(one.status is Status.TIMED_OUT for one in attempts) == _MOST_TIMEOUTS:
            break
    wall = sum(one.wall_s for one in attempts)
    return replace(result, wall_s=wall, attempts=tuple(attempts), files=kept)
