"""What long work reports as it goes; the command line shows it, a library user may ignore it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Progress(Protocol):
    """A display: ``stage(name, total)`` opens a bar and gives the function that advances it by a count."""

    def stage(self, name: str, total: int) -> AbstractContextManager[Callable[[int], None]]: ...


class NoProgress:
    """Shows nothing."""

    def stage(self, name: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """A stage that nobody sees."""
        return nullcontext(lambda n: None)
