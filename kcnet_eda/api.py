"""The functions behind the command line's verbs: same names (``import_``: the plain word is Python's), same arguments.

>>> from kcnet_eda.api import export, simulate
>>> export("digits", Path("bundle"), c="1p", t_unit="1p")
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kcnet_eda.errors import InvalidInputError, KcnetError
from kcnet_eda.progress import NoProgress, Progress

if TYPE_CHECKING:
    from kcnet_eda.export.bundle import Bundle
    from kcnet_eda.export.trace import trace
    from kcnet_eda.report.write import report
    from kcnet_eda.study.import_network import import_network as import_
    from kcnet_eda.study.mos.characterize import characterize
    from kcnet_eda.tools.doctor import doctor
    from kcnet_eda.tools.openvaf import compile  # named as the verb is
    from kcnet_eda.tools.pdk import pdk_list
    from kcnet_eda.tools.pdk_check import pdk_check
    from kcnet_eda.tools.pdk_install import pdk_install

__all__ = [
    "characterize",
    "compile",
    "demo",
    "doctor",
    "export",
    "import_",
    "pdk_check",
    "pdk_install",
    "pdk_list",
    "report",
    "simulate",
    "study_adjoint",
    "study_latency",
    "study_pvt",
    "trace",
    "train",
]

#: Options of :func:`export` that only transistors have.
_OF_TRANSISTORS = ("start", "trim", "data", "data_dir")
#: Where the verbs that need nothing around them live. Each is loaded when it is first asked for: a verb does not wait
#: for what only others use.
_HOMES = {
    "characterize": "study.mos.characterize:characterize",
    "compile": "tools.openvaf:compile",
    "doctor": "tools.doctor:doctor",
    "import_": "study.import_network:import_network",
    "pdk_check": "tools.pdk_check:pdk_check",
    "pdk_install": "tools.pdk_install:pdk_install",
    "pdk_list": "tools.pdk:pdk_list",
    "report": "report.write:report",
    "trace": "export.trace:trace",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, function = _HOMES[name].partition(":")
    return getattr(import_module(f"kcnet_eda.{module}"), function)


def export(
    network: str | Path,
    out: Path,
    *,
    level: str = "behavioral",
    pdk: str | Path | None = None,
    models: Path | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Bundle:
    """:func:`kcnet_eda.export.bundle.export`, or, with ``level="mos"`` and a ``pdk``,
    :func:`kcnet_eda.study.mos.export.export_mos`; options that are None are as if not given.

    Raises
    ------
    InvalidInputError
        The network, the level or an option cannot be used; nothing is written then.
    """
    from kcnet_eda.export.bundle import export as export_bundle
    from kcnet_eda.study.mos.export import export_mos

    given = {name: value for name, value in options.items() if value is not None}
    if level != "mos":
        if pdk is not None:
            raise InvalidInputError(f"--pdk {pdk}", [f"has no meaning at the {level} level"], "Add --level mos.")
        for name in _OF_TRANSISTORS:
            if name in given:
                where = f"--{name.replace('_', '-')} {given[name]}"
                raise InvalidInputError(where, [f"has no meaning at the {level} level"], "Add --level mos.")
        return export_bundle(network, out, level=level, **given)
    if pdk is None:
        raise InvalidInputError(
            "--level mos", ["needs a process kit"], "Name one with --pdk; 'kcnet pdk list' has them."
        )
    fixed = [name for name in given if name not in ("c", "t_unit", "error", *_OF_TRANSISTORS)]
    if fixed:
        raise InvalidInputError(
            "--level mos",
            [f"--{name.replace('_', '-')} is not for transistors: the kit and the cell set it" for name in fixed],
            "--c or --t-unit sets the speed.",
        )
    return export_mos(network, out, pdk=pdk, models=models, progress=progress, **given)


def simulate(target: str | Path, out: Path, **options: Any) -> dict[str, Any]:
    """:func:`kcnet_eda.study.simulate.simulate`, or, with ``simulator="both"``,
    :func:`kcnet_eda.study.both.simulate_both`; and the run's ``report.html``. Returns the record."""
    from kcnet_eda.report.write import report
    from kcnet_eda.study.both import simulate_both
    from kcnet_eda.study.simulate import simulate as simulate_one

    if options.get("simulator") == "both":
        record = simulate_both(target, out, **{k: v for k, v in options.items() if k != "simulator"})
        report(out / "vacask")
    else:
        record = simulate_one(target, out, **options)
    report(out)
    return record


def study_adjoint(config: Path, out: Path, progress: Progress | None = None) -> dict[str, Any]:
    """:func:`kcnet_eda.study.adjoint.run.study_adjoint` (``kcnet study adjoint``), and the run's ``report.html``.
    Returns the record."""
    from kcnet_eda.report.write import report
    from kcnet_eda.study.adjoint.run import study_adjoint as run_study

    record = run_study(config, out, progress)
    report(out)
    return record


def study_latency(
    config: Path, out: Path, *, jobs: int | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """:func:`kcnet_eda.study.latency.run.study_latency` (``kcnet study latency``), and the run's ``report.html``.
    Returns the record."""
    from kcnet_eda.report.write import report
    from kcnet_eda.study.latency.run import study_latency as run_study

    record = run_study(config, out, jobs=jobs, progress=progress)
    report(out)
    return record


def study_pvt(config: Path, out: Path, **options: Any) -> dict[str, Any]:
    """:func:`kcnet_eda.study.pvt.run.study_pvt` (``kcnet study pvt``; ``kcnet study mc`` with ``at_nominal``), and
    the run's ``report.html``. Returns the record."""
    from kcnet_eda.report.write import report
    from kcnet_eda.study.pvt.run import study_pvt as run_study

    record = run_study(config, out, **options)
    report(out)
    return record


def train(
    config: Path,
    out: Path,
    *,
    data_dir: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """:func:`kcnet_eda.dynamics.training.train`: train as ``config`` says, write the network to ``out``; returns the
    training record.

    Raises
    ------
    KcnetError
        torch is not installed, or the settings cannot be used.
    """
    if not config.is_file():
        raise InvalidInputError(str(config), ["no such file"])
    try:
        from kcnet_eda.dynamics.training import train as train_with_torch
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise KcnetError("training needs torch: pip install 'kcnet_eda[train]', or torch's CPU build.") from None

    return train_with_torch(config, out, progress or NoProgress(), data_dir=data_dir, resume=resume)


def demo(
    out: Path = Path("runs/demo"),
    samples: int | None = None,
    jobs: int | None = None,
    simulator: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The main job: the shipped digits network at 1 pF and 1 ps, all test digits in the circuit, and the report."""
    return simulate(
        "digits", out, data="digits:test", samples=samples, jobs=jobs, simulator=simulator, progress=progress
    )
