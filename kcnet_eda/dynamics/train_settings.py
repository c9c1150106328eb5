"""The settings of a ``train`` file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from kcnet_eda.config import Settings
from kcnet_eda.dynamics.augmentation import Augmentation
from kcnet_eda.dynamics.cell import Cell
from kcnet_eda.dynamics.gradient import Backwards

Fraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class TopologySettings(Settings):
    """Pixels, hidden nodes and outputs, and what connects them. Hidden and output nodes connect both ways."""

    window: Annotated[int, Field(ge=1)] = 3  # pixel neighbourhood, odd; 1 is none
    hidden: Annotated[int, Field(ge=0)] = 16
    pixels_to_hidden: Literal["forward", "both"] = "both"
    pixels_to_outputs: Literal["none", "forward", "both"] = "none"
    between_hidden: bool = False
    between_outputs: bool = False
    ground: bool = True  # ground to every hidden and output node, and back
    parallel: Count = 1  # edges in place of each
    phases: Count = 1  # equal shares of T, each with all these edges and θ of its own

    @model_validator(mode="after")
    def _odd(self) -> TopologySettings:
        if self.window % 2 == 0:
            raise ValueError("window must be odd")
        return self


class Pruning(Settings):
    """The edges of the lowest score are dropped, from ``begin`` to ``end`` (fractions of the epochs), until ``edges``
    are left; the number kept falls steeply first, as the cube of what remains of the way.

    The score ``current`` is an edge's mean current. ``sensitivity`` is the mean over recent batches of the square of
    the loss's change, to first order, were the edge's current scaled to 0: θ1·∂L/∂θ1 + θ2·∂L/∂θ2 for Eq. (6).
    """

    edges: Count
    score: Literal["current", "sensitivity"] = "current"
    begin: Fraction = 0.25
    end: Fraction = 0.7

    @model_validator(mode="after")
    def _forward(self) -> Pruning:
        if self.begin >= self.end:
            raise ValueError("begin must lie before end")
        return self

    def kept(self, n_edges: int, done: float) -> int:
        """How many of ``n_edges`` are left when the fraction ``done`` of the epochs is."""
        way = min(1.0, max(0.0, (done - self.begin) / (self.end - self.begin)))
        return int(self.edges + (n_edges - self.edges) * (1 - way) ** 3)


#: What an edge may be. ``eq6`` is the paper's ReLU(θ1·(v_s − v_d) + θ2); ``passive`` the same with θ1 ≥ 0; ``rc`` a
#: resistor, θ1·(v_s − v_d) with θ1 ≥ 0; ``tanh`` is tanh(θ1·(v_s − v_d) + θ2).
Law = Literal["eq6", "passive", "rc", "tanh"]


class Refinement(Settings):
    """From ``begin`` (a fraction of the epochs) on, ``steps`` are taken over each phase. Few and long steps are
    cheaper, but the network comes to suit their errors; the end of training frees it of them."""

    steps: Count
    begin: Fraction = 0.75


class TrainSettings(Settings):
    """The whole of a ``train`` file. Voltages in model units."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]
    data: Literal["digits", "mnist"] = "digits"
    seed: Annotated[int, Field(ge=0)]
    validation_fraction: Fraction = 0.0  # held out of the training set, never of the test set
    patience: Count | None = None  # epochs in a row that validate no better, after which training stops
    start: str | None = None  # a network file, or the name of a shipped one, to train on from: its edges, its θ
    topology: TopologySettings = TopologySettings()
    law: Law = "eq6"
    theta_limit: Positive | None = None  # largest |θ1| and |θ2|
    theta_noise: NotNegative = 0.0  # relative standard deviation of θ1 and of θ2 while training, drawn for each batch
    pruning: Pruning | None = None
    cell: Cell | None = None
    duration: Positive = 1.0  # T
    steps: Count = 5  # Heun steps over each phase while training
    refinement: Refinement | None = None
    gradient: Backwards = "steps"  # of the solver's steps, or by the adjoint equation
    epochs: Count = 100
    batch: Count = 128
    learning_rate: Positive = 0.04  # peak of a one-cycle schedule
    step_by_degree: NotNegative = (
        0.0  # power by which θ of edges at busy nodes take smaller steps; 0: all take the same
    )
    weight_decay: NotNegative = 0.05
    gradient_clip: Positive = 1.0
    init_theta1: Positive = 0.6  # standard deviation over 1/sqrt(edges at the busier end)
    init_theta2: Positive = 0.1
    logit_gain: Positive = 8.0  # cross-entropy sees gain · v(T): outputs need not swing far
    voltage_limit: Positive = 1.3
    voltage_penalty: NotNegative = 10.0  # of the squares of what lies beyond the limit, summed over nodes and steps
    average: Fraction = 0.98  # share of the running average of the parameters that is kept, a step
    augmentation: Augmentation = Augmentation()

    @model_validator(mode="after")
    def _agree(self) -> TrainSettings:
        turns = {
            "pruning.end": None if self.pruning is None else self.pruning.end,
            "refinement.begin": None if self.refinement is None else self.refinement.begin,
            "cell.begin": None if self.cell is None else self.cell.begin,
        }
        for key, at in turns.items():
            if at is not None and at * self.epochs > self.epochs - 1:
                raise ValueError(f"{key} is {at}, and no epoch begins between that and the end")
        if self.start is not None and "topology" in self.model_fields_set:
            raise ValueError("start and topology exclude each other: the start brings its edges")
        if self.patience is not None and self.validation_fraction == 0:
            raise ValueError("patience needs a validation_fraction, by which it judges")
        if self.cell is not None and self.gradient != "steps":
            raise ValueError("a cell is trained with the gradient of the steps")
        if self.law != "eq6" and (self.cell is not None or self.start is not None):
            raise ValueError(f"a cell and a start are of the law eq6; law is {self.law}")
        if self.cell is not None and self.theta_noise:
            raise ValueError("a cell brings its own mismatch; theta_noise is for networks without one")
        if self.cell is not None and self.topology.phases > 1:
            raise ValueError("a cell is trained in one phase; topology.phases has more")
        return self

    def settled(self, epoch: int) -> bool:
        """Whether in ``epoch`` (from 0) training is of the kind that is to be in the end: pruned, of cells, refined."""
        begins = [
            0.0 if self.pruning is None else self.pruning.end,
            0.0 if self.cell is None else self.cell.begin,
            0.0 if self.refinement is None else self.refinement.begin,
        ]
        return epoch >= max(begins) * self.epochs
