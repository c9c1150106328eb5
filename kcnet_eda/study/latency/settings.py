"""The study file of ``kcnet study latency``: what is common to all sections, and a block for each section to be run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from kcnet_eda.config import Settings
from kcnet_eda.physical.pdk import Number, Positive

_Count = Annotated[int, Field(ge=1)]
_Share = Annotated[float, Field(ge=0, le=1)]
SimulatorName = Literal["ngspice", "vacask"]


class Scaling(Settings):
    """The same network from (1 F, 1 s) down in decades."""

    samples: Annotated[_Count, Field(description="samples at each scale, the first of the data")] = 4
    simulators: Annotated[tuple[SimulatorName, ...], Field(min_length=1, description="ngspice, vacask")] = ("ngspice",)
    smallest: Annotated[int, Field(ge=1, le=18, description="decades below 1 F and 1 s of the last scale")] = 15
    difference: Annotated[Positive, Field(description="limit on the difference from the first scale, of the range")] = (
        1e-9
    )


class Size(Settings):
    """Networks of rising size on image grids, and named networks beside them. The simulator is ngspice up to
    ``vacask_above`` edges, VACASK up to ``engine_above``, and the fast engine, which is no circuit, beyond. Grids up to
    ``ngspice_up_to`` edges are run in ngspice too."""

    edges: Annotated[tuple[_Count, ...], Field(description="about how many edges the grids have")] = (300, 1000, 3000)
    networks: Annotated[
        tuple[str, ...], Field(description="further networks: *.kcnet, shipped, or published/NAME")
    ] = ()
    vacask_above: Annotated[int, Field(ge=0, description="edges beyond which VACASK runs")] = 30_000
    ngspice_up_to: Annotated[
        int | None, Field(ge=0, description="edges up to which grids run in ngspice too; vacask_above if not given")
    ] = None
    engine_above: Annotated[int, Field(ge=0, description="edges beyond which only the engine runs")] = 1_000_000
    repeats: Annotated[_Count, Field(description="runs of each, of which the fastest is the simulation time")] = 1
    timeout_s: Annotated[Positive, Field(description="seconds that one run of a simulator may take")] = 600.0


class Decision(Settings):
    """When the answer stands, and what the time of reading tolerates."""

    overrun: Annotated[float, Field(gt=0, le=1, description="how much longer than T the circuit is run, of T")] = 0.25
    points: Annotated[int, Field(ge=2, le=10_000, description="read-out times of the early-exit curve")] = 50
    draws: Annotated[_Count, Field(description="draws of the read-out jitter, each of all samples")] = 400
    losses: Annotated[
        tuple[Positive, ...], Field(min_length=1, description="losses of accuracy, percentage points")
    ] = (
        0.1,
        1.0,
    )


class Inference(Settings):
    """Write, evolve, sample and compare in one deck. Time constants are in units of T_u; all capacitors are C."""

    samples: Annotated[_Count, Field(description="samples run, each after the one before it")] = 4
    switch: Annotated[Positive, Field(description="R_on·C of the write switches, T_u")] = 0.05
    write: Annotated[
        Positive | None, Field(description="time given to precharge and to write each, T_u; derived if not given")
    ] = None
    sample: Annotated[Positive, Field(description="time constant of the tracking buffers, T_u")] = 0.01
    aperture: Annotated[Positive, Field(description="time in which the samplers let go, T_u")] = 0.005
    compare: Annotated[Positive, Field(description="time constant of the comparators, T_u")] = 0.01
    resolution: Annotated[Positive, Field(description="difference that a comparator decides, V_u")] = 1e-3
    accuracy: Annotated[float, Field(gt=0, lt=1, description="share of a step that may be left in each block")] = 1e-3
    temperature: Annotated[Number, Field(description="of kT/C, °C")] = 27.0
    capacitances: Annotated[
        tuple[Positive, ...], Field(description="node capacitances whose kT/C noise is tried, F")
    ] = (
        1e-12,
        1e-15,
        1e-18,
    )
    write_errors: Annotated[tuple[_Share, ...], Field(description="shares of the inputs left unwritten, tried")] = (
        0.001,
        0.01,
        0.1,
    )
    draws: Annotated[_Count, Field(description="draws of the noise, each of all samples")] = 2


class Physical(Settings):
    """The network in transistors of a process, from slow to fast; noise against C on the trained laws; and what a
    resistance of the supply's wiring costs at the slowest T."""

    network: Annotated[str, Field(description="network for MOS cells")] = "digits_mos"
    pdk: Annotated[str, Field(description="a shipped process kit or a YAML file")] = "generic180"
    models: Annotated[Path | None, Field(description="folder of the kit's models, if not where its file says")] = None
    data: Annotated[str, Field(description="as in kcnet simulate")] = "digits:test"
    samples: Annotated[_Count, Field(description="samples at each speed")] = 4
    t_units: Annotated[tuple[Positive, ...], Field(min_length=1, description="seconds of a model unit, any order")] = (
        1e-6,
        3e-7,
        1e-7,
        3e-8,
    )
    currents: Annotated[tuple[Positive, ...], Field(min_length=1, description="of the kit's unit current")] = (1.0,)
    agreement: Annotated[_Share, Field(description="labels as in software that the knee asks for")] = 0.95
    accuracy_loss: Annotated[_Share, Field(description="accuracy below the software's that a limit allows")] = 0.01
    # What random networks are held to in docs/mos.md.
    node_error: Annotated[
        Positive, Field(description="largest node error over the run, median over samples, that the knee allows, V_u")
    ] = 0.12
    drops: Annotated[
        tuple[_Share, ...], Field(description="shares of the supply that its wiring takes at the slowest T, tried")
    ] = (0.1, 0.2, 0.3)
    capacitances: Annotated[
        tuple[Positive, ...],
        Field(description="node capacitances whose noise is tried, F, beside that of the slowest T; none: no noise"),
    ] = (
        1e-12,
        1e-13,
        1e-14,
        1e-15,
        1e-16,
        1e-17,
        1e-18,
    )
    excess: Annotated[float, Field(ge=0, description="γ of the edges' white noise; 0: kT/C alone")] = 2.0
    mirrors: Annotated[float, Field(ge=0, description="mirror transistors that an edge's current passes")] = 4.0
    noise_samples: Annotated[_Count, Field(description="samples run in ngspice with noise, at each C")] = 10
    noise_draws: Annotated[_Count, Field(description="draws of the noise in the engine, each of all samples")] = 10
    noise_steps: Annotated[int, Field(ge=5, le=10_000, description="steps of the engine with noise")] = 60
    timeout_s: Annotated[Positive, Field(description="seconds that one run of a sample may take")] = 600.0


