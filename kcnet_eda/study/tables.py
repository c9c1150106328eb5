"""Rows of a record as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_INTERVALS = ("interval", "wilson95")


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV: what is nested in them as columns of its own, an interval as its two ends, other lists as text."""
    flat = [dict(_flat("", row)) for row in rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in flat for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _flat(prefix: str, row: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in row.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(f"{name}_", value)
        elif key.endswith(_INTERVALS):
            yield from zip((f"{name}_low", f"{name}_high"), value or (None, None), strict=True)
        elif not isinstance(value, (list, tuple)):
            yield name, value
        else:
            yield name, " ".join(map(str, value))
