"""A process kit's models on this machine: found, held to their record, compiled. Nothing of a kit is shipped."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from kcnet_eda.errors import BadDataError, InvalidInputError, KcnetError
from kcnet_eda.files import cache_dir, sha256_bytes, sha256_file, write_atomic
from kcnet_eda.physical.pdk import (
    LIFTED,
    Library,
    Pdk,
    Wheel,
    is_shipped,
    load_pdk,
    shipped_pdks,
)
from kcnet_eda.tools import openvaf
from kcnet_eda.tools.simulators import NGSPICE, explain

RECORD = "installed.json"
MODELS_LINK = "models"  # what decks call the models' folder, which is linked beside them
_T = TypeVar("_T")
_SECTION = re.compile(r"^\s*\.lib\s+([A-Za-z_][\w.]*)\s*(?:[*;$].*)?$", re.IGNORECASE | re.MULTILINE)
#: The cards inside a subcircuit, from its first model on; a bundle's run.sh has the same in sed.
_CARDS = re.compile(r"^\.model.*?(?=^\.ends)", re.MULTILINE | re.DOTALL)
_USED = re.compile(r"^\s*\.(?:include|inc|lib)\s+(?:\"([^\"]+)\"|'([^']+)'|(\S+))", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class Models:
    """A kit's models, ready for :func:`kcnet_eda.export.pdk_deck.model_header`.

    ``folder`` holds the libraries, ``osdi`` are the compiled models in the order to load them, ``lifted`` the folder of
    models lifted out of their wrappers (None: this kit needs none), ``origin`` says in words where the libraries were
    found, ``sha256`` is one hash over every file that takes part (a key for caches).
    """

    folder: Path
    osdi: tuple[Path, ...]
    origin: str
    sha256: str
    lifted: Path | None = None


@dataclass(frozen=True)
class Listed:
    """One line of ``kcnet pdk list``: ``found`` is where the models are, or '' and ``remedy`` says what to do."""

    name: str
    description: str
    found: str
    remedy: str


def prepare(pdk: Pdk, models: Path | None = None) -> Models:
    """Find a kit's models (in ``models`` if given), hold them to the kit's file, and compile what must be compiled.

    Raises
    ------
    KcnetError
        The models are nowhere, or their folder lacks files.
    InvalidInputError
        A library lacks a section that the kit's file names.
    BadDataError
        Installed models are no longer what was installed.
    ToolMissingError, ToolFailedError
        A model cannot be compiled.
    """
    folder, origin = locate(pdk, models)
    _require_sections(pdk, folder)
    hashes = used_hashes(pdk, folder)
    _require_record(folder, hashes)
    osdi = tuple(openvaf.compile_file(source) for source in _osdi_sources(pdk, folder))
    key = sha256_bytes("\n".join(sorted(hashes.values())).encode())
    return Models(folder, osdi, origin, key, _lift(pdk, folder, key))


def run_beside(models: Models, deck: str, name: str, timeout_s: float, read: Callable[[Path], _T]) -> _T:
    """Run a ``deck`` that finds the kit's ``models`` as :data:`MODELS_LINK` and the compiled ones by their names, and
    ``read`` its folder; the folder stays only where something failed.

    Raises
    ------
    ToolFailedError, NotConvergedError, RunTimeoutError
        The simulator gave no result; the message names its log.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"kcnet-{name}-"))
    link_models(models, folder)
    path = folder / f"{name}.sp"
    path.write_text(deck)
    done = NGSPICE.run(path, folder / "log.txt", timeout_s)
    if not any(folder.glob("*.raw")):
        raise explain(done)
    found = read(folder)
    shutil.rmtree(folder)
    return found


def link_models(models: Models, folder: Path) -> tuple[str, list[str]]:
    """Link a kit's models into a deck's folder; returns what the deck calls the models' folder and the compiled models.

    ngspice cuts the path of a ``.lib`` line at a blank, quoted or not, so decks name links beside them; and they hold
    no paths of this machine.
    """
    links = {MODELS_LINK: models.folder, **{file.name: file for file in models.osdi}}
    lifted = {LIFTED: models.lifted} if models.lifted else {}
    for name, target in (links | lifted).items():
        link = folder / name
        if not (link.is_symlink() and link.readlink() == target):
            link.unlink(missing_ok=True)
            link.symlink_to(target)
    return MODELS_LINK, list(links)[1:]