def _as_list(found: Any) -> Any:
    """A single block is a list of one."""
    return [found] if isinstance(found, Mapping) else found


class LatencyStudy(Settings):
    """The whole of the file. A section whose key is absent is not run; ``{}`` runs it as it is by default."""

    network: Annotated[str, Field(description="a *.kcnet file, or the name of a shipped network")] = "digits"
    data: Annotated[str, Field(description="digits[:train|test|all], mnist[:train|test] or FILE.npz")] = "digits:test"
    data_dir: Annotated[Path | None, Field(description="folder that has MNIST's files and published networks")] = None
    samples: Annotated[int | None, Field(ge=1, description="how many samples; all if not given")] = None
    seed: Annotated[int, Field(ge=0, description="draws networks, jitter and noise")] = 0
    c: Annotated[Positive, Field(description="node capacitance, farads")] = 1e-12
    t_unit: Annotated[Positive, Field(description="seconds of a model unit")] = 1e-12
    v_unit: Annotated[Positive, Field(description="volts of a model unit")] = 1.0
    error: Annotated[float, Field(gt=0, lt=1, description="relative error that solver settings are chosen for")] = 1e-3
    timeout_s: Annotated[Positive, Field(description="seconds that one run of a sample may take")] = 120.0
    scaling: Annotated[Scaling | None, Field(description="final voltages from 1 F, 1 s down")] = None
    size: Annotated[Size | None, Field(description="time, current and charge against size")] = None
    decision: Annotated[Decision | None, Field(description="when the answer stands")] = None
    inference: Annotated[Inference | None, Field(description="write, evolve, sample, compare")] = None
    physical: Annotated[
        Annotated[tuple[Physical, ...], Field(min_length=1)] | None,
        BeforeValidator(_as_list),
        Field(description="transistors of a process against T: a block, or a list of one for each kit"),
    ] = None
