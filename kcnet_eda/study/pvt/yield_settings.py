"""What a study over dies does about its yield: the blocks ``sensitivity`` and ``calibration`` of its file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kcnet_eda.config import Settings
from kcnet_eda.physical.pdk import Positive

_Data = Annotated[str, Field(description="samples to fit on, named as the study's data; none of these may be in them")]


class Sensitivity(Settings):
    """What the yield hangs on: the effect of each edge's σ, at the study's worst condition
    (:mod:`kcnet_eda.study.pvt.yield_sensitivity`). Its dies are the next after the study's own."""

    data: _Data = "digits:train"
    dies: Annotated[int, Field(ge=2, le=100_000, description="dies, numbered on from the study's")] = 200
    samples: Annotated[int, Field(ge=1, description="samples, drawn by the study's seed")] = 100
    top: Annotated[int, Field(ge=1, description="edges, by the gradient, that are run again with half their σ")] = 20
    margin: Annotated[Positive, Field(description="scale of the logistic of a sample's margin, V_u")] = 0.1
    accuracy: Annotated[Positive, Field(description="scale of the logistic of a die's accuracy")] = 0.02


class DieCalibration(Settings):
    """A calibration of each die by itself (:mod:`kcnet_eda.study.pvt.die_calibration`)."""

    data: _Data = "digits:train"
    samples: Annotated[int, Field(ge=2, description="samples measured on each die, drawn by the study's seed")] = 100
    readout: Annotated[
        Literal["affine", "offset"] | None, Field(description="numbers a digital read-out has for each output")
    ] = "affine"
    trims: Annotated[int, Field(ge=0, description="edges with a θ2 DAC: the first of the sensitivity's gradient")] = 20
    bits: Annotated[int, Field(ge=1, le=16, description="of each DAC")] = 5
    span: Annotated[Positive, Field(description="± span of a DAC, in σ of the edge's θ2 over dies")] = 3.0
    rounds: Annotated[int, Field(ge=1, le=20, description="how often each die is measured and its DACs are set")] = 2
