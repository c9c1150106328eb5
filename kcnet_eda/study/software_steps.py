"""The steps of the reconciliation chain that are software beside the reference: the trained network in torch's own
operations, and the network that the circuit's devices make. Both on a run's own samples, kept in its store.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.dynamics.engine import evolve
from kcnet_eda.dynamics.gradient import Solver
from kcnet_eda.export.circuit import Circuit
from kcnet_eda.files import sha256_bytes
from kcnet_eda.lowering.as_edges import as_edges
from kcnet_eda.network.graph import Network
from kcnet_eda.network.store import dump_network
from kcnet_eda.progress import Progress
from kcnet_eda.study.references import kept_states
from kcnet_eda.study.store import Store

Floats = NDArray[np.float64]

#: Names of the steps, as in the record; their final states are the arrays ``v_end_<name>``.
TORCH, LOWERED = "torch", "lowered"
_MOST = 100_000_000  # edges times samples: with more of them a step takes minutes, and is not run
_STEPS = 20  # of RK4 over a phase, where no training record says how the network was solved
_FINE = 200  # of RK4 over a phase: its error is far below what a merged device could be wrong by


@dataclass(frozen=True, eq=False)
class SoftwareStep:
    """A step's final states [n, nodes], in model units, and in words how they were found; no states, and why, where it
    was not run."""

    v_end: Floats | None
    said: str

    @property
    def record(self) -> dict[str, Any]:
        """Whether it was run, and how or why not."""
        return {"status": "not run" if self.v_end is None else "run", "said": self.said}


def software_steps(
    store: Store, network: Network, circuit: Circuit, x0: Floats, jobs: int, progress: Progress
) -> dict[str, SoftwareStep]:
    """Both steps from ``x0`` [n, nodes] on; what the store has of them is not solved again."""
    if network.n_edges * len(x0) > _MOST:
        why = f"{network.n_edges} edges times {len(x0)} samples are more than {_MOST:.0e}"
        return {TORCH: SoftwareStep(None, why), LOWERED: SoftwareStep(None, why)}
    lowered = lowered_network(network, circuit)
    passes = ", ".join(circuit.passes) or "none"
    how = f"RK4 of the fused kernel in double precision, {_FINE} steps a phase"
    devices = f"{circuit.n_devices} devices of {network.n_edges} edges, passes: {passes}; {how}"
    with progress.stage("software steps", 2) as advance:
        of_torch = _in_torch(store, network, x0)
        advance(1)
        v_end = _kept(store, how, lowered, x0, lambda v0: _finely(lowered, v0, jobs))
        advance(1)
    return {TORCH: of_torch, LOWERED: SoftwareStep(v_end, devices)}


def lowered_network(network: Network, circuit: Circuit) -> Network:
    """The network whose edges are the circuit's devices."""
    phases = tuple(
        replace(phase, edges=as_edges(group.table for group in stage.groups))
        for phase, stage in zip(network.phases, circuit.stages, strict=True)
    )
    return replace(network, phases=phases)


def _finely(network: Network, x0: Floats, jobs: int) -> Floats:
    return np.asarray(evolve(network, x0, steps=_FINE, dtype=np.float64, threads=jobs).v_end)


def trained_with(network: Network) -> tuple[Solver, int, str]:
    """The solver, its steps over a phase, and who says so: the training record, or nobody."""
    settings = network.record.get("settings")
    steps = settings.get("steps") if isinstance(settings, dict) else None
    if isinstance(steps, int) and steps > 0:
        return "heun", steps, "as in training"
    return "rk4", _STEPS, "no training record says how it was solved"


def _in_torch(store: Store, network: Network, x0: Floats) -> SoftwareStep:
    try:
        import torch

        from kcnet_eda.dynamics.torch_ode import torch_states
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        return SoftwareStep(None, "torch is not installed")
    solver, steps, says = trained_with(network)
    said = f"torch {torch.__version__} in double precision, {steps} steps of {solver} a phase ({says})"
    v_end = _kept(store, said, network, x0, lambda v0: torch_states(network, v0, solver, steps))
    return SoftwareStep(v_end, said)


def _kept(store: Store, how: str, network: Network, x0: Floats, solve: Callable[[Floats], Floats]) -> Floats:
    """States as of ``solve``, of which the store keeps each under the hash of all that determines it."""
    same = sha256_bytes(dump_network(network) + how.encode())
    keys = [sha256_bytes(same.encode() + x.tobytes()) for x in x0]
    return kept_states(store, keys, x0, lambda v0, done: done(np.arange(len(v0)), solve(v0)))
