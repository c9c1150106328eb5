"""Networks in the published format: a folder of ``config.yaml`` and ``model.pth``.

Source: the code published with Gao, Sun, Boning, arXiv 2310.15872 (``utils/circuit_block.py``, ``utils/model.py``,
``utils/testbench.py``), whose facts are kept and whose text is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import ConfigDict, Field, StrictBool, StrictInt, field_validator, model_validator

from kcnet_eda.config import Settings
from kcnet_eda.errors import InvalidInputError
from kcnet_eda.network.barebone import rising
from kcnet_eda.network.checkpoint import Floats
from kcnet_eda.network.graph import Edges, Network, Phase
from kcnet_eda.network.laws import IDENTITY, LEAKY_RELU, PUBLISHED_LAWS, RELU, TANH, PublishedLaw, published_device
from kcnet_eda.network.projector import Projector, readout_nodes
from kcnet_eda.network.published_topology import MOST_EDGES, NetStruct, Topology

#: Values a sample that the published test benches feed in.
BENCH_INPUTS = {
    "mnist": 784,
    "cifar10": 3072,
    "cifar100": 3072,
    "svhn": 3072,
    "tinyimage": 12288,
    "housing": 8,
    "diabete": 10,
    "toyregress": 5,
}
#: Test benches that start every node at a Gaussian value. Their published scripts pass no fill, residual or projector
#: on to the network, whatever the config says.
GENERATIVE = (
    "2spirals", "8gaussians", "circle", "gauss", "genmnist", "pinwheel", "potential1", "potential2", "swissroll",
    "twomoon",
)  # fmt: skip


def is_generative(network: Network) -> bool:
    """Whether a network moves points of a distribution: its outputs are coordinates, and no label is meant by them."""
    return network.record.get("imported", {}).get("test_bench") in GENERATIVE


_PARAM = "circuit.layer_list.{}.model.param"
_PHI = {None: IDENTITY, "relu": RELU, "leaky_relu": LEAKY_RELU, "tanh": TANH}


class _NoArgs(Settings):
    pass


class _DeviceArgs(Settings):
    negation: StrictBool
    activation: Literal["relu", "leaky_relu", "tanh"] | None


class _PlainLaw(Settings):
    name: Literal[
        "ShiftRelu1", "ShiftLeakyRelu1", "ShiftRelu2", "ShiftLeakyRelu2", "ShiftTanh1", "ShiftTanh2", "Conductance"
    ]
    args: _NoArgs | None = None

    def law(self) -> PublishedLaw:
        return PUBLISHED_LAWS[self.name]


class _DeviceLaw(Settings):
    name: Literal["Device"]
    args: _DeviceArgs

    def law(self) -> PublishedLaw:
        return published_device(self.args.negation, _PHI[self.args.activation])


class _NetworkSection(Settings):
    net_struct: list[NetStruct] = Field(min_length=1, max_length=1000)
    model: Annotated[_PlainLaw | _DeviceLaw, Field(discriminator="name")]
    fill: Literal["zeros", "zero", "repeat"] | None = None
    residual: tuple[StrictInt, StrictInt] | None = None
    projector: Projector = ()
    encoder: Any = None
    adjoint: Any = None
    initialization: Any = None

    @field_validator("encoder")
    @classmethod
    def _no_encoder(cls, encoder: Any) -> None:
        if encoder not in (None, "none"):
            raise ValueError("an encoder is a trained network ahead of the circuit, which starts at its nodes")

    @field_validator("residual")
    @classmethod
    def _in_order(cls, residual: tuple[int, int] | None) -> tuple[int, int] | None:
        if residual is not None and not 0 <= residual[0] <= residual[1]:
            raise ValueError("[i, j] adds the end of phase i to that of phase j, so 0 <= i <= j")
        return residual

    @model_validator(mode="after")
    def _one_whole(self) -> _NetworkSection:
        if (n := sum(s.args.n_edges() for s in self.net_struct)) > MOST_EDGES:
            raise ValueError(f"its phases would have {n:.3g} edges; at most {MOST_EDGES:,} are built")
        if self.residual is not None and self.residual[1] >= len(self.net_struct):
            raise ValueError(f"residual {list(self.residual)} names a phase beyond the {len(self.net_struct)}")
        return self


class _Simulation(Settings):
    t_end: list[float] = Field(min_length=2)
    method: str | None = None
    tol: float | None = None
    first_step: float | None = None
    min_step: float | None = None
    step_size: float | None = None

    _rising = field_validator("t_end")(rising)


class PublishedConfig(Settings):
    """The sections of a published ``config.yaml`` that define the network; those of its training are not read."""

    model_config = ConfigDict(extra="ignore")

    network: _NetworkSection
    simulation: _Simulation
    test_bench: Annotated[str, Field(pattern=r"^\w[\w.-]{0,60}$")] | None = None

    @model_validator(mode="after")
    def _one_slice_a_phase(self) -> PublishedConfig:
        n, times = len(self.network.net_struct), len(self.simulation.t_end)
        if times != n + 1:
            raise ValueError(f"simulation.t_end has {times} times; {n} phases need {n + 1}")
        return self

    @property
    def generative(self) -> bool:
        """Whether the published script for its test bench is a generative one."""
        return self.test_bench in GENERATIVE


def assemble(
    config: PublishedConfig, arrays: Mapping[str, Floats], inputs: int | None, name: str, where: str
) -> tuple[Network, list[str]]:
    """The network of a published config and the tensors of its checkpoint, and notes on what was taken how.
    ``where`` names it in errors.

    Nodes are numbered as published: 0 is ground, and a phase has the nodes up to the largest that its edges name.
    In generative benches no node is ever dropped: one that a later phase does not name keeps its voltage there.

    Raises
    ------
    InvalidInputError
        Tensors are missing, foreign or of the wrong shape, or the phases cannot follow each other; every problem is
        listed.
    """
    arrays = {key.removeprefix("module."): values for key, values in arrays.items()}
    _raise(where, _tensor_problems(config, arrays))
    law = config.network.model.law()
    topologies = [struct.args.build() for struct in config.network.net_struct]
    edges = [_edges(t, law, arrays[_PARAM.format(i)], where, i) for i, t in enumerate(topologies)]
    sizes = [int(max(t.source.max(), t.target.max())) for t in topologies]
    bench = BENCH_INPUTS.get(config.test_bench or "")
    n_inputs = inputs or bench or sizes[0]
    projector = () if config.generative else config.network.projector
    problems, notes = [], list(_notes(config, inputs, n_inputs))
    if n_inputs > sizes[0]:
        problems.append(
            f"{n_inputs} inputs for the {sizes[0]} nodes of the first phase; the published code drops the rest unsaid"
        )
    filled = _fills(config, n_inputs, sizes, problems)
    try:
        readout = readout_nodes(projector, filled[-1][0])
    except ValueError as error:
        problems.append(str(error))
    _raise(where, problems)
    residual = None if config.generative else config.network.residual
    phases = [
        Phase(n_nodes, duration, e, fill, residual[0] if residual is not None and residual[1] == i else None)
        for i, ((n_nodes, fill), duration, e) in enumerate(
            zip(filled, np.diff(config.simulation.t_end).tolist(), edges, strict=True)
        )
    ]
    return Network(name, tuple(phases), np.arange(1, n_inputs + 1, dtype=np.int32), readout), notes


def _raise(where: str, problems: list[str]) -> None:
    if problems:
        raise InvalidInputError(where, problems)


def _tensor_problems(config: PublishedConfig, arrays: Mapping[str, Floats]) -> list[str]:
    """What is wrong with the tensors, judged by their shapes before any edge is built."""
    problems = []
    rows = config.network.model.law().rows
    wanted = [_PARAM.format(i) for i in range(len(config.network.net_struct))]
    for i, (key, struct) in enumerate(zip(wanted, config.network.net_struct, strict=True)):
        n, shared = struct.args.n_edges(), getattr(struct.args, "sharing", False)
        shape = arrays[key].shape if key in arrays else None
        if shape is None:
            problems.append(f"phase {i}: the checkpoint has no {key}")
        elif len(shape) != 2 or shape[0] != rows or not (shape[1] == n or (shared and 1 <= shape[1] < n)):
            law = config.network.model.name
            problems.append(f"phase {i}: {key} has the shape {shape}; {law} on {n:,} edges takes ({rows}, {n})")
    for key in sorted(arrays.keys() - set(wanted)):
        kind = key.partition(".")[0]
        if kind in ("encoder", "projector"):
            problems.append(f"{key[:80]}: a trained {kind} outside the circuit, which a circuit cannot contain")
        else:
            problems.append(f"{key[:80]}: a tensor that no phase of the config uses")
    return problems


def _edges(topology: Topology, law: PublishedLaw, params: Floats, where: str, number: int) -> Edges:
    if params.shape[1] != len(topology):
        n_shared = int(topology.shared.max()) + 1
        if params.shape[1] != n_shared:
            raise InvalidInputError(
                where,
                [f"phase {number}: {params.shape[1]} columns for {len(topology)} edges of {n_shared} shared sets"],
            )
        params = params[:, topology.shared]
    return Edges(topology.source, topology.target, *law.canonical(params), np.full(len(topology), law.phi))


def _fills(config: PublishedConfig, n_inputs: int, sizes: list[int], problems: list[str]) -> list[tuple[int, str]]:
    """Each phase's nodes, ground included, and its fill."""
    fill = "repeat" if config.network.fill == "repeat" else "zeros"
    filled = []
    held = n_inputs
    for i, size in enumerate(sizes):
        if not config.generative:
            if size > held and config.network.fill is None:
                problems.append(
                    f"phase {i}: has {size} nodes after {held}, and the config gives no fill for the new ones"
                )
            filled.append((size + 1, fill if size > held else "zeros"))
        else:
            if i and size > sizes[0]:
                problems.append(f"phase {i}: has {size} nodes after {sizes[0]}; generative networks cannot add nodes")
            filled.append((sizes[0] + 1, "repeat" if i == 0 and size > held else "zeros"))
        held = size
    return filled


def _notes(config: PublishedConfig, inputs: int | None, n_inputs: int) -> Iterator[str]:
    if config.generative:
        ignored = [k for k in ("fill", "residual", "projector") if getattr(config.network, k)]
        if ignored:
            yield (
                f"the published script for {config.test_bench} does not use the config's {', '.join(ignored)}: every "
                "node of the last phase is read out"
            )
    elif inputs is None and config.test_bench not in BENCH_INPUTS:
        yield f"how many inputs test bench {config.test_bench} has is not known: all {n_inputs} nodes are inputs"
