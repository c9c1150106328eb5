"""Parameter files of others, untrusted: ``*.pth`` and ``*.npz`` as plain arrays, and no code of theirs is run."""

from __future__ import annotations

import io
import pickletools
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.errors import InvalidInputError, KcnetError

Floats = NDArray[np.float64]

_LARGEST_FILE = 1 << 30
_MOST_STEPS = 100_000  # of a pickle; a tensor takes some forty
_MOST_SHARED = 4  # times the file: what tensors that share a storage may amount to
_LARGEST_PICKLE = 1 << 20  # it holds names and shapes only
_REMEDY = "A checkpoint holds tensors by name and nothing else; save the model's state_dict. Nothing in it was run."


def inspect(path: Path) -> None:
    """Judge a file by its outside, before anything in it is loaded.

    Raises
    ------
    InvalidInputError
        It is missing, too large, would unpack to more than it is, or names objects that are not tensors.
    """
    _vetted(path)


def read_arrays(path: Path) -> dict[str, Floats]:
    """The arrays of a ``*.npz``, or the tensors of a ``*.pth`` (a state_dict, in torch's present or older format), as
    float64 by name.

    Raises
    ------
    InvalidInputError
        What :func:`inspect` refuses; it is damaged, holds anything but tensors of numbers, or values that are not
        finite.
    KcnetError
        torch is not installed, which reads ``*.pth``.
    """
    raw = _vetted(path)
    found = _load_npz(raw, path) if path.suffix == ".npz" else _load_torch(raw, path)
    problems = []
    arrays: dict[str, Floats] = {}
    for name, values in found.items():
        if values.dtype.kind not in "fiu":
            problems.append(f"{name} holds {values.dtype}, not numbers")
            continue
        arrays[name] = values.astype(np.float64)
        bad = np.count_nonzero(~np.isfinite(arrays[name]))
        if bad:
            problems.append(f"{name} has {bad} of {values.size} values that are not finite")
    if problems:
        raise InvalidInputError(str(path), problems)
    return arrays


def _vetted(path: Path) -> bytes:
    where = str(path)
    if path.exists() and not path.is_file():  # a pipe would be waited for, a device never ends
        raise InvalidInputError(where, ["is not a regular file"])
    try:
        with path.open("rb") as stream:
            raw = stream.read(_LARGEST_FILE + 1)
    except FileNotFoundError:
        raise InvalidInputError(where, ["no such file"]) from None
    except OSError as error:
        raise InvalidInputError(where, [f"cannot be read: {error.strerror}"]) from None
    if len(raw) > _LARGEST_FILE:
        raise InvalidInputError(where, [f"is larger than {_LARGEST_FILE >> 30} GiB, too large for a checkpoint"])
    try:
        if zipfile.is_zipfile(io.BytesIO(raw)):
            _vet_zip(raw, where, _LARGEST_FILE if path.suffix == ".npz" else len(raw))  # torch never compresses
        elif path.suffix == ".npz":
            raise InvalidInputError(where, ["is not a readable .npz: no zip archive"])
        else:
            _vet_pickle(raw, where, stop_at_arrays=True)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError, EOFError) as error:
        raise InvalidInputError(where, [f"is damaged or no checkpoint: {error}"], _REMEDY) from None
    return raw


def _vet_zip(raw: bytes, where: str, largest: int) -> None:
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        members = archive.infolist()
        unpacked = sum(m.file_size for m in members)
        if unpacked > largest:
            raise InvalidInputError(where, [f"would unpack to {unpacked:.3g} bytes, more than {largest:.3g}"], _REMEDY)
        for member in members:
            if member.filename.endswith(".pkl"):
                if member.file_size > _LARGEST_PICKLE:
                    raise InvalidInputError(where, [f"its {member.filename} has {member.file_size} bytes, too many"])
                _vet_pickle(archive.read(member), where, stop_at_arrays=False)


def _vet_pickle(raw: bytes, where: str, stop_at_arrays: bool) -> None:
    """Read a pickle's opcodes, without running them, for the objects that it asks for.

    In torch's older format several pickles follow each other and arrays follow them, with ``stop_at_arrays``.
    """
    stream = io.BytesIO(raw)
    foreign: set[str] = set()
    steps = 0
    for number in range(5 if stop_at_arrays else 1):
        if number and stream.tell() == len(raw):
            break
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name in ("GLOBAL", "INST") and not _is_of_tensors(str(argument)):
                foreign.add(str(argument).replace(" ", "."))
            elif opcode.name == "STACK_GLOBAL":
                foreign.add("an object named at run time")
            steps += 1
            if stream.tell() > _LARGEST_PICKLE or steps > _MOST_STEPS:
                raise InvalidInputError(where, ["its pickled part is too large for a checkpoint"], _REMEDY)
    if foreign:
        raise InvalidInputError(where, [f"holds more than tensors: it asks for {', '.join(sorted(foreign))}"], _REMEDY)


def _is_of_tensors(name: str) -> bool:
    module, _, attribute = name.partition(" ")
    if module == "torch":
        return attribute.endswith("Storage") or attribute in ("Size", "float16", "float32", "float64", "int64")
    return (module, attribute) in (
        ("collections", "OrderedDict"),
        ("torch._utils", "_rebuild_tensor_v2"),
        ("torch._utils", "_rebuild_parameter"),
    )


def _load_npz(raw: bytes, path: Path) -> dict[str, NDArray[np.generic]]:
    try:
        with np.load(io.BytesIO(raw), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        raise InvalidInputError(str(path), [f"is not a readable .npz: {error}"]) from None


def _load_torch(raw: bytes, path: Path) -> dict[str, NDArray[np.generic]]:
    try:
        import torch
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise KcnetError(
            "reading a .pth file needs torch: pip install 'kcnet_eda[train]', or torch's CPU build."
        ) from None

    try:
        content = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes torch raise errors of a dozen kinds
        reason = (str(error).splitlines() or [""])[0][:100]
        problem = f"is damaged or no checkpoint: {type(error).__name__}: {reason}"
        raise InvalidInputError(str(path), [problem], _REMEDY) from None
    if not isinstance(content, dict):
        raise InvalidInputError(str(path), [f"holds a {type(content).__name__}, not tensors by name"], _REMEDY)
    problems = []
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            problems.append(f"{name!r:.60} is a {type(value).__name__}, not a tensor by name")
        elif value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
            problems.append(f"{name} is not a plain tensor of numbers")
        elif value.numel() * value.element_size() > value.untyped_storage().nbytes():
            problems.append(f"{name} has the shape {tuple(value.shape)}, but not that many values")
    if problems:
        raise InvalidInputError(str(path), problems, _REMEDY)
    # Tensors may share one storage, so a small file can name more values than any memory holds: counted before a copy.
    named = sum(value.numel() * value.element_size() for value in content.values())
    if named > _MOST_SHARED * len(raw):
        problem = f"its tensors have {named:.3g} bytes together, the file has {len(raw):.3g}: they share their values"
        raise InvalidInputError(str(path), [problem], _REMEDY)
    return {
        name: (value.detach().double() if value.is_floating_point() else value.detach()).numpy()
        for name, value in content.items()
    }
