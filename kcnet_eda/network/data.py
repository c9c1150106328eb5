"""Data sets: inputs in model units, labels where known."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.errors import InvalidInputError
from kcnet_eda.network.idx import read_mnist

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

#: The digits' fixed split: stratified, a quarter for testing, by this seed.
DIGITS_SPLIT_SEED = 0

#: The names that :func:`load_data` knows, for people.
DATA_NAMES = (
    "digits, digits:train, digits:test, digits:all, mnist:train, mnist:test, gaussian:N, "
    "or a FILE.npz with arrays x and y"
)
_GAUSSIAN_SAMPLES, _MOST_GAUSSIAN = 1000, 1_000_000


@dataclass(frozen=True, eq=False)
class DataSet:
    """``x`` [n, features] in model units, ``y`` [n] or None, ``index`` [n] within the whole set, and the image
    grid (rows, columns) where the features are pixels."""

    name: str
    x: Floats
    y: Labels | None
    index: Labels
    grid: tuple[int, int] | None = None

    def __len__(self) -> int:
        return int(self.x.shape[0])

    def rows(self, rows: Labels | slice, name: str) -> DataSet:
        """Some of the samples, under another name."""
        return DataSet(name, self.x[rows], None if self.y is None else self.y[rows], self.index[rows], self.grid)

    def draw(self, n: int | None, seed: int) -> DataSet:
        """``n`` samples drawn by ``seed`` (all where None), in the order of the set; errors as of :meth:`head`."""
        wanted = len(self.head(n))
        rows = np.sort(np.random.default_rng(seed).choice(len(self), wanted, replace=False))
        return self.rows(rows, self.name if n is None else f"{self.name}, drawn by seed {seed}")

    def head(self, n: int | None) -> DataSet:
        """The first ``n`` samples; all where ``n`` is None.

        Raises
        ------
        InvalidInputError
            More are asked for than there are, or none.
        """
        if n is None:
            return self
        if not 1 <= n <= len(self):
            raise InvalidInputError(
                f"--samples {n}", [f"{self.name} has {len(self)} samples"], f"Ask for 1 to {len(self)}."
            )
        return self.rows(slice(n), self.name)


def digits(part: str = "test") -> DataSet:
    """scikit-learn's bundled 8x8 digits (1,797 images), pixels scaled to 0..1.

    ``part`` is ``train`` (1,347), ``test`` (450) or ``all``: a stratified split, fixed by ``DIGITS_SPLIT_SEED``.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    x = bunch.data.astype(np.float64) / 16.0
    y = bunch.target.astype(np.int64)
    everything = np.arange(len(y))
    train, test = train_test_split(everything, test_size=0.25, stratify=y, random_state=DIGITS_SPLIT_SEED)
    index = {"train": np.sort(train), "test": np.sort(test), "all": everything}[part]
    return DataSet(f"digits:{part}", x[index], y[index], index, (8, 8))


def mnist(part: str = "test", data_dir: Path | None = None, *, samples: int | None = None, seed: int = 0) -> DataSet:
    """MNIST's ``train`` (60,000) or ``test`` (10,000) images, pixels scaled to 0..1, from its idx files in
    ``data_dir`` or ``$KCNET_DATA`` (:func:`kcnet_eda.network.idx.read_mnist`); ``samples`` of them are drawn by
    ``seed``, all taken where None.

    Raises
    ------
    InvalidInputError
        The files are not there or not whole.
    """
    images, labels = read_mnist(part, data_dir)
    index = np.arange(len(images))
    if samples is not None:
        index = np.sort(np.random.default_rng(seed).choice(len(images), min(samples, len(images)), replace=False))
    x = images[index].reshape(len(index), -1) / 255.0
    return DataSet(f"mnist:{part}", x, labels[index].astype(np.int64), index, (images.shape[1], images.shape[2]))


def gaussian(n: int, features: int, seed: int = 0) -> DataSet:
    """``n`` standard normal samples of ``features`` values, the same for the same ``seed``: what the published
    generative networks start from."""
    x = np.random.default_rng(seed).standard_normal((n, features))
    return DataSet(f"gaussian:{n}", x, None, np.arange(n))


def load_data(name: str, data_dir: Path | None = None, *, features: int | None = None, seed: int = 0) -> DataSet:
    """A data set by its command-line name: ``digits`` or ``digits:train|test|all``, ``mnist`` or ``mnist:train|test``,
    ``gaussian`` or ``gaussian:N`` (1,000 samples if not told), or a ``FILE.npz`` with ``x`` [n, features] and
    optionally ``y`` [n].

    ``data_dir`` has MNIST's files; ``features`` is what the network takes, and ``seed`` draws, Gaussian samples.

    Raises
    ------
    InvalidInputError
        The name is unknown, or a file is missing or unusable.
    """
    family, _, part = name.partition(":")
    if family == "digits" and part in ("", "train", "test", "all"):
        return digits(part or "test")
    if family == "mnist" and part in ("", "train", "test"):
        return mnist(part or "test", data_dir)
    if family == "gaussian" and features is not None:
        count = _GAUSSIAN_SAMPLES if not part else int(part) if part.isdecimal() and len(part) < 8 else 0
        if not 1 <= count <= _MOST_GAUSSIAN:
            raise InvalidInputError(f"--data {name}", [f"gaussian:N takes 1 to {_MOST_GAUSSIAN:,} samples"])
        return gaussian(count, features, seed)
    if name.endswith(".npz"):
        return _from_npz(Path(name))
    raise InvalidInputError(f"--data {name}", ["is not a known data set"], f"Use {DATA_NAMES}.")


def _from_npz(path: Path) -> DataSet:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except FileNotFoundError:
        raise InvalidInputError(str(path), ["no such file"]) from None
    except (OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        raise InvalidInputError(str(path), [f"is not a readable .npz: {error}"]) from None
    problems = []
    x, y = arrays.get("x"), arrays.get("y")
    if x is None:
        problems.append(f"has no array x (found: {', '.join(arrays) or 'nothing'})")
    elif x.ndim != 2 or x.shape[0] == 0 or x.dtype.kind not in "fiu":
        problems.append(f"x must be numbers of shape [n, features], not {x.dtype} {x.shape}")
    elif not np.isfinite(x).all():
        problems.append(f"x has {np.count_nonzero(~np.isfinite(x))} values that are not finite")
    elif y is not None and (y.shape != (x.shape[0],) or y.dtype.kind not in "iu"):
        problems.append(f"y must be integers of shape [{x.shape[0]}], not {y.dtype} {y.shape}")
    if problems or x is None:
        raise InvalidInputError(str(path), problems)
    return DataSet(path.name, x.astype(np.float64), None if y is None else y.astype(np.int64), np.arange(len(x)))
