"""The study file of ``kcnet study adjoint``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from kcnet_eda.config import Settings
from kcnet_eda.dynamics.loss import LossKind
from kcnet_eda.physical.pdk import Number, Positive

_FEWEST_STEPS, _MOST_STEPS = 20, 20_000


class AdjointStudy(Settings):
    """Which network, which samples, which loss, and how finely: the whole of the file. Step counts are those of the
    forward and of the adjoint run alike; the last one is judged by ``error``."""

    network: Annotated[str, Field(description="a *.kcnet file, or the name of a shipped network")]
    data: Annotated[str, Field(description="digits[:train|test|all], mnist[:train|test], gaussian[:N] or FILE.npz")] = (
        "digits"
    )
    data_dir: Annotated[Path | None, Field(description="folder that has MNIST's files")] = None
    samples: Annotated[int | None, Field(ge=1, description="how many samples; all if not given")] = None
    seed: Annotated[int | None, Field(ge=0, description="draws the samples; the first are taken if not given")] = None
    loss: Annotated[LossKind, Field(description="cross_entropy, output (of the label) or sum (of all outputs)")] = (
        "cross_entropy"
    )
    gain: Annotated[Positive, Field(description="cross-entropy is of gain times the output voltages")] = 8.0
    steps: Annotated[tuple[int, ...], Field(min_length=1, description="counts of equal steps over T, rising")] = (400,)
    error: Annotated[Positive, Field(lt=1, description="relative error of each gradient, 2-norm, not to be passed")] = (
        1e-3
    )
    c: Annotated[Positive, Field(description="node capacitance, farads")] = 1e-12
    t_unit: Annotated[Positive, Field(description="seconds of a model unit")] = 1e-12
    v_unit: Annotated[Positive, Field(description="volts of a model unit")] = 1.0
    v_cm: Annotated[Number, Field(description="common-mode voltage, model ground")] = 0.0
    timeout_s: Annotated[Positive, Field(description="seconds that one run of the simulator may take")] = 120.0

    @field_validator("steps")
    @classmethod
    def _rising(cls, steps: tuple[int, ...]) -> tuple[int, ...]:
        if any(not _FEWEST_STEPS <= n <= _MOST_STEPS for n in steps):
            raise ValueError(f"must lie between {_FEWEST_STEPS} and {_MOST_STEPS}")
        if list(steps) != sorted(set(steps)):
            raise ValueError("must rise")
        return steps
