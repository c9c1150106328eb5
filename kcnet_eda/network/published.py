"""Networks that others trained and stored: where their files lie, and which form they have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from kcnet_eda.config import check_settings, read_yaml
from kcnet_eda.errors import InvalidInputError
from kcnet_eda.files import sha256_file
from kcnet_eda.network import barebone, published_form
from kcnet_eda.network.checkpoint import inspect, read_arrays
from kcnet_eda.network.graph import Network
from kcnet_eda.network.validate import check

_CONFIG, _MODEL = "config.yaml", "model.pth"
T = TypeVar("T")


def read_published(path: Path, *, inputs: int | None = None) -> Network:
    """The network in the published format at ``path``: a folder with ``config.yaml`` and ``model.pth``, the path of
    the config, or of the parameter file beside a ``config.yaml``; also the form of
    :mod:`kcnet_eda.network.barebone`. Its ``record["imported"]`` says what was read and how.

    ``inputs`` is the number of nodes 1, 2, ... that hold the input, where the test bench does not tell.

    Raises
    ------
    InvalidInputError
        Files are missing, damaged or unsafe, or no circuit can do what they say; every problem is listed.
    KcnetError
        torch is not installed, which reads ``*.pth``.
    """
    if inputs is not None and inputs < 1:
        raise InvalidInputError(f"--inputs {inputs}", ["must be at least 1"])
    config_path, model_path = _locate(path)
    problems: list[str] = []
    config = _collect(problems, config_path, lambda: _read_config(config_path))
    _collect(problems, model_path, lambda: inspect(model_path))
    if config is None or problems:
        raise InvalidInputError(str(path), problems)
    arrays = read_arrays(model_path)
    settings: dict[str, Any]
    if isinstance(config, barebone.BareboneConfig):
        name, notes = config_path.resolve().parent.name, list[str]()
        network = barebone.assemble(config, arrays, inputs, name, str(path))
        settings = {
            "form": "barebone",
            "test_bench": None,
            "law": config.model_dump(include={"use_diff", "activation"}),
        }
        solver = {"t_end": config.t_end}
    else:
        name = config.test_bench or config_path.resolve().parent.name
        network, notes = published_form.assemble(config, arrays, inputs, name, str(path))
        law = config.network.model.model_dump()
        settings = {"form": "published", "test_bench": config.test_bench, "law": law}
        solver = config.simulation.model_dump()
    settings |= {"sha256": {"config": sha256_file(config_path), "model": sha256_file(model_path)}}
    settings |= {"solver": solver, "notes": notes}
    check(network, str(path))
    return Network(network.name, network.phases, network.inputs, network.readout, record={"imported": settings})


def _collect(problems: list[str], path: Path, read: Callable[[], T]) -> T | None:
    try:
        return read()
    except InvalidInputError as error:
        problems += [f"{path.name}: {problem}" for problem in error.problems]
        return None


def _locate(path: Path) -> tuple[Path, Path]:
    """The config and the parameter file that ``path`` means; whether they exist is seen when they are read."""
    if path.suffix in (".pth", ".pt", ".npz"):
        return path.with_name(_CONFIG), path
    if path.suffix in (".yaml", ".yml"):
        return path, _model_in(path.parent)
    if path.is_dir():
        return path / _CONFIG, _model_in(path)
    raise InvalidInputError(
        str(path),
        ["is not there" if not path.exists() else "is not a network in a published format"],
        f"Name a folder with {_CONFIG} and {_MODEL}, or one of these files.",
    )


def _model_in(folder: Path) -> Path:
    others = [p for pattern in ("*.pth", "*.pt", "*.npz") for p in folder.glob(pattern)]
    return others[0] if len(others) == 1 else folder / _MODEL


def _read_config(path: Path) -> published_form.PublishedConfig | barebone.BareboneConfig:
    content = read_yaml(path)
    if barebone.is_barebone(content):
        return check_settings(content, barebone.BareboneConfig, str(path))
    return check_settings(content, published_form.PublishedConfig, str(path))
