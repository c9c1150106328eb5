"""What long work reports as it goes; the command line shows it, a library user may ignore it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Advance(Protocol):
    """Advances a bar by a count, with a ``note`` on what has been reached."""

    def __call__(self, n: int, note: str = "") -> None: ...


class Progress(Protocol):
    """A display: ``stage(name, total)`` opens a bar and gives what advances it."""

    def stage(self, name: str, total: int) -> AbstractContextManager[Advance]: ...


class NoProgress:
    """Shows nothing."""

    def stage(self, name: str, total: int) -> AbstractContextManager[Advance]:
        """A stage that nobody sees."""
        return nullcontext(lambda n, note="": None)
