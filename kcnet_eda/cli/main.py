"""``kcnet``: parse, call one function of :mod:`kcnet_eda.api`, print. Heavy imports wait until a verb needs them."""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import typer
from rich.markup import escape

from kcnet_eda import __version__
from kcnet_eda.cli import kits, networks, studies
from kcnet_eda.cli.common import ERR, OUT
from kcnet_eda.errors import KcnetError

app = typer.Typer(
    help="Compile trained KirchhoffNets to analog circuits, simulate them, and reconcile them with the software model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _verb in (
    networks.demo,
    networks.train,
    networks.import_,
    networks.export,
    networks.compile,
    networks.simulate,
    networks.report,
    kits.characterize,
    kits.doctor,
):
    app.command(_verb.__name__.rstrip("_"))(_verb)
app.add_typer(kits.pdk, name="pdk")
app.add_typer(studies.study, name="study")
_INTERRUPTED = 130  # what typer makes of KeyboardInterrupt


def _version(wanted: bool) -> None:
    if wanted:
        OUT.print(f"kcnet_eda {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    pass  # --debug is read in main(), where errors arrive


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
        ERR.print(
            "\ninterrupted; what was finished is kept, and the same command goes on from there (train: with --resume)",
            style="yellow",
        )
        code = 1
    sys.exit(code)


def _say_error(message: str) -> None:
    ERR.print(f"error: {escape(message)}", style="red", soft_wrap=True)
