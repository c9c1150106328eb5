"""A campaign: many runs on a farm of workers, each given by a small description, each recorded as it ends.

The coordinator alone decides what is due and writes the store; workers get a description, make what they need of it,
and return a result. What was recorded is done for good: killing coordinator or workers at any moment costs what was
under way, and nothing else.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from kcnet_eda import __version__
from kcnet_eda.errors import KcnetError
from kcnet_eda.progress import Advance
from kcnet_eda.study.campaign.farm import Farm
from kcnet_eda.study.store import Result, Status

_POLL_S = 2.0
_PATIENCE_S = 300.0  # without a worker, at a scheduler that somebody else fills; a queue may take days
_LEAST_UNDER_WAY, _UNDER_WAY_A_THREAD = 8, 3  # enough that no worker waits for the coordinator
_NOTE_S = 5.0


#: A function of a module: makes a result from what all runs share, the description of one, and an empty folder of the
#: worker that vanishes afterwards.
Work = Callable[[Any, Any, Path], Result]


class Tally:
    """Counts what ended and tells of it: how many failed, the rate, the time left."""

    def __init__(self, advance: Advance, due: int) -> None:
        self._advance, self._due = advance, due
        self._ended, self._failed = 0, 0
        self._started = self._told = time.monotonic()

    def __call__(self, result: Result) -> None:
        """Count ``result``."""
        self._ended += 1
        self._failed += result.status is not Status.PASSED
        now, note = time.monotonic(), ""
        if now - self._told > _NOTE_S:
            self._told = now
            rate = self._ended / (now - self._started)
            left = (self._due - self._ended) / rate
            note = f"{rate:.3g} a second, {self._failed} failed, about {left:.0f} s left"
        self._advance(1, note)


def run_campaign(
    farm: Farm, work: Work, shared: Any, items: Mapping[str, Any], done: Callable[[str, Result], None]
) -> None:
    """Run ``work`` on every one of ``items`` (descriptions by key); ``done(key, result)`` is called here as each ends.

    A run whose worker dies is given to another, three times at most (the scheduler's ``allowed-failures``); then, and
    where ``work`` raises, its result is a failure that says so. Where ``shared`` is lost with a worker, the scheduler
    gives it again.

    Raises
    ------
    KcnetError
        The scheduler is lost, or has had no worker for long. What was recorded is kept.
    """
    if not items:
        return
    from distributed import CancelledError, TimeoutError, wait
    from distributed.comm import CommClosedError

    with farm.client() as client:
        held = client.submit(_keep, shared, pure=False)
        due, under_way, seen = iter(items.items()), dict[Any, str](), time.monotonic()
        while True:
            try:
                threads = sum(client.nthreads().values())
                room = max(_LEAST_UNDER_WAY, _UNDER_WAY_A_THREAD * threads) - len(under_way)
                for key, item in islice(due, max(0, room)):
                    under_way[client.submit(_on_worker, work, held, item, key, __version__, pure=False)] = key
                if not under_way:
                    return
                if threads:
                    seen = time.monotonic()
                elif farm.scheduler is not None and time.monotonic() - seen > _PATIENCE_S:
                    raise KcnetError(
                        f"--scheduler {farm.scheduler}: no worker has been there for {_PATIENCE_S:g} s. What was "
                        "finished is kept; start workers and run the same command again."
                    )
                ended = wait(list(under_way), timeout=_POLL_S, return_when="FIRST_COMPLETED").done
            except TimeoutError:
                continue
            except (CancelledError, CommClosedError, OSError) as error:
                raise KcnetError(
                    f"the dask scheduler is lost ({type(error).__name__}). What was finished is kept; run the same "
                    "command again."
                ) from error
            for future in ended:
                done(under_way.pop(future), _ending(future))


def _keep(shared: Any) -> Any:
    """What all runs share, as a task: the scheduler can have it made again wherever it was lost."""
    return shared


def _on_worker(work: Work, shared: Any, item: Any, key: str, version: str) -> Result:
    """One run, on a worker. Its folder is the worker's own: no other host, and no ghost of a killed worker, writes to
    it. The folder's name tells which run is under way."""
    from distributed import get_worker

    if version != __version__:
        raise KcnetError(f"this worker has kcnet_eda {__version__}, the campaign was planned by {version}")
    with tempfile.TemporaryDirectory(prefix=f"kcnet-{key[:16]}-", dir=get_worker().local_directory) as scratch:
        return work(shared, item, Path(scratch))


def _ending(future: Any) -> Result:
    """How a task ended."""
    from distributed import KilledWorker

    if future.status == "finished":
        result: Result = future.result()
        return result
    error = future.exception()
    if isinstance(error, KilledWorker):
        return Result(Status.TOOL_FAILED, f"the worker died on it, {error.allowed_failures + 1} times over")
    return Result(Status.TOOL_FAILED, f"the worker could not run it: {type(error).__name__}: {error}")
