"""Every planned run of a study as a table, ``runs.csv`` and ``runs.parquet``: how it ended, and what it took."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from kcnet_eda.files import write_atomic
from kcnet_eda.study.store import Store
from kcnet_eda.study.tables import csv_text

RUNS_CSV, RUNS_PARQUET = "runs.csv", "runs.parquet"
#: Columns that tell the cost of a run: they differ from one time to the next, all others do not.
MEASURED = ("wall_s", "peak_kib")
_SCHEMA = pa.schema(
    [
        ("level", pa.string()),
        ("condition", pa.string()),
        ("dies", pa.string()),
        ("sample", pa.int64()),
        ("status", pa.string()),
        ("attempts", pa.int64()),
        ("rung", pa.string()),
        ("label", pa.int64()),
        ("correct", pa.bool_()),
        ("error", pa.float64()),
        ("wall_s", pa.float64()),
        ("peak_kib", pa.int64()),
        ("simulator", pa.string()),
        ("simulator_version", pa.string()),
        ("seed", pa.int64()),
        ("key", pa.string()),
        ("message", pa.string()),
    ]
)


def write_runs(store: Store, out: Path, levels: dict[str, str]) -> None:
    """Write both tables into ``out``; ``levels`` names the level of each variant in the store."""
    rows = []
    for row in store.planned():
        row["level"] = levels[row["variant"]]
        if not row["attempts"]:  # a block of dies, noise: all samples, and no ladder
            row["sample"], row["attempts"] = None, 1
        row["correct"] = None if row["correct"] is None else bool(row["correct"])
        rows.append({name: row[name] for name in _SCHEMA.names})
    write_atomic(out / RUNS_CSV, csv_text(rows))
    table = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), table)
    write_atomic(out / RUNS_PARQUET, table.getvalue())
