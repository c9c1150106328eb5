"""``kcnet study ...``: many runs out of one YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from kcnet_eda.cli.common import ERR, OUT, Jobs, tell_report
from kcnet_eda.cli.progress import RichProgress
from kcnet_eda.units import format_si

study = typer.Typer(help="Studies of many runs, from a YAML file each.", no_args_is_help=True)

#: A verdict in a word; None: it is not a matter of yes or no, or was not looked at.
_HOLDS = {True: "yes", False: "NO", None: ""}

_PvtFile = Annotated[Path, typer.Argument(metavar="STUDY", help="Study file, YAML (docs/pvt.md).")]
_PvtOut = Annotated[Path, typer.Option(help="Run folder; an interrupted run in it goes on.")]
_PvtWorkers = Annotated[
    int, typer.Option(min=1, help="Threads and worker processes of this machine; results do not depend on them.")
]
_PvtScheduler = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Workers of a dask scheduler, tcp://host:port.")
]
_PvtCluster = Annotated[
    str | None, typer.Option(help="Jobs of slurm or lsf, as the study's 'cluster:' says (docs/campaigns.md).")
]


@study.command("adjoint")
def study_adjoint(
    config: Annotated[Path, typer.Argument(metavar="STUDY", help="Study file, YAML (docs/adjoint.md).")],
    out: Annotated[Path, typer.Option(help="Run folder; an interrupted run in it goes on.")],
) -> None:
    """Gradients out of the adjoint circuit in ngspice, held against the differentiated software."""
    from kcnet_eda import api

    with RichProgress(ERR) as progress:
        record = api.study_adjoint(config, out, progress)
    s = record["summary"]
    table = Table(box=None, pad_edge=False)
    for heading in ("steps", "runs", "dL/dv(0): median, worst", "dL/d(a, b, c, k)", "dL/d(theta1, theta2)", "s a run"):
        table.add_column(heading)
    for row in record["convergence"]:
        cells = [
            f"{e['median']:.1e}, {e['max']:.1e}" if (e := row["errors"].get(name)) else ""
            for name in ("v0", "edges", "theta")
        ]
        table.add_row(str(row["steps"]), str(row["n"]), *cells, f"{row['wall_s']:.2f}")
    OUT.print(table)
    verdict = "kept" if s["kept"] else "MISSED"
    worst = "none" if s["worst"] is None else f"{s['worst']:.1e}"
    OUT.print(
        f"worst relative error (2-norm) at {s['steps']} steps: {worst} ({s['requested']:g} asked for: {verdict}); "
        f"the software's own: {s['software_halving']:.1e}"
        + (f"; observed order {s['order']['edges']:.2f}" if s["order"] and "edges" in s["order"] else ""),
        soft_wrap=True,
    )
    OUT.print(f"{record['provenance']['simulator']}, {s['wall_s']:.1f} s in all", soft_wrap=True)
    tell_report(record, out)
    if not s["kept"]:
        raise typer.Exit(2)


@study.command("latency")
def study_latency(
    config: Annotated[Path, typer.Argument(metavar="STUDY", help="Study file, YAML (docs/latency.md).")],
    out: Annotated[Path, typer.Option(help="Run folder; an interrupted run in it goes on.")],
    jobs: Jobs = None,
) -> None:
    """Where 1/f holds, where it breaks, and what it costs, by simulation of the exported circuit."""
    from kcnet_eda import api

    with RichProgress(ERR) as progress:
        record = api.study_latency(config, out, jobs=jobs, progress=progress)
    s = record["summary"]
    table = Table(box=None, pad_edge=False)
    for heading in ("claim", "holds", "found"):
        table.add_column(heading, overflow="fold")
    for verdict in s["verdicts"]:
        table.add_row(verdict["claim"], _HOLDS[verdict["holds"]], verdict["found"])
    OUT.print(table)
    if s["sections_not_run"]:
        OUT.print(f"not run: {', '.join(s['sections_not_run'])}", soft_wrap=True)
    OUT.print(f"{s['wall_s']:.1f} s in all", soft_wrap=True)
    tell_report(record, out)
    if not s["kept"]:
        raise typer.Exit(2)


@study.command("pvt")
def study_pvt(
    config: _PvtFile,
    out: _PvtOut,
    corners: Annotated[str, typer.Option(help="Of the study's corners only these: names or globs, by commas.")] = "",
    workers: _PvtWorkers = 1,
    scheduler: _PvtScheduler = None,
    cluster: _PvtCluster = None,
) -> None:
    """Accuracy and yield over process, supply, temperature and dies, by the fast engine."""
    from kcnet_eda import api

    chosen = [name for word in corners.split(",") if (name := word.strip())]
    with RichProgress(ERR) as progress:
        record = api.study_pvt(
            config, out, corners=chosen, workers=workers, scheduler=scheduler, cluster=cluster, progress=progress
        )
    _tell_pvt(record, out)


@study.command("mc")
def study_mc(
    config: _PvtFile,
    out: _PvtOut,
    workers: _PvtWorkers = 1,
    scheduler: _PvtScheduler = None,
    cluster: _PvtCluster = None,
) -> None:
    """Accuracy and yield over dies at the kit's nominal condition, by the fast engine."""
    from kcnet_eda import api

    with RichProgress(ERR) as progress:
        record = api.study_pvt(
            config, out, at_nominal=True, workers=workers, scheduler=scheduler, cluster=cluster, progress=progress
        )
    _tell_pvt(record, out)


