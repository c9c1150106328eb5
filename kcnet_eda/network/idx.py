"""MNIST's idx files, gzipped or not, found, checked and read.

Source of the format: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits".
"""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.errors import InvalidInputError

Bytes = NDArray[np.uint8]

DATA_VARIABLE = "KCNET_DATA"
PREFIX = {"train": "train", "test": "t10k"}
_IMAGES, _LABELS = "{}-images-idx3-ubyte", "{}-labels-idx1-ubyte"
_LARGEST = 1 << 30


def read_mnist(part: str, data_dir: Path | None = None) -> tuple[Bytes, Bytes]:
    """Images [n, rows, columns] and labels [n] of MNIST's ``train`` or ``test`` part.

    The files are looked for in ``data_dir``, or else in the folder ``$KCNET_DATA``: in its folder ``mnist``, then in
    itself.

    Raises
    ------
    InvalidInputError
        They are not there, or are not whole idx files of as many images as labels.
    """
    names = [name.format(PREFIX[part]) for name in (_IMAGES, _LABELS)]
    image_path, label_path = _find(names, data_dir)
    images, labels = _read_idx(image_path, 3), _read_idx(label_path, 1)
    problems = []
    if len(images) != len(labels):
        problems.append(f"has {len(labels)} labels for the {len(images)} images of {image_path.name}")
    elif labels.max(initial=0) > 9:
        problems.append(f"has labels up to {labels.max()}; digits end at 9")
    if problems:
        raise InvalidInputError(str(label_path), problems)
    return images, labels


def _find(names: list[str], data_dir: Path | None) -> list[Path]:
    chosen = data_dir or os.environ.get(DATA_VARIABLE)
    remedy = f"Name the folder that has mnist/ or the files in it: --data-dir DIR, or ${DATA_VARIABLE}."
    if not chosen:
        raise InvalidInputError("MNIST", [f"is not shipped; it is four files: {_all_names()}"], remedy)
    for folder in (Path(chosen) / "mnist", Path(chosen)):
        found = [next((p for p in (folder / n, folder / f"{n}.gz") if p.is_file()), None) for n in names]
        if paths := [p for p in found if p is not None]:
            if len(paths) == len(names):
                return paths
            missing = ", ".join(n for n, p in zip(names, found, strict=True) if p is None)
            raise InvalidInputError(str(folder), [f"has no {missing} (nor its .gz)"])
    raise InvalidInputError(str(chosen), [f"has not MNIST's four files {_all_names()}"], remedy)


def _all_names() -> str:
    return ", ".join(name.format(p) for p in PREFIX.values() for name in (_IMAGES, _LABELS)) + " (or .gz of each)"


def _read_idx(path: Path, n_dims: int) -> Bytes:
    """The bytes of an idx file of ``n_dims`` dimensions, no more of it unpacked than its header tells."""
    where, head = str(path), 4 + 4 * n_dims
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            header = stream.read(head)
            if len(header) < head:
                raise InvalidInputError(where, ["is truncated within its header"])
            if header[:4] != bytes([0, 0, 8, n_dims]):
                raise InvalidInputError(
                    where, [f"is no idx file of bytes in {n_dims} dimensions: starts {header[:4]!r}"]
                )
            shape = [int(n) for n in np.frombuffer(header, ">u4", n_dims, 4)]
            size = int(np.prod(shape, dtype=object))
            if not 1 <= size <= _LARGEST:
                raise InvalidInputError(where, [f"its header tells of {shape} values, which cannot be"])
            content = stream.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidInputError(where, [f"cannot be read: {error}"]) from None
    if len(content) != size:
        amount = "truncated" if len(content) < size else "longer than its header tells"
        raise InvalidInputError(where, [f"is {amount}: it should hold {size} values after the header"])
    return np.frombuffer(content, np.uint8).reshape(shape)
