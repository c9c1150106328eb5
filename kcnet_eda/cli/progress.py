"""Progress bars on a terminal; where there is none, a line at the start and end of each stage."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from kcnet_eda.progress import Advance


class RichProgress:
    """A progress display, see :class:`kcnet_eda.progress.Progress`; used as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> RichProgress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Advance]:
        """Open a bar of ``total``; yields what advances it. A note stands beside the bar, or has a line of its own."""
        started = time.monotonic()
        task = self._bars.add_task(name, total=total)
        if not self._console.is_terminal:
            self._console.print(f"{name}: {total} to do", soft_wrap=True)

        def advance(n: int, note: str = "") -> None:
            self._bars.update(task, advance=n, description=f"{name}: {note}" if note else None)
            if note and not self._console.is_terminal:
                self._console.print(f"{name}: {self._bars.tasks[task].completed:g} of {total}, {note}", soft_wrap=True)

        yield advance
        if not self._console.is_terminal:
            self._console.print(f"{name}: {total} done in {time.monotonic() - started:.1f} s", soft_wrap=True)
