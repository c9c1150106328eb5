"""Networks of a few cells, small enough for tests, and runs of every kind of one: the whole chain, and latency."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import numpy as np
from conftest import make_network

from kcnet_eda import api
from kcnet_eda.network.graph import Edges, Network, Phase
from kcnet_eda.network.laws import RELU, eq6
from kcnet_eda.network.store import save_network

#: Twelve conditions, so that the names below the heat map have little room.
_PVT = """
network: {net}
data: {data}
pdk: generic180
corners: [tt, ss]
supplies: ["-10%", "0%"]
temperatures: [-40, 27, 125]
dies: 4
mismatch: {{sigma_gain: 0.05, sigma_offset: 0.025}}
repeat: 3
chain: 5
limits: {{accuracy: {{minimum: 0.1}}, yield: {{minimum: 1.0}}}}
"""
_LATENCY = """
network: {net}
data: {data}
scaling: {{samples: 1, smallest: 2, simulators: [ngspice, vacask]}}
size: {{edges: [300, 700], networks: ['{net}'], vacask_above: 500, ngspice_up_to: 800}}
decision: {{draws: 20}}
inference: {{samples: 2, draws: 1}}
physical: {{network: '{net}', data: '{data}', samples: 2, t_units: [300n, 20n], drops: [0.1], noise_draws: 1,
  noise_samples: 2, capacitances: [1p, 1f, 10a]}}
"""
_ONE_T = """
network: {net}
data: {data}
scaling: null
size: null
decision: null
inference: null
physical: {{network: '{net}', data: '{data}', samples: 2, t_units: [1u], drops: [], capacitances: []}}
"""


def ring(theta, name="ring", duration=2.0):
    """Three nodes, both directions between each two, Eq. (6) edges."""
    source, target = np.array([(s, d) for s in (1, 2, 3) for d in (1, 2, 3) if s != d]).T
    a, b, c, k = eq6(*np.array(theta, dtype=float).T)
    edges = Edges(source, target, a, b, c, k, np.full(6, RELU))
    return Network(name, (Phase(4, duration, edges),), [1, 2], [2, 3], examples=[[0.4, -0.9], [1.0, 0.5]])


RING = ring([(1.1, 0.64), (0.7, 0.69), (-0.3, -0.4), (-0.42, -0.18), (0.35, -0.45), (0.77, -0.28)])


def make_cells(root: Path) -> tuple[Path, Path]:
    """The network's file and that of its data, in ``root``."""
    rows = [(1, 2, 1.0, -1.0, 0.0, 1.0, RELU), (2, 3, 0.8, -0.8, 0.5, 1.0, RELU), (3, 1, 1.2, -1.2, 0.2, 1.0, RELU)]
    net, data = root / "cells.kcnet", root / "data.npz"
    save_network(make_network(rows, 4, examples=[[1.0, 0.2, -0.5]]), net)
    x = np.array([[1.0, 0.0, 0.2], [0.1, 0.9, 0.3], [0.2, 0.1, 1.0], [0.9, 0.3, 0.5], [0.0, 0.2, 0.9], [0.3, 0.8, 0.1]])
    np.savez(data, x=x, y=x.argmax(axis=1))
    return net, data


def make_latency(root: Path, net: Path, data: Path, name: str = "latency") -> Path:
    """The run folder of a latency study: ``latency`` has every section, ``one_t`` transistors at a single T."""
    file = root / f"{name}.yaml"
    file.write_text({"latency": _LATENCY, "one_t": _ONE_T}[name].format(net=net, data=data))
    api.study_latency(file, root / name, jobs=1)
    return root / name


def make_runs(root: Path) -> dict[str, Path]:
    """Run folders in ``root`` by name: engine, ngspice, vacask, mos, pvt, latency, one_t."""
    net, data = make_cells(root)
    runs = {name: root / name for name in ("engine", "ngspice", "vacask", "mos", "pvt")}
    for name in ("engine", "ngspice", "vacask"):
        api.simulate(net, runs[name], data=str(data), simulator=name, jobs=1)
    api.export(net, root / "bundle", level="mos", pdk="generic180", t_unit=300e-9)
    api.simulate(root / "bundle", runs["mos"], data=str(data), samples=4, jobs=1)
    file = root / "pvt.yaml"
    file.write_text(_PVT.format(net=net, data=data))
    api.study_pvt(file, runs["pvt"])
    return runs | {name: make_latency(root, net, data, name) for name in ("latency", "one_t")}


def published(name):
    """What the schema ``docs/<name>.schema.json`` says a record is."""
    schema = json.loads((Path(__file__).parents[1] / f"docs/{name}.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)
