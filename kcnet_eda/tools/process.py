"""The only place that starts outside programs: time limit, process-group kill, kept log, measured cost."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kcnet_eda.errors import RunTimeoutError, ToolFailedError, ToolMissingError

_POLL_S = 0.01


@dataclass(frozen=True)
class Completed:
    """How a program ended. ``returncode`` is no verdict: ngspice exits 0 without data. ``output`` is stdout and
    stderr together, as in ``log``; ``peak_kib`` is its largest resident set."""

    returncode: int
    output: str
    log: Path
    peak_kib: int


def run(
    command: Sequence[str | Path],
    *,
    cwd: Path,
    log: Path,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    cancel: threading.Event | None = None,
    step: Callable[[], object] = lambda: None,
) -> Completed:
    """Run ``command`` in a process group of its own, its output going to ``log``. Setting ``cancel`` ends it early.

    Where ``step()`` tells how far the program is, it is ``timeout_s`` without a new step that ends it (noticed after
    twice that at most); otherwise ``timeout_s`` bounds the whole.

    Raises
    ------
    ToolMissingError
        The program cannot be started.
    RunTimeoutError
        The time limit passed; the whole group was killed and the log is kept.
    ToolFailedError
        ``cancel`` was set; the whole group was killed.
    """
    words = [str(word) for word in command]
    # Linux: a program does not outlive the process that started it, even where that is killed. A program that is not
    # there is left to Popen, which says so.
    tied = shutil.which("setpriv") if shutil.which(words[0]) else None
    cancel = cancel or threading.Event()
    with log.open("wb") as stream:
        try:
            process = subprocess.Popen(
                [tied, "--pdeathsig", "KILL", "--", *words] if tied else words,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        except OSError as error:
            raise ToolMissingError(f"{words[0]}: cannot be started: {error.strerror}. Try 'kcnet doctor'.") from None
        try:
            peak = _wait(process, timeout_s, cancel, step)
        except BaseException:
            _kill_group(process.pid)
            process.wait()
            raise
    if cancel.is_set():
        raise ToolFailedError(f"{Path(words[0]).name} was stopped")
    if peak is None:
        raise RunTimeoutError(f"{Path(words[0]).name} ran past its limit of {timeout_s:g} s and was killed. Log: {log}")
    output = log.read_text(encoding="utf-8", errors="replace")
    return Completed(process.returncode, output, log, peak)


def ask(command: Sequence[str | Path], timeout_s: float = 20.0) -> Completed:
    """Run a short question to a program (such as its version) in a scratch folder that vanishes.

    Raises
    ------
    ToolMissingError, ToolFailedError
        It cannot be started, or does not answer in time.
    """
    with tempfile.TemporaryDirectory() as scratch:
        try:
            return run(command, cwd=Path(scratch), log=Path(scratch) / "log", timeout_s=timeout_s)
        except RunTimeoutError:
            words = " ".join(str(word) for word in command)
            raise ToolFailedError(f"'{words}' does not answer within {timeout_s:g} s. Try 'kcnet doctor'.") from None


def _wait(
    process: subprocess.Popen[bytes], timeout_s: float, cancel: threading.Event, step: Callable[[], object]
) -> int | None:
    """The largest resident set seen, KiB; None where the time limit passed or ``cancel`` was set, and the group was
    killed."""
    deadline, reached, killed, peak = time.monotonic() + timeout_s, step(), False, 0
    while process.poll() is None:
        peak = max(peak, _high_water_kib(process.pid))
        if not killed and not cancel.is_set() and time.monotonic() > deadline and step() != reached:
            deadline, reached = time.monotonic() + timeout_s, step()
        if not killed and (cancel.is_set() or time.monotonic() > deadline):
            killed = True
            _kill_group(process.pid)
        time.sleep(_POLL_S)
    return None if killed else peak


def _high_water_kib(pid: int) -> int:
    """A process's largest resident set so far, 0 where the system does not tell. The resource usage that wait gives
    would not do: it counts the parent's memory, which a child holds until it becomes the other program."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) if found else 0


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
