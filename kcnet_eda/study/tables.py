"""Rows of a record as CSV for programs, and as Markdown for people."""

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


def markdown_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a Markdown table: four digits, a proportion with its interval in one cell, and no keys or other lists."""
    told = [dict(_told("", row)) for row in rows]
    names = list(dict.fromkeys(name for row in told for name in row))
    lines = [names, ["---"] * len(names), *([row.get(name, "") for name in names] for row in told)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _told(prefix: str, row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in row.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping) and "wilson95" in value:
            low, high = (100 * bound for bound in value["wilson95"])
            yield name, f"{value['count']}/{value['n']}, {100 * value['value']:.2f} % ({low:.2f} to {high:.2f} %)"
        elif isinstance(value, Mapping):
            yield from _told(f"{name} ", value)
        elif isinstance(value, bool) or value is None:
            yield name, {True: "yes", False: "no", None: ""}[value]
        elif isinstance(value, float):
            yield name, f"{value:.4g}"
        elif key != "key" and not isinstance(value, (list, tuple)):
            yield name, str(value).replace("|", "\\|").replace("\n", " ")
