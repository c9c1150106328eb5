"""The study file of ``kcnet study pvt`` and ``kcnet study mc``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from kcnet_eda.config import Settings
from kcnet_eda.errors import InvalidInputError
from kcnet_eda.physical.pdk import Number, Positive
from kcnet_eda.study.campaign.farm_settings import Queue
from kcnet_eda.study.pvt.yield_settings import DieCalibration, Sensitivity
from kcnet_eda.units import parse_si

_SUPPLY = re.compile(r"[+-]?\d+(\.\d+)?%")
_PERCENT = re.compile(r"\d+(\.\d+)?%")
_ABSOLUTE_ZERO = -273.15  # °C


def _error(value: object) -> object:
    if isinstance(value, str) and _PERCENT.fullmatch(value):
        return value
    try:
        number = parse_si(value)  # type: ignore[arg-type]  # what it cannot read it refuses
    except InvalidInputError:
        number = -1.0
    if number < 0:
        raise ValueError("is neither an SI value of at least 0 (5m) nor a share (1%)")
    return number


_NotNegative = Annotated[float, Field(ge=0)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Error = Annotated[float | str, BeforeValidator(_error)]


class Spread(Settings):
    """Mismatch of cells independent of each other, as σ of a cell of one unit; of k units by Pelgrom's rule
    (:mod:`kcnet_eda.physical.mismatch`)."""

    sigma_gain: Annotated[_NotNegative, Field(description="σ of θ1, over θ1")] = 0.05
    sigma_offset: Annotated[_NotNegative, Field(description="σ of θ2, in I_u")] = 0.025
    sigma_ratio: Annotated[_NotNegative, Field(description="σ of what leaves s over what enters d")] = 0.0
    bias_gain: Annotated[_NotNegative, Field(description="σ of all θ1 of a die, over θ1")] = 0.0
    bias_offset: Annotated[_NotNegative, Field(description="σ of all θ2 of a die, in I_u a unit")] = 0.0


class _Ordered(Settings):
    """A specification that can be kept: its ends do not contradict each other."""

    @model_validator(mode="after")
    def _order(self) -> Self:
        least, most = getattr(self, "minimum", None), getattr(self, "maximum", None)
        if least is not None and most is not None and least > most:
            raise ValueError(f"the minimum {least:g} is above the maximum {most:g}; no value keeps both")
        return self


class Limit(_Ordered):
    """A specification: ``minimum`` holds for the least value, ``typical`` for the mean, ``maximum`` for the largest."""

    minimum: Annotated[_Share | None, Field(description="the least value is at least this")] = None
    typical: Annotated[_Share | None, Field(description="the mean is at least this")] = None
    maximum: Annotated[_Share | None, Field(description="the largest value is at most this")] = None


class Bound(_Ordered):
    """A specification of a quantity in SI units, as :class:`Limit` is of a share; of what is better the less there is
    of it (latency, energy), the mean is at most the ``typical``."""

    minimum: Annotated[Number | None, Field(description="the least value is at least this")] = None
    typical: Annotated[
        Number | None, Field(description="the mean is at least, of latency and energy at most, this")
    ] = None
    maximum: Annotated[Number | None, Field(description="the largest value is at most this")] = None


class Limits(Settings):
    """Limits on values over the conditions. A die passes where its accuracy is at least ``die_accuracy``; ``yield`` is
    of dies that pass."""

    die_accuracy: Annotated[_Share, Field(description="the accuracy that a die must reach to count in the yield")] = 0.9
    accuracy: Annotated[Limit, Field(description="limits on the accuracy of a condition")] = Limit()
    yield_: Annotated[Limit, Field(alias="yield", description="limits on the yield of a condition")] = Limit()
    agreement: Annotated[Limit, Field(description="limits on the share of a condition's labels as in software")] = (
        Limit()
    )
    margin: Annotated[Bound, Field(description="V: limits on the lead of the right output, a condition's median")] = (
        Bound()
    )
    latency: Annotated[Bound, Field(description="s: limits on T")] = Bound()
    energy: Annotated[Bound, Field(description="J: limits on supply current x supply x T of a condition")] = Bound()


class Noise(Settings):
    """Noise at the nominal condition and on the nominal die, for each C (:mod:`kcnet_eda.study.pvt.noise`). An edge's
    current has 4kT · ``excess`` · (what it conducts + ``mirrors`` · gm/I_D of the kit's mirrors · its current)."""

    capacitances: Annotated[tuple[Positive, ...], Field(min_length=1, description="node capacitances, F")] = (
        3e-12,
        1e-12,
        3e-13,
        1e-13,
        3e-14,
        1e-14,
    )
    excess: Annotated[_NotNegative, Field(description="γ of the edges' white noise; 0: kT/C alone")] = 2.0
    mirrors: Annotated[_NotNegative, Field(description="mirror transistors that an edge's current passes")] = 4.0
    draws: Annotated[int, Field(ge=1, le=10_000, description="draws of the noise, each of all samples")] = 4
    steps: Annotated[int, Field(ge=5, le=10_000, description="steps of the engine with noise")] = 60
    spot_checks: Annotated[
        int, Field(ge=0, le=10_000, description="samples run twice in ngspice with transient noise of their own")
    ] = 0
    spot_c: Annotated[
        Positive | None, Field(description="node capacitance of these, F; the least of capacitances if not given")
    ] = None


class PvtStudy(Settings):
    """The whole of the file. Conditions are a grid over corners, resistors, supplies, temperatures, errors of writing
    and jitter of reading."""

    network: Annotated[str, Field(description="a *.kcnet file, or the name of a shipped network")]
    pdk: Annotated[str, Field(description="a shipped process kit or a YAML file")]
    models: Annotated[Path | None, Field(description="folder of the kit's models, if not where its file says")] = None
    data: Annotated[str, Field(description="digits[:train|test|all], mnist[:train|test] or FILE.npz")] = "digits:test"
    data_dir: Annotated[Path | None, Field(description="folder that has MNIST's files")] = None
    samples: Annotated[int | None, Field(ge=1, description="how many samples; all if not given")] = None
    seed: Annotated[int, Field(ge=0, description="draws the dies")] = 0
    corners: Annotated[tuple[str, ...], Field(min_length=1, description="transistor corners, globs allowed")] = ("*",)
    resistors: Annotated[tuple[str, ...], Field(min_length=1, description="resistor corners, globs allowed")] = ("typ",)
    supplies: Annotated[
        tuple[Positive | str, ...], Field(min_length=1, description="volts, or off the kit's own such as '-10%'")
    ] = ("0%",)
    temperatures: Annotated[tuple[Number, ...], Field(description="°C; the kit's nominal if none is given")] = ()
    write_error: Annotated[
        tuple[_Error, ...],
        Field(min_length=1, description="σ of every written initial voltage: volts, or '1%' of all that is written"),
    ] = (0.0,)
    write_error_of: Annotated[
        Literal["sample", "die"], Field(description="what has a draw of its own: each sample on each die, or each die")
    ] = "sample"
    jitter: Annotated[
        tuple[_Error, ...],
        Field(min_length=1, description="σ of the time of reading: seconds, or '1%' of T"),
    ] = (0.0,)
    grid: Annotated[
        Literal["full", "one_at_a_time"],
        Field(description="all combinations, or the nominal condition and each axis alone through its values"),
    ] = "full"
    dies: Annotated[int, Field(ge=1, description="the same in every condition")] = 100
    mismatch: Annotated[
        Spread | Literal["kit"] | None, Field(description="spread over dies; kit: its own Monte Carlo; null: none")
    ] = "kit"
    t_unit: Annotated[Positive, Field(description="seconds of a model unit of time; the lag is measured by it")] = (
        300e-9
    )
    steps: Annotated[int, Field(ge=5, le=10_000, description="RK4 steps")] = 15
    repeat: Annotated[int, Field(ge=0, le=100_000, description="cases repeated in ngspice, behavioural level")] = 0
    repeat_mos: Annotated[int, Field(ge=0, le=10_000, description="cases repeated in transistors, no mismatch")] = 0
    chain: Annotated[
        int,
        Field(ge=0, le=10_000, description="first samples of the reconciliation chain: calibrated edges, worst corner"),
    ] = 0
    noise: Annotated[Noise | None, Field(description="accuracy against C with noise")] = None
    sensitivity: Annotated[Sensitivity | None, Field(description="what the yield hangs on, edge by edge")] = None
    calibration: Annotated[DieCalibration | None, Field(description="calibration of each die, and its effect")] = None
    timeout_s: Annotated[
        Positive, Field(description="seconds after which ngspice is killed on a case; five times that in transistors")
    ] = 120.0
    limits: Annotated[Limits, Field(description="what must hold")] = Limits()
    cluster: Annotated[Queue | None, Field(description="jobs of --cluster slurm or lsf")] = None

    @field_validator("supplies")
    @classmethod
    def _supplies(cls, supplies: tuple[float | str, ...]) -> tuple[float | str, ...]:
        for supply in supplies:
            if isinstance(supply, str) and (not _SUPPLY.fullmatch(supply) or float(supply[:-1]) <= -100):
                raise ValueError(f"{supply!r} is neither volts nor a deviation such as -10%")
        return supplies

    @field_validator("temperatures")
    @classmethod
    def _temperatures(cls, temperatures: tuple[float, ...]) -> tuple[float, ...]:
        for temperature in temperatures:
            if temperature <= _ABSOLUTE_ZERO:
                raise ValueError(f"{temperature:g} °C is not above absolute zero")
        return temperatures

    @model_validator(mode="after")
    def _spread(self) -> PvtStudy:
        if self.mismatch is None and self.dies > 1 and self.write_error == self.jitter == (0.0,):
            raise ValueError("without mismatch all dies are the same; ask for one")
        return self

    @model_validator(mode="after")
    def _remedies(self) -> PvtStudy:
        if self.mismatch is None and (self.sensitivity is not None or self.calibration is not None):
            raise ValueError("sensitivity and calibration are of dies with mismatch")
        if self.calibration is not None and self.calibration.trims and self.sensitivity is None:
            raise ValueError("calibration.trims needs sensitivity, which ranks the edges; or 0")
        return self

    def volts(self, nominal: float) -> list[float]:
        """The supplies in volts, ``nominal`` being the kit's own."""
        return [round(nominal * (1 + float(s[:-1]) / 100), 6) if isinstance(s, str) else s for s in self.supplies]

    def write_errors(self, full_scale: float) -> list[float]:
        """The errors of writing in volts; ``full_scale`` [V] is what shares are of."""
        return _absolute(self.write_error, full_scale)

    def jitters(self, duration: float) -> list[float]:
        """The jitters in seconds; ``duration`` [s] is T."""
        return _absolute(self.jitter, duration)


def _absolute(values: tuple[float | str, ...], whole: float) -> list[float]:
    return [float(f"{whole * float(v[:-1]) / 100:.6g}") if isinstance(v, str) else v for v in values]
