"""A generative network's output as a distribution: how far the circuit's points are from the software's."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.dynamics.engine import evolve
from kcnet_eda.network.data import DataSet, gaussian
from kcnet_eda.network.graph import Network
from kcnet_eda.network.toy import TOYS
from kcnet_eda.study.two_sample import energy_distance

Floats = NDArray[np.float64]

_OTHER_SEED = 2024  # of the independent points; written into the record
_STEPS = 200


def generates(data: DataSet) -> bool:
    """Whether a network makes points of these samples, not labels: they are Gaussian."""
    return data.name.startswith("gaussian")


def two_sample(network: Network, data: DataSet, v: Floats, v_ref: Floats) -> dict[str, Any] | None:
    """Energy distances of the circuit's final states ``v`` and the software's ``v_ref`` [n, nodes] (rows that ended
    well), both to as many independent points of the software, and to the network's known distribution. None for data
    that are not Gaussian samples.

    The circuit is as good as the software where the two distances to the same points are alike: a distance between
    finite samples of one distribution is not 0.
    """
    if not generates(data):
        return None
    n = len(v)
    start = network.initial_state(gaussian(n, network.inputs.size, _OTHER_SEED).x)
    other = evolve(network, start, steps=_STEPS, dtype=np.float64).v_end[:, network.readout]
    circuit, software = v[:, network.readout], v_ref[:, network.readout]
    found: dict[str, Any] = {
        "n": n,
        "seed": _OTHER_SEED,
        "circuit_to_other_software": energy_distance(circuit, other),
        "software_to_other_software": energy_distance(software, other),
        "circuit_to_software": energy_distance(circuit, software),
    }
    bench = network.record.get("imported", {}).get("test_bench")
    if bench in TOYS:
        true = TOYS[bench](n, np.random.default_rng(_OTHER_SEED))
        found |= {
            "distribution": bench,
            "circuit_to_distribution": energy_distance(circuit, true),
            "software_to_distribution": energy_distance(software, true),
        }
    return found
