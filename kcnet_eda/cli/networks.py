"""``kcnet demo, train, import, export, compile, simulate, report``: a network, from training to the page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from kcnet_eda.cli.common import ERR, OUT, DataDir, ErrorBound, Jobs, Samples, SimulatorName, tell_report
from kcnet_eda.cli.progress import RichProgress


def demo(
    out: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/demo"),
    samples: Samples = None,
    jobs: Jobs = None,
    simulator: SimulatorName = None,
) -> None:
    """The main job: the shipped digits network through the circuit simulator, reconciled with the software."""
    from kcnet_eda import api

    with RichProgress(ERR) as progress:
        record = api.demo(out, samples, jobs, simulator, progress)
    _finish(record, out)


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

    with RichProgress(ERR) as progress:
        record = api.train(config, out, data_dir=data_dir, resume=resume, progress=progress)
    table = Table(show_header=False)
    for name, value in record["result"].items():
        if value is None:  # nothing was held out
            continue
        table.add_row(name.replace("_", " "), f"{value:.4g}" if isinstance(value, float) else str(value))
    OUT.print(table)
    OUT.print(f"network: {out}", soft_wrap=True)


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

    with RichProgress(ERR) as progress:
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
    OUT.print(table)
    for note in found["notes"]:
        OUT.print(f"note: {escape(note)}", soft_wrap=True)
    for warning in found["warnings"]:
        ERR.print(f"warning: {escape(warning)}", style="bold yellow", soft_wrap=True)
    OUT.print(f"network: {out}", soft_wrap=True)


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
    trim: Annotated[
        int | None,
        typer.Option(help="Trim the cells of the mos level by so many runs of the network, from --data.  [none]"),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Where --trim draws inputs: digits:train, mnist:train, FILE.npz.  [the network's examples]"),
    ] = None,
    data_dir: DataDir = None,
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

    with RichProgress(ERR) as progress:
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
            trim=trim,
            data=data,
            data_dir=data_dir,
            lower=lower,
            progress=progress,
        )
    circuit = bundle.circuit
    windows = circuit.timeline.in_windows
    OUT.print(
        f"{len(circuit.nets) - 1} capacitors of {format_si(circuit.scaling.c, 'F')}, {circuit.n_devices} edge "
        f"devices, T = {format_si(circuit.run_time(circuit.sequenced), 's')}"
        + (f" ({format_si(windows, 's')} of it in transfer windows)" if windows else "")
        + f", {bundle.settings['ngspice'].steps} steps in ngspice for an error of {error:g}",
        soft_wrap=True,
    )
    for warning in bundle.manifest["warnings"]:
        ERR.print(f"warning: {escape(warning)}", style="yellow", soft_wrap=True)
    if circuit.passes:
        OUT.print(f"{', '.join(circuit.passes)}: {bundle.network.n_edges} edges -> {circuit.n_devices} devices")
    for wanted in trace or []:
        for line in api.trace(bundle, wanted):
            OUT.print(escape(line), soft_wrap=True)
    OUT.print(f"bundle: {out}; read {out / 'README.md'}, run {out / 'run.sh'}", soft_wrap=True)


def compile(paths: Annotated[list[Path], typer.Argument(help="Verilog-A files, folders of them, or bundles.")]) -> None:
    """Compile Verilog-A devices to OSDI, cached by content."""
    from kcnet_eda import api

    for name, path in api.compile(paths).items():
        OUT.print(f"{name}: {path}", soft_wrap=True)


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

    with RichProgress(ERR) as progress:
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


def report(
    run: Annotated[list[Path], typer.Argument(help="Run folders of 'kcnet simulate' or of studies.")],
    out: Annotated[Path | None, typer.Option(help="HTML file; RUN/report.html if not given, for one run.")] = None,
    pdf: Annotated[bool, typer.Option("--pdf", help="Also print it to a PDF, by an installed browser.")] = False,
) -> None:
    """Write the report of a run again, or of several runs on one page (docs/report.md)."""
    from kcnet_eda.report.write import write_report

    page, record = write_report(run, out, pdf=pdf)
    OUT.print(f"report: {page}{' and .pdf' if pdf else ''}", soft_wrap=True)
    if record is None:
        return
    s = record["summary"]
    for row in record["runs"]:
        for text in row["failures"]:
            ERR.print(escape(f"{row['name']}: {text}"), style="red", soft_wrap=True)
    kept = f"{s['limits'] - s['limits_missed']} of {s['limits']} kept" if s["limits"] else "none asked for"
    OUT.print(f"limits: {kept}")
    if s["unreadable_runs"]:
        raise typer.Exit(1)
    if s["limits_missed"]:
        raise typer.Exit(2)


def _finish(record: dict[str, Any], out: Path) -> None:
    """Print a run's verdict; exit with 1 where runs failed, with 2 where the accuracy contract was missed."""
    from kcnet_eda.units import format_si

    s, agreement, contract = record["summary"], record["agreement"], record["contract"]
    if record["provenance"]["warning"]:
        ERR.print(escape(record["provenance"]["warning"]), style="yellow", soft_wrap=True)
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
    OUT.print(table)
    outside = record["outside_range"]
    if outside and outside["nodes"]:
        ERR.print(
            f"warning: {outside['nodes']} nodes leave the voltage range within which dropping edges is exact "
            f"({escape(outside['worst_net'])} by {format_si(outside['by'] * record['scaling']['v_unit'], 'V', 3)})",
            style="bold yellow",
            soft_wrap=True,
        )
    tell_report(record, out)
    if contract["kept"] is False or not record.get("both", {"kept": True})["kept"]:
        raise typer.Exit(2)