def _tell_pvt(record: dict[str, Any], out: Path) -> None:
    """The table of conditions and the verdict; exit code 2 where a limit is missed."""
    from kcnet_eda.study.pvt.record import checks

    s = record["summary"]
    table = Table(box=None, pad_edge=False)
    for heading in ("condition", "accuracy", "95 %", "worst die", "yield", "95 %"):
        table.add_column(heading)
    for row in record["conditions"]:
        (low, high), (least, most) = row["accuracy_interval"], row["yield_interval"]
        table.add_row(
            row["condition"],
            f"{100 * row['accuracy']:.2f} %",
            f"{100 * low:.2f} to {100 * high:.2f}",
            f"{100 * row['die_min']:.2f} %",
            f"{100 * row['yield']:.1f} %",
            f"{100 * least:.1f} to {100 * most:.1f}",
        )
    OUT.print(table)
    everywhere = "withheld"
    if s["yield_everywhere"] is not None:
        low, high = (100 * end for end in s["yield_everywhere_interval"])
        everywhere = f"{100 * s['yield_everywhere']:.1f} % ({low:.1f} to {high:.1f} %)"
    OUT.print(
        f"{s['conditions']} conditions, {s['dies']} dies, {s['samples']} samples: {s['classifications']} "
        f"classifications, {s['not_finite']} not finite; worst: {s['worst']}; dies good everywhere: {everywhere}",
        soft_wrap=True,
    )
    repeated = list(checks(record).values())
    if not repeated:
        OUT.print("no case was repeated in a simulator")
    for check in repeated:
        low, high = check["agreement_interval"]
        largest = "none passed" if check["largest"] is None else f"{check['largest']:.1e} of the range"
        OUT.print(
            f"repeated in ngspice, {check['level']}: {check['agree']} of {check['cases']} labels agree "
            f"({100 * low:.1f} to {100 * high:.1f} %), largest difference {largest}, {check['failed']} runs failed"
            + (
                f" ({', '.join(f'{n} {how}' for how, n in check['ended'].items() if how != 'passed')})"
                if check["failed"]
                else ""
            )
            + ("" if check["kept"] else ": the engine is NOT to be believed here"),
            soft_wrap=True,
        )
    if s["inert_axes"]:
        OUT.print(f"no answer changes along: {', '.join(s['inert_axes'])}", soft_wrap=True)
    _tell_spot(record)
    _tell_remedies(record)
    OUT.print(f"surrogate: {record['provenance']['surrogate']}; {s['wall_s']:.1f} s in all", soft_wrap=True)
    OUT.print(
        f"report: {out / 'report.html'}, table: {out / 'conditions.csv'}, runs: {out / 'runs.csv'}", soft_wrap=True
    )
    for limit in record["limits"]:
        verdict = "kept" if limit["kept"] else "MISSED"
        asked, found = (
            "not finite" if value is None else format_si(value, limit["unit"]) if limit["unit"] else f"{value:.4g}"
            for value in (limit["limit"], limit["found"])
        )
        OUT.print(f"{limit['of']}, {limit['kind']} {asked}: {found}: {verdict}")
    if not s["kept"]:
        raise typer.Exit(2)


def _tell_spot(record: dict[str, Any]) -> None:
    """How ngspice's transient noise compares with the engine's, where the study asked."""
    spot = record["noise"] and record["noise"]["spot"]
    if not spot:
        return
    ratio = "no ratio"
    if spot["ratio"] is not None:
        ratio = f"sigma over the engine's {spot['ratio']:.3f} ({spot['interval'][0]:.3f} to {spot['interval'][1]:.3f})"
    OUT.print(
        f"transient noise in ngspice, C {format_si(spot['c'], 'F')}: {ratio}, {spot['samples']} samples, "
        f"{spot['failed']} of {spot['runs']} runs failed"
        + ("" if spot["kept"] else ": the engine's noise does NOT agree"),
        soft_wrap=True,
    )


def _tell_remedies(record: dict[str, Any]) -> None:
    """What the yield hangs on most, and what calibrating each die brings, where the study asked."""
    sensitivity, calibration = record["sensitivity"], record["calibration"]
    if sensitivity is not None:
        first = ", ".join(f"{row['source']} to {row['target']}" for row in sensitivity["edges"][:5])
        OUT.print(f"the yield hangs most on: {first} (sensitivity.csv)", soft_wrap=True)
    for row in calibration["rows"] if calibration is not None else ():
        where = "" if row["calibrated_at"] is None else f", calibrated at {row['calibrated_at']}"
        OUT.print(
            f"{row['condition']}, {row['what']}{where}: accuracy {100 * row['accuracy']['value']:.2f} %, "
            f"yield {100 * row['yield']['value']:.1f} %",
            soft_wrap=True,
        )
