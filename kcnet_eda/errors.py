"""The exceptions a user can meet. Each message says what was wrong, where, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence

_MOST_SHOWN = 25  # problems in a message; all of them are in the exception


class KcnetError(Exception):
    """Base of every error that is the user's to mend; the command line prints it and exits with 1."""


class InvalidInputError(KcnetError):
    """A file or an argument is wrong. Carries every problem found, not only the first."""

    def __init__(self, where: str, problems: Sequence[str], remedy: str = "") -> None:
        self.where = where
        self.problems = tuple(problems)
        head = f"{where}: {problems[0]}" if len(problems) == 1 else f"{where}: {len(problems)} problems"
        lines = [head]
        if len(problems) > 1:
            lines += [f"  - {p}" for p in problems[:_MOST_SHOWN]]
            if len(problems) > _MOST_SHOWN:
                lines.append(f"  - and {len(problems) - _MOST_SHOWN} more")
        if remedy:
            lines.append(f"  {remedy}")
        super().__init__("\n".join(lines))


class ToolMissingError(KcnetError):
    """An outside program is not there, or cannot do what is needed of it."""


class ToolFailedError(KcnetError):
    """An outside program ran and did not deliver; the message names its log."""


class NotConvergedError(ToolFailedError):
    """A simulator gave up on a run."""


class BadDataError(KcnetError):
    """A result file is incomplete, not finite, or not what was asked for."""


class RunTimeoutError(KcnetError):
    """An outside program ran past its time limit and was killed."""
