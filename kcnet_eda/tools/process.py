"""The only place that starts outside programs: time limit, process-group kill, kept log, measured cost."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kcnet_eda.errors import RunTimeoutError, ToolFailedError, ToolMissingError

_POLL_S = 0.01
_live: set[int] = set()
_lock = threading.Lock()
_stopping = threading.Event()


@dataclass(frozen=True)
class Completed:
    """How a program ended. ``returncode`` is no verdict: ngspice exits 0 without data. ``output`` is stdout and
    stderr together, as in ``log``; ``peak_kib`` is its largest resident set."""

    returncode: int
    output: str
    log: Path
    wall_s: float
    peak_kib: int


def run(command: Sequence[str | Path], *, cwd: Path, log: Path, timeout_s: float,
        env: Mapping[str, str] | None = None) -> Completed:
    """Run ``command`` in a process group of its own, its output going to ``log``.

    Raises
    ------
    ToolMissingError
        The program cannot be started.
    RunTimeoutError
        It ran past ``timeout_s``; the whole group was killed and the log is kept.
    ToolFailedError
        :func:`stop_all` was called meanwhile.
    """
    words = [str(word) for word in command]
    if _stopping.is_set():
        raise ToolFailedError("stopped")
    started = time.monotonic()
    with log.open("wb") as stream:
        try:
            process = subprocess.Popen(
                words, cwd=cwd, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})}, start_new_session=True,
            )
        except OSError as error:
            raise ToolMissingError(f"{words[0]}: cannot be started: {error.strerror}. Try 'kcnet doctor'.") from None
        with _lock:
            _live.add(process.pid)
        try:
            returncode, peak = _wait(process, started + timeout_s)
        except BaseException:
            _kill(process.pid)
            process.wait()
            raise
        finally:
            with _lock:
                _live.discard(process.pid)
    wall = time.monotonic() - started
    output = log.read_text(encoding="utf-8", errors="replace")
    if returncode is None:
        raise RunTimeoutError(f"{Path(words[0]).name} ran past its {timeout_s:g} s and was killed. Log: {log}")
    if _stopping.is_set():
        raise ToolFailedError("stopped")
    return Completed(returncode, output, log, wall, peak)


def _wait(process: subprocess.Popen[bytes], deadline: float) -> tuple[int | None, int]:
    """(exit status, peak KiB); the status is None where the deadline passed and the group was killed."""
    expired = False
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return (None if expired else process.returncode), usage.ru_maxrss
        if not expired and time.monotonic() > deadline:
            expired = True
            _kill(process.pid)
        time.sleep(_POLL_S)


def _kill(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def stop_all() -> None:
    """Kill every program that is running and refuse to start more: for Ctrl-C."""
    _stopping.set()
    with _lock:
        for pid in _live:
            _kill(pid)
