"""The ``*.kcnet`` file: safetensors arrays under a JSON header. Never pickle; round-trip exact."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from kcnet_eda.errors import InvalidInputError
from kcnet_eda.files import resource_dir, write_atomic
from kcnet_eda.network.graph import Edges, Network, Phase
from kcnet_eda.network.laws import PHI_NAMES
from kcnet_eda.network.validate import check

FORMAT_VERSION = 2
_HEADER = "kcnet"
_COLUMNS = tuple(f.name for f in fields(Edges))


def dump_network(network: Network) -> bytes:
    """The bytes of a ``*.kcnet`` file; the same network always gives the same bytes."""
    header = {
        "format_version": FORMAT_VERSION,
        "name": network.name,
        "laws": list(PHI_NAMES),
        "phases": [
            {"n_nodes": p.n_nodes, "duration": p.duration, "fill": p.fill, "residual_from": p.residual_from}
            for p in network.phases
        ],
        "node_names": list(network.node_names),
        "record": dict(network.record),
    }
    arrays: dict[str, np.ndarray] = {"inputs": network.inputs, "readout": network.readout, "examples": network.examples}
    for i, phase in enumerate(network.phases):
        arrays |= {f"phase{i}.{column}": getattr(phase.edges, column) for column in _COLUMNS}
    return save(arrays, metadata={_HEADER: json.dumps(header, sort_keys=True, allow_nan=False)})


def save_network(network: Network, path: Path) -> None:
    """Check ``network`` and write it to ``path``, whole or not at all.

    Raises
    ------
    InvalidInputError
        The network is not valid.
    KcnetError
        The file could not be written.
    """
    check(network, f"network {network.name!r}")
    write_atomic(path, dump_network(network))


def network_path(name: str | Path) -> Path:
    """The file of a network: a path, or the name of one that ships with the package (``digits``)."""
    path = Path(name)
    if path.exists() or path.suffix:
        return path
    shipped = resource_dir("examples") / f"{name}.kcnet"
    if shipped.is_file():
        return shipped
    known = ", ".join(sorted(p.stem for p in resource_dir("examples").glob("*.kcnet")))
    raise InvalidInputError(str(name), ["no such file, and no network of this name is shipped"], f"Shipped: {known}.")


def load_network(path: Path) -> Network:
    """Read and check a ``*.kcnet`` file.

    Raises
    ------
    InvalidInputError
        No such file, not this format, of a newer version, or not a valid network (every problem is listed).
    """
    try:
        return parse_network(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise InvalidInputError(str(path), ["no such file"]) from None
    except OSError as error:
        raise InvalidInputError(str(path), [f"cannot be read: {error.strerror}"]) from None


def parse_network(data: bytes, where: str) -> Network:
    """The network in the bytes of a ``*.kcnet`` file, checked; ``where`` names it in errors."""
    try:
        # The file's own layout: 8 bytes of header length, the JSON header, the arrays.
        metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
        arrays = load(data)
        text = metadata.get(_HEADER)
        header = None if text is None else json.loads(text)
    except (SafetensorError, ValueError, AttributeError, RecursionError) as error:
        raise InvalidInputError(where, [f"is not a whole kcnet file: {error}"], "Copy or save it again.") from None
    if not isinstance(header, dict):
        raise InvalidInputError(where, ["is a safetensors file, but not a kcnet network: no 'kcnet' header"])
    version = header.get("format_version")
    if not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
        raise InvalidInputError(
            where,
            [f"has format version {version}; this kcnet_eda reads up to {FORMAT_VERSION}"],
            "Update kcnet_eda, or save the network again with this version.",
        )
    if header.get("laws") != list(PHI_NAMES):
        raise InvalidInputError(where, [f"numbers the laws as {header.get('laws')}, not as {list(PHI_NAMES)}"])
    network = _assemble(where, header, arrays)
    check(network, where)
    return network


def _assemble(where: str, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> Network:
    try:
        phases = tuple(
            Phase(
                int(p["n_nodes"]),
                float(p["duration"]),
                Edges(**{column: arrays[f"phase{i}.{column}"] for column in _COLUMNS}),
                p.get("fill", "zeros"),  # version 1 had no such choices
                p.get("residual_from"),
            )
            for i, p in enumerate(header["phases"])
        )
        return Network(
            header["name"],
            phases,
            arrays["inputs"],
            arrays["readout"],
            tuple(header["node_names"]),
            arrays["examples"],
            dict(header["record"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInputError(where, [f"the kcnet header or arrays are incomplete: {error!r}"]) from None
