"""Checkpoints of a training: written whole or not at all, and read only by the training that they are of."""

from __future__ import annotations

import io
import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kcnet_eda import __version__
from kcnet_eda.errors import InvalidInputError
from kcnet_eda.files import sha256_bytes, write_atomic
from kcnet_eda.network.data import DataSet

_FORMAT = 1


def digest(data: DataSet) -> str:
    """Of what a training sees of its data."""
    return sha256_bytes(data.x.tobytes() + (b"" if data.y is None else data.y.tobytes()))


@dataclass(frozen=True)
class Checkpoint:
    """The file of one training, and what must be the same when it goes on: its ``settings`` and a digest of its
    ``data``. It holds tensors and plain values, and is read as nothing else."""

    path: Path
    settings: dict[str, Any]
    data: str

    def save(self, state: dict[str, Any]) -> None:
        """Write ``state`` over what was there.

        Raises
        ------
        KcnetError
            The file could not be written; the one before is still there.
        """
        stamp = {"format": _FORMAT, "settings": json.dumps(self.settings), "data": self.data, "by": __version__}
        stream = io.BytesIO()
        torch.save(stamp | {"state": state}, stream)
        write_atomic(self.path, stream.getvalue())

    def load(self) -> dict[str, Any]:
        """The state last saved.

        Raises
        ------
        InvalidInputError
            There is none, it is damaged, or it is of other settings or data.
        """
        try:
            found = torch.load(self.path, weights_only=True)
            settings, data, version, state = (found[key] for key in ("settings", "data", "format", "state"))
            was = json.loads(settings)
        except FileNotFoundError:
            raise InvalidInputError(
                str(self.path), ["no such checkpoint to resume from"], "Leave --resume out to start."
            ) from None
        except (OSError, RuntimeError, ValueError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
            raise InvalidInputError(
                str(self.path), [f"is not a whole checkpoint: {error!s:.200}"], "Remove it and train from the start."
            ) from None
        problems = []
        if version != _FORMAT:
            problems.append(f"is a checkpoint of format {version}; this kcnet_eda reads {_FORMAT}")
        changed = [key for key in sorted(was.keys() | self.settings) if was.get(key) != self.settings.get(key)]
        problems += [f"is of another {key}: {was.get(key)}, not {self.settings.get(key)}" for key in changed]
        if data != self.data:
            problems.append("is of other data")
        if problems:
            raise InvalidInputError(
                str(self.path), problems, "Resume with the settings and data that it was made with, or remove it."
            )
        return dict(state)

    def require_absent(self) -> None:
        """Raise :class:`InvalidInputError` where an unfinished training has left its work here."""
        if self.path.exists():
            raise InvalidInputError(
                str(self.path),
                ["is the checkpoint of a training that was not finished"],
                "Go on from it with --resume, or remove it yourself.",
            )

    def remove(self) -> None:
        """When the training is finished and its network written."""
        self.path.unlink(missing_ok=True)
