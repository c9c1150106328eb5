"""Runs that failed, by kind: what each looks like in the store, how many there are, and where to look at the first.

A kind is read from the status and the message that a run ended with, so that stores of any age have it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from kcnet_eda.study.store import Status

#: The folder of a run that has the decks and logs of failed runs, each under the first digits of its key.
FOLDER = "repeat"
DIGITS = 16
#: Kinds of each status and the words that tell them, the first that fits; the last of a status has no words.
KINDS: dict[Status, tuple[tuple[str, str], ...]] = {
    Status.TIMED_OUT: (("hang", ""),),
    Status.NOT_CONVERGED: (("no convergence", ""),),
    Status.TOOL_FAILED: (
        ("worker lost", r"the worker died on it"),
        ("worker refused", r"the worker could not run it"),
        ("crash", r"it exited (?!0 )"),
        ("no result", r"wrote no result"),
        ("tool failed", ""),
    ),
    Status.BAD_DATA: (
        ("truncated", r"is cut short"),
        ("ended early", r"ends at"),
        ("not finite", r"not finite"),
        ("lies from the start", r"does not begin where"),
        ("lies at the end", r"disagree with the engine"),
        ("step too long", r"has a step of"),
        ("not as asked for", ""),
    ),
}


def kind_of(status: Status, message: str) -> str:
    """The kind of a failure."""
    kinds = KINDS.get(status, ((status.value, ""),))
    return next(kind for kind, words in kinds if re.search(words, message))


def failures(rows: Sequence[Mapping[str, Any]], levels: Mapping[str, str]) -> list[dict[str, Any]]:
    """Of the rows of the present plan (:meth:`kcnet_eda.study.store.Store.planned`) those that did not pass, by level
    and kind, in the order of their first: how many, the first one's message, its line in ``runs.csv``, its key, and
    the folder of its decks and logs. ``levels`` names the level of each variant."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for number, row in enumerate(rows):
        status = Status(row["status"])
        if status is Status.PASSED:
            continue
        level, kind = levels[row["variant"]], kind_of(status, row["message"])
        first = {
            "level": level,
            "kind": kind,
            "status": status.value,
            "runs": 0,
            "message": row["message"],
            "line": number + 2,  # the table's first line names its columns
            "key": row["key"],
            "folder": f"{FOLDER}/{row['key'][:DIGITS]}" if row["attempts"] else None,
        }
        found.setdefault((level, kind), first)["runs"] += 1
    return list(found.values())