def locate(pdk: Pdk, models: Path | None = None) -> tuple[Path, str]:
    """The folder of a kit's models, and in words which place that is: ``models`` if given, else below ``$PDK_ROOT``,
    else the path in the kit's file, else what ``kcnet pdk install`` put into the cache.

    Raises
    ------
    KcnetError
        No place has them; or the first that should, lacks files.
    """
    for folder, origin in _places(pdk, models):
        if folder.is_dir():
            require_files(pdk, folder, origin)
            return folder.resolve(), origin
    looked = "\n".join(f"  - {folder} ({origin})" for folder, origin in _places(pdk, models))
    how = how_to_get(pdk) if models is None else "name the folder that has them, or none: then it is looked for"
    raise KcnetError(f"{pdk.file}: the models of {pdk.name} are not on this machine. Looked in:\n{looked}\n  {how}")


def how_to_get(pdk: Pdk) -> str:
    """What a user can do to have the models."""
    root = f"set $PDK_ROOT to a folder that holds {pdk.source.pdk_root[0]}" if pdk.source.pdk_root else ""
    wheel = pdk.source.wheel
    # The command knows a shipped kit by its name and any other by its file.
    named = pdk.name if is_shipped(pdk) else str(pdk.file)
    fetch = f"kcnet pdk install {named} (fetches {wheel.package} {wheel.version})" if wheel else ""
    ways = [way for way in (fetch, root) if way] or ["correct source.path in that file"]
    return f"Run {ways[0]}, or {ways[1]}." if fetch and root else f"{'Run ' if fetch else ''}{ways[0]}."


def _places(pdk: Pdk, models: Path | None) -> list[tuple[Path, str]]:
    if models is not None:
        return [(models, "given")]
    places: list[tuple[Path, str]] = []
    if root := os.environ.get("PDK_ROOT"):
        places += [(Path(root) / below, f"$PDK_ROOT/{below}") for below in pdk.source.pdk_root]
    if pdk.source.path is not None:
        places.append((pdk.file.parent / Path(pdk.source.path).expanduser(), "source.path"))
    if pdk.source.wheel is not None:
        places.append((installed_folder(pdk.source.wheel) / pdk.source.wheel.models, "installed"))
    return places


def installed_folder(wheel: Wheel, parent: Path | None = None) -> Path:
    """Where a wheel's models are installed, in ``parent`` or in the cache."""
    return (parent or cache_dir() / "pdk") / f"{wheel.package}-{wheel.version}"


def require_files(pdk: Pdk, folder: Path, origin: str) -> None:
    """Raise :class:`InvalidInputError` with every file that the kit's file names and ``folder`` lacks."""
    missing = [f"{file}: is not in {folder}" for file in pdk.model_files() if not (folder / file).is_file()]
    missing += [
        f"osdi {osdi.module}: none of {', '.join(osdi.sources)} is in {folder}"
        for osdi in pdk.osdi
        if not any((folder / source).is_file() for source in osdi.sources)
    ]
    if missing:
        raise InvalidInputError(
            str(pdk.file),
            missing,
            f"That folder was taken for the models' ({origin}). Mend the paths in the kit's file, or the folder; "
            f"otherwise: {how_to_get(pdk)}",
        )


def _osdi_sources(pdk: Pdk, folder: Path) -> list[Path]:
    return [next((folder / file).resolve() for file in osdi.sources if (folder / file).is_file()) for osdi in pdk.osdi]


def _lift(pdk: Pdk, folder: Path, key: str) -> Path | None:
    """The models that stand inside their wrappers, where every instance of a wrapper would have its own copy of all
    bins (four minutes to load for 5,000 transistors), as files of their own in the cache."""
    lifted = pdk.lifted()
    home = cache_dir() / "lifted" / sha256_bytes(f"{key} {lifted}".encode())[:24]
    for each in lifted:
        source, target = folder / each.source, home / each.name
        if not target.is_file():
            cards = "".join(_CARDS.findall(source.read_text(encoding="utf-8", errors="replace")))
            if not cards:
                raise InvalidInputError(
                    str(pdk.file),
                    [f"devices.{each.kind}.direct.inside.{each.corner}: {source} has no .model before an .ends"],
                    "Name the file that defines the wrapper with the model inside, or leave 'inside' out.",
                )
            write_atomic(target, f"* The models of {each.source}, out of their wrapper\n{cards}")
    return home if lifted else None


