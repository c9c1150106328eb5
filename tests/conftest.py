"""Small networks with known answers, and the tools the tests run."""

from __future__ import annotations

import os
import stat
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made_up_kit import write_moon

from kcnet_eda.errors import KcnetError, ToolFailedError
from kcnet_eda.network.graph import Edges, Network, Phase
from kcnet_eda.network.laws import IDENTITY, RELU
from kcnet_eda.network.store import load_network, network_path
from kcnet_eda.physical.pdk import Pdk, load_pdk
from kcnet_eda.tools.pdk import locate
from kcnet_eda.tools.pdk_install import pdk_install

Row = tuple[int, int, float, float, float, float, int]


def make_network(
    rows: list[Row],
    n_nodes: int,
    duration: float = 1.0,
    inputs: list[int] | None = None,
    readout: list[int] | None = None,
    examples: list[list[float]] | None = None,
) -> Network:
    """A one-phase network from (source, target, a, b, c, k, φ) rows; every node is an input unless told."""
    columns = [list(column) for column in zip(*rows, strict=True)]
    inputs = inputs or list(range(1, n_nodes))
    return Network(
        "small",
        (Phase(n_nodes, duration, Edges(*columns)),),
        inputs,
        readout or inputs,
        examples=np.array(examples if examples is not None else np.empty((0, len(inputs)))),
    )


def installed_kit(name: str) -> Pdk:
    """A shipped process kit with its models on this machine; where they cannot be fetched, the test is left out and
    says so aloud."""
    pdk = load_pdk(name)
    try:
        locate(pdk)
    except KcnetError:
        try:
            pdk_install(name)
        except ToolFailedError as error:
            warnings.warn(f"NO REAL PROCESS KIT WAS TESTED: {error}", stacklevel=2)
            pytest.skip(f"NOT TESTED: the models of {name} cannot be fetched: {error}")
    return pdk


def rc_pair(g: float = 1.0) -> Network:
    """Two capacitors joined by a conductance: the difference decays as exp(−2gτ), the sum stays."""
    return make_network([(1, 2, g, -g, 0.0, 1.0, IDENTITY)], 3, examples=[[1.0, -0.5]])


def driven_corner(theta1: float = 2.0, theta2: float = -0.5, current: float = 1.0) -> Network:
    """A source fills node 1; an Eq. (6) edge to node 2 opens when θ1·(v1 − v2) + θ2 crosses 0."""
    return make_network(
        [(1, 2, theta1, -theta1, theta2, 1.0, RELU), (0, 1, 0.0, 0.0, current, 1.0, IDENTITY)], 3, examples=[[0.0, 0.0]]
    )


def driven_corner_solution(theta1: float = 2.0, theta2: float = -0.5, current: float = 1.0) -> np.ndarray:
    """[v1, v2] of :func:`driven_corner` at τ = 1 from rest, in closed form."""
    opens = -theta2 / theta1
    at = opens / current
    rest = (current / 2 - theta2) / theta1
    u = rest + (opens - rest) * np.exp(-2 * theta1 * (1 - at))
    return np.array([(current + u) / 2, (current - u) / 2])


def decaying(*residual_from: int | None) -> Network:
    """One capacitor that decays by e in each phase; each adds the end of the phase that is named for it."""
    edges = make_network([(1, 0, 1.0, 0.0, 0.0, 1.0, IDENTITY)], 2).phases[0].edges
    phases = tuple(Phase(2, 1.0, edges, residual_from=earlier) for earlier in residual_from)
    return Network("decaying", phases, [1], [1], examples=np.array([[1.0]]))


_RATES = np.array([0.3, 0.8, 0.5, 1.1, 0.2])


def repeating() -> Network:
    """Two capacitors decay by e; then five, the last three begun as copies of the first two, at rates of their own."""
    first, second = (
        make_network([(n, 0, g, 0.0, 0.0, 1.0, IDENTITY) for n, g in enumerate(rates, start=1)], len(rates) + 1)
        for rates in ([1.0, 1.0], _RATES)
    )
    phases = (first.phases[0], Phase(6, 0.5, second.phases[0].edges, "repeat"))
    return Network("repeating", phases, [1, 2], [1, 3, 4], examples=np.array([[1.0, -0.6]]))


def repeating_solution(v1: float, v2: float) -> np.ndarray:
    """v(T) of the nodes 1 to 5 of :func:`repeating` from [v1, v2]."""
    return np.array([v1, v2, v1, v2, v1]) * np.exp(-1 - 0.5 * _RATES)


def random_network(seed: int, n_nodes: int = 7, n_edges: int = 30) -> Network:
    """All laws, parallel edges, ground edges, both signs of everything; rates of order one."""
    rng = np.random.default_rng(seed)
    source = rng.integers(0, n_nodes, n_edges)
    target = (source + rng.integers(1, n_nodes, n_edges)) % n_nodes
    a, b, c, k = rng.normal(0, 0.4, (4, n_edges))
    edges = Edges(source, target, a, b, c, k, rng.integers(0, 4, n_edges))
    nodes = np.arange(1, n_nodes)
    return Network(
        f"random{seed}", (Phase(n_nodes, 1.0, edges),), nodes, nodes[:3], examples=rng.uniform(-1, 1, (4, n_nodes - 1))
    )


@pytest.fixture(scope="session")
def digits_network() -> Network:
    return load_network(network_path("digits"))


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["KCNET_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def fake_program(tmp_path: Path) -> Callable[[str, str], Path]:
    """Write an executable shell script: ``fake_program(name, body)``."""

    def write(name: str, body: str) -> Path:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    return write


@pytest.fixture
def own_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decks of failed checks, which are kept, stay with the test; and no kit of this machine takes part."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    monkeypatch.delenv("PDK_ROOT", raising=False)


@pytest.fixture
def moon(tmp_path: Path) -> Path:
    """The file of a made-up kit."""
    return write_moon(tmp_path)
