"""Verilog-A to OSDI: compiled once for each content and compiler, with the compiler's own words on failure."""

from __future__ import annotations

import re
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

from kcnet_eda.errors import KcnetError, ToolFailedError
from kcnet_eda.files import cache_dir, resource_dir, sha256_bytes, sha256_file, write_atomic
from kcnet_eda.tools.locate import find_openvaf
from kcnet_eda.tools.process import ask, run

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_INCLUDE = re.compile(r'^\s*`include\s+"([^"]+)"', re.MULTILINE)
_TIMEOUT_S = 300.0


@lru_cache
def version(compiler: Path) -> str:
    """The compiler's own version line.

    Raises
    ------
    ToolFailedError
        It is no compiler that we know how to ask.
    """
    done = ask([compiler, "--version"])
    lines = done.output.strip().splitlines()
    if done.returncode != 0 or not lines:
        raise ToolFailedError(f"{compiler}: '--version' exits {done.returncode} and says nothing of use.")
    return lines[0].strip()


@lru_cache
def _program_hash(compiler: Path) -> str:
    return sha256_file(compiler)


def with_includes(source: Path) -> list[Path]:
    """A Verilog-A file and those beside it that it includes, and so on; the standard headers, which are the
    compiler's own, are not among them."""
    found = [source]
    for file in found:
        for name in _INCLUDE.findall(file.read_text(encoding="utf-8", errors="replace")):
            included = file.parent / name
            if included.is_file() and included not in found:
                found.append(included)
    return found


def shipped(module: str) -> Path:
    """The source of a Verilog-A module that comes with the program."""
    return resource_dir("veriloga") / f"{module}.va"


def compile_beside(source: Path, folder: Path) -> str:
    """:func:`compile_file`, and a copy of what comes of it in the ``folder`` of a deck; its name there."""
    name = f"{source.stem}.osdi"
    shutil.copyfile(compile_file(source), folder / name)
    return name


def compile_file(source: Path) -> Path:
    """Compile one Verilog-A file; return the OSDI file, kept in the cache under the hash of all that made it.

    Raises
    ------
    ToolMissingError
        There is no compiler.
    ToolFailedError
        It refused the source, or left no file; its diagnostics are the message.
    """
    compiler = find_openvaf()
    if not source.is_file():
        raise KcnetError(f"{source}: no such Verilog-A file")
    contents = [sha256_file(file) for file in with_includes(source)]
    key = sha256_bytes("\n".join([version(compiler), _program_hash(compiler), *contents]).encode())[:24]
    target = cache_dir() / "osdi" / f"{source.stem}-{key}.osdi"
    if target.is_file():
        return target
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        out = folder / f"{source.stem}.osdi"
        done = run([compiler, source.resolve(), "-o", out], cwd=folder, log=folder / "log", timeout_s=_TIMEOUT_S)
        said = _ANSI.sub("", done.output).strip()
        if done.returncode != 0:
            raise ToolFailedError(f"{source}: the Verilog-A compiler refused it:\n{said}")
        if not out.is_file() or out.stat().st_size == 0:
            raise ToolFailedError(f"{source}: the Verilog-A compiler exited 0 and wrote no OSDI file:\n{said}")
        write_atomic(target, out.read_bytes())
    return target


def compile(paths: list[Path]) -> dict[str, Path]:
    """Compile Verilog-A files, or every ``*.va`` of folders (a bundle's folder too): OSDI files by module file name.

    Raises
    ------
    KcnetError
        A path holds no Verilog-A.
    """
    sources: list[Path] = []
    for path in paths:
        folder = path / "veriloga" if (path / "veriloga").is_dir() else path
        found = sorted(folder.glob("*.va")) if folder.is_dir() else [path]
        if not found:
            raise KcnetError(f"{path}: holds no .va files")
        sources += found
    return {source.stem: compile_file(source) for source in sources}