def _require_sections(pdk: Pdk, folder: Path) -> None:
    """ngspice names a missing section once it is too late to say which key asked for it, so they are looked up here."""
    wanted: dict[str, tuple[Library, ...]] = {
        **{f"corners.{name}": corner for name, corner in pdk.corners.items()},
        **{f"resistor_corners.{name}": corner for name, corner in pdk.resistor_corners.items()},
        "capacitor.libraries": pdk.capacitor.libraries,
    }
    suffixes = ("", pdk.mismatch.section_suffix) if pdk.mismatch and pdk.mismatch.section_suffix else ("",)
    held: dict[str, dict[str, str]] = {}
    problems = []
    for key, libraries in wanted.items():
        for library in libraries:
            if library.section is None:
                continue
            if library.file not in held:
                held[library.file] = _sections(folder / library.file)
            problems += [
                f"{key}: {folder / library.file} has no section {library.section + suffix!r}"
                f"{' (asked for by mismatch.section_suffix)' if suffix else ''}"
                for suffix in suffixes
                if (library.section + suffix).lower() not in held[library.file]
            ]
    if problems:
        there = "; ".join(
            f"{file} has {', '.join(list(names.values())[:40]) or 'none'}"
            for file, names in held.items()
            if any(f"{folder / file} " in p for p in problems)
        )
        raise InvalidInputError(str(pdk.file), problems, f"Sections there are: {there}.")


def _sections(file: Path) -> dict[str, str]:
    """The sections that a library defines (a ``.lib`` line with one word), lower case (as ngspice compares) to as
    written."""
    text = file.read_text(encoding="utf-8", errors="replace")
    return {name.lower(): name for name in _SECTION.findall(text)}


def used_files(folder: Path, first: tuple[str, ...]) -> list[Path]:
    """The library files ``first`` below ``folder`` and all that they include, and so on."""
    found = [(folder / name).resolve() for name in first]
    for file in found:
        for names in _USED.findall(file.read_text(encoding="utf-8", errors="replace")):
            used = (file.parent / "".join(names)).resolve()
            if used.is_file() and used not in found:
                found.append(used)
    return found


def used_hashes(pdk: Pdk, folder: Path) -> dict[Path, str]:
    """SHA-256 of each file that takes part, whatever the corner: libraries, Verilog-A, and what they include."""
    files = used_files(folder, pdk.model_files())
    files += [file for source in _osdi_sources(pdk, folder) for file in openvaf.with_includes(source)]
    return {file: sha256_file(file) for file in files}


def _require_record(folder: Path, hashes: dict[Path, str]) -> None:
    """Hold installed models to the hashes of their record; models of another origin have none."""
    record = _record_above(folder)
    if record is None:
        return
    home = record.parent
    try:
        recorded: dict[str, str] = json.loads(record.read_text(encoding="utf-8"))["files"]
        changed = [file for file, sha in hashes.items() if recorded.get(str(file.relative_to(home))) != sha]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadDataError(f"{record}: cannot be read ({error}). Remove that folder and install again.") from None
    if changed:
        raise BadDataError(
            f"{home}: {len(changed)} model files are not what was installed, first {changed[0]}. Remove that folder "
            "and install again with 'kcnet pdk install'; keep models of your own elsewhere."
        )


def _record_above(folder: Path) -> Path | None:
    return next((home / RECORD for home in (folder, *folder.parents) if (home / RECORD).is_file()), None)


def pdk_list() -> list[Listed]:
    """The shipped kits, where the models of each are, and how to get those that are not here."""
    listed = []
    for name in shipped_pdks():
        pdk = load_pdk(name)
        try:
            folder, origin = locate(pdk)
            listed.append(Listed(name, pdk.description, f"{folder} ({origin})", ""))
        except InvalidInputError as error:  # a folder that should have them lacks files
            listed.append(Listed(name, pdk.description, "", str(error)))
        except KcnetError:
            listed.append(Listed(name, pdk.description, "", how_to_get(pdk)))
    return listed
