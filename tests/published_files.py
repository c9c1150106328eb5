"""Published networks of any make, and the real ones where they are at hand."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch", reason="NOT RUN: torch is not installed")


def data_dir() -> Path:
    """The folder that has MNIST and the official checkpoints: ``$KCNET_DATA``, or shared/data beside the checkout."""
    return Path(os.environ.get("KCNET_DATA") or Path(__file__).parents[2] / "shared" / "data")


def official(name: str) -> Path:
    """An official checkpoint; the test is skipped where it is not at hand."""
    path = data_dir() / "official_checkpoints" / name
    if not path.is_dir():
        pytest.skip(f"NOT TESTED: no official checkpoint {path}; set KCNET_DATA to the folder that has it")
    return path


def config(net_struct=None, law="ShiftTanh2", args=None, t_end=None, bench=None, **network) -> dict:
    net_struct = net_struct or [full(4)]
    t_end = t_end or list(range(len(net_struct) + 1))
    model = {"name": law, "args": args or {}}
    content = {"network": {"net_struct": net_struct, "model": model, **network}, "simulation": {"t_end": t_end}}
    return content | ({"test_bench": bench} if bench else {})


def full(num_node: int, repeat=(1, 1), **args) -> dict:
    return {"name": "_fully_connect", "args": {"num_node": num_node, "repeat": list(repeat), **args}}


def params(*columns: int, rows: int = 3, seed: int = 0) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(seed)
    return {
        f"circuit.layer_list.{i}.model.param": torch.tensor(rng.normal(0, 0.5, (rows, n)), dtype=torch.float32)
        for i, n in enumerate(columns)
    }


def write(folder: Path, content: dict | str, tensors: object, **options) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if not isinstance(content, str):
        content = yaml.safe_dump(json.loads(json.dumps(content)))  # every list its own: no aliases
    (folder / "config.yaml").write_text(content)
    if isinstance(tensors, bytes):
        (folder / "model.pth").write_bytes(tensors)
    elif tensors is not None:
        torch.save(tensors, folder / "model.pth", **options)
    return folder
