"""An ngspice that keeps a list of its runs and fails in some of them, for tests of campaigns. As ``$KCNET_NGSPICE`` it
needs a shell script beside it that calls it with its settings (:func:`write_faulty`), and is given a deck.

A run is known by its key in the folder's name.
"""

from __future__ import annotations

import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

#: How a run may fail, and the status that it must end with.
FAULTS = {
    "hang": "timed_out",
    "crash": "tool_failed",
    "silent": "tool_failed",
    "truncate": "bad_data",
    "short": "bad_data",
    "nan": "bad_data",
    "lie_start": "bad_data",
    "lie_end": "bad_data",
}


def write_faulty(path: Path, real: Path, log: Path, faults: Mapping[str, str] | None = None) -> Path:
    """Write the script ``path``: an ngspice that appends each run's folder to ``log``. ``faults`` tells by the first 16
    digits of the key how a run fails, at every try."""
    plan = path.with_suffix(".json")
    plan.write_text(json.dumps({"real": str(real), "log": str(log), "faults": dict(faults or {})}))
    path.write_text(f"#!/bin/sh\nexec '{sys.executable}' '{Path(__file__).resolve()}' '{plan}' \"$@\"\n")
    path.chmod(0o755)
    return path


def started(log: Path) -> list[str]:
    """The keys of the runs that were begun, one a try, in their order."""
    return re.findall(r"kcnet-([0-9a-f]{16})-", log.read_text()) if log.exists() else []


def main() -> None:
    plan = json.loads(Path(sys.argv[1]).read_text())
    real, log = plan["real"], plan["log"]
    command = [real, *sys.argv[2:]]
    if "--version" in command:
        os.execv(real, command)
    folder = str(Path.cwd())
    with Path(log).open("a") as stream:
        stream.write(folder + "\n")
    found = re.search(r"kcnet-([0-9a-f]{16})-", folder)
    fault = plan["faults"].get(found[1]) if found else None
    if fault is None:
        os.execv(real, command)
    if fault == "hang":
        time.sleep(600)
    if fault == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if fault == "silent":
        sys.exit(0)
    subprocess.run(command, check=False)
    for raw in Path.cwd().glob("*.raw"):
        raw.write_bytes(_spoiled(raw.read_bytes(), fault))


def _spoiled(raw: bytes, fault: str) -> bytes:
    """The raw file with its data cut short, ended early, not a number, or scaled by 0.8 everywhere or at the end."""
    head, mark, data = raw.partition(b"Binary:\n")
    if fault == "truncate":
        return raw[:-100]
    names, points = (int(re.search(rb"No\. %s: *(\d+)" % what, head)[1]) for what in (b"Variables", b"Points"))
    rows = [list(row) for row in struct.iter_unpack(f"<{names}d", data)]
    if fault == "short":
        rows = rows[: points // 2]
        head = re.sub(rb"No\. Points: *\d+", b"No. Points: %d" % len(rows), head)
    if fault == "nan":
        rows[-1][2] = float("nan")
    for i, row in enumerate(rows):
        if fault == "lie_start" or (fault == "lie_end" and i > 3 * points // 4):
            row[1:] = [0.8 * value for value in row[1:]]
    return head + mark + b"".join(struct.pack(f"<{names}d", *row) for row in rows)


if __name__ == "__main__":
    main()
