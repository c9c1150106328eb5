"""What the verbs share: where they print, options of several verbs, and how they end."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

OUT = Console()
ERR = Console(stderr=True)

Jobs = Annotated[int | None, typer.Option("--jobs", "-j", help="Simulators at once; one a core if not given.")]
SimulatorName = Annotated[
    str | None,
    typer.Option(
        "--simulator",
        help="ngspice, vacask, both, or engine (in software); if not given ngspice, or VACASK where ngspice cannot "
        "load OSDI devices.",
    ),
]
Samples = Annotated[int | None, typer.Option("--samples", help="How many samples; all if not given.")]
DataDir = Annotated[Path | None, typer.Option(help="Folder that has mnist/ or MNIST's idx files.  [$KCNET_DATA]")]
ErrorBound = Annotated[float, typer.Option("--error", help="Relative error that solver settings are chosen for.")]


def tell_report(record: dict[str, Any], out: Path) -> None:
    """Say where the report is; exit with 1 where runs failed."""
    OUT.print(f"report: {out / 'report.html'}", soft_wrap=True)
    failed = record["summary"]["failed_runs"]
    if failed:
        first = escape(record["failed"][0]["message"])
        ERR.print(f"{failed} runs failed; the first: {first}", style="red", soft_wrap=True)
        raise typer.Exit(1)
