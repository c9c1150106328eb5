"""Files: written whole or not at all, never over somebody's work, hashed, and where the package's own lie."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kcnet_eda.errors import InvalidInputError, KcnetError

_PACKAGE = Path(__file__).resolve().parent


def resource_dir(name: str) -> Path:
    """The folder ``veriloga``, ``jinja_templates``, ``examples`` or ``pdk_examples``: in a wheel inside the package, in
    a checkout beside it."""
    for candidate in (_PACKAGE / name, _PACKAGE.parent / name):
        if candidate.is_dir():
            return candidate
    raise KcnetError(f"the installation is incomplete: its folder {name}/ is missing. Install kcnet_eda again.")


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a file so that a reader, or a crash, or a full disk, meets the old content or the new, never a part."""
    raw = data.encode() if isinstance(data, str) else data
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(raw)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise KcnetError(f"{path}: could not be written: {error.strerror}. Nothing was changed.") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def require_writable(folder: Path) -> None:
    """Make ``folder`` if need be; raise :class:`KcnetError` where nothing can be written to it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise KcnetError(f"{folder}: cannot be written to: {error.strerror}") from error


def require_free(path: Path, claims: Callable[[Path], list[str]]) -> None:
    """Raise :class:`InvalidInputError` where ``path`` holds somebody's work, as :func:`build_folder` does, whose
    ``claims`` this takes: before the work that fills the folder."""
    path = path.resolve()
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        reasons = claims(path) if path.is_dir() else ["is a file"]
        if reasons:
            raise InvalidInputError(str(path), reasons, "Name a new folder, or remove this one yourself.")


@contextmanager
def build_folder(path: Path, claims: Callable[[Path], list[str]]) -> Iterator[Path]:
    """Give a scratch folder that becomes ``path`` when the block ends well, and vanishes when it does not.

    An existing ``path`` is replaced only if it is an empty folder, or one in which ``claims`` finds nothing that
    somebody may want to keep: it returns the reasons why not, in words.

    Raises
    ------
    InvalidInputError
        ``path`` exists and holds somebody's work.
    """
    require_free(path, claims)
    path = path.resolve()
    scratch = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        scratch.chmod(0o755)
        yield scratch
        if path.exists():
            retired = scratch.with_name(scratch.name + ".old")
            path.rename(retired)
            scratch.rename(path)
            shutil.rmtree(retired)
        else:
            scratch.rename(path)
    except OSError as error:
        raise KcnetError(f"{path}: could not be written: {error.strerror or error}. It is as it was before.") from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def hold_folder(path: Path) -> Iterator[None]:
    """Hold ``path`` (made if need be) against every other process until the block ends, however it ends.

    Raises
    ------
    KcnetError
        Another process holds it, or it cannot be written to.
    """
    require_writable(path)
    with (path / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise KcnetError(f"{path}: another kcnet is at work in it. Wait for it, or name another --out.") from None
        yield


def sha256_bytes(data: bytes) -> str:
    """Hexadecimal SHA-256 of some bytes."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    return sha256_bytes(path.read_bytes())


def cache_dir() -> Path:
    """Where compiled devices are kept: ``$KCNET_CACHE``, or the user's cache folder."""
    if chosen := os.environ.get("KCNET_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kcnet_eda"
