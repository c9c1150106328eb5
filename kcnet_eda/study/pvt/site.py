"""Where the runs of a study over conditions and dies happen: its store and folder, and the farm that works for it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.errors import ToolFailedError
from kcnet_eda.files import write_atomic
from kcnet_eda.progress import Progress
from kcnet_eda.study.campaign.failures import DIGITS, FOLDER
from kcnet_eda.study.campaign.farm import Farm
from kcnet_eda.study.campaign.run import Tally, Work, run_campaign
from kcnet_eda.study.store import Result, Status, Store


@dataclass(frozen=True, eq=False)
class Site:
    """The run folder ``out``, its ``store``, and the ``farm``. Items are keyed as in the store; those that are done are
    not run again."""

    out: Path
    store: Store
    farm: Farm
    progress: Progress

    def in_engine(
        self,
        items: Mapping[str, Any],
        shared: Any,
        work: Work,
        here: Callable[[Iterable[Any]], Iterable[Result]],
        what: str,
    ) -> None:
        """Run items of the engine: by ``work`` on a farm, on this machine by ``here``.

        That is in threads of this process: the engine's compiled loops run beside each other there, share the samples,
        and start at once, where a worker process would first load and compile them. The numbers are the same.

        Raises
        ------
        ToolFailedError
            A farm's worker did not bring an item back: no count is made without it.
        """
        due = self._due(items)
        with self.progress.stage(what, len(items)) as advance:
            advance(len(items) - len(due))
            tally = Tally(advance, len(due))

            def done(key: str, result: Result) -> None:
                self.store.finish(key, result)
                tally(result)

            if self.farm.local:
                for key, result in zip(due, here(due.values()), strict=True):
                    done(key, result)
                return
            run_campaign(self.farm, work, shared, due, done)
        failed = [result for result in map(self.store.result, due) if result.status is not Status.PASSED]
        if failed:
            raise ToolFailedError(f"{what}: {len(failed)} of {len(items)} failed; the first: {failed[0].message}")

    def in_ngspice(self, items: Mapping[str, Any], work: Work, shared: Any, what: str) -> None:
        """Run items in ngspice; decks and logs of what fails are left in the folder."""
        due = self._due(items)
        with self.progress.stage(what, len(items)) as advance:
            advance(len(items) - len(due))
            tally = Tally(advance, len(due))

            def done(key: str, result: Result) -> None:
                folder = self.out / FOLDER / key[:DIGITS]
                shutil.rmtree(folder, ignore_errors=True)
                for name, content in result.files.items():
                    write_atomic(folder / name, content)
                self.store.finish(key, result)
                tally(result)

            run_campaign(self.farm, work, shared, due, done)

    def numbers(self, key: str) -> NDArray[np.float64]:
        """What the engine found, of an item that is done."""
        numbers = self.store.result(key).v_end
        assert numbers is not None
        return numbers

    def _due(self, items: Mapping[str, Any]) -> dict[str, Any]:
        """Those to run: one that failed before, or whose numbers are lost, is tried again."""
        results = {key: self.store.result(key) for key in items}
        return {
            key: item
            for key, item in items.items()
            if results[key].status is not Status.PASSED or results[key].v_end is None
        }
