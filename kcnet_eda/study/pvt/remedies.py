"""What to do about the yield of a study: which edges to make larger, and what calibrating each die brings.

What is fitted on and what is measured on have nothing in common. Edges are ranked on dies after the study's and on
samples that are none of the study's; a die is calibrated on such samples too. Effects are measured on the study's own
dies and samples, before and after on the same ones (common random numbers).

All is done in steps that are rows of the store, planned before the first of them runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.dynamics.edge_law import BuiltEdges
from kcnet_eda.errors import InvalidInputError
from kcnet_eda.files import sha256_bytes
from kcnet_eda.network.data import DataSet, load_data
from kcnet_eda.network.graph import Network
from kcnet_eda.physical.condition import Condition
from kcnet_eda.physical.edge_model import EdgeModel
from kcnet_eda.study.accuracy import proportion
from kcnet_eda.study.pvt.die_calibration import ReadOut, Trims, fit_readout, fit_trims, trained_outputs, trims_of
from kcnet_eda.study.pvt.dies import Dies, right_labels
from kcnet_eda.study.pvt.settings import PvtStudy
from kcnet_eda.study.pvt.work import Shared
from kcnet_eda.study.pvt.yield_sensitivity import (
    SoftYield,
    by_gradient,
    halved,
    of_dies,
    sensitivity_record,
    yield_gradient,
)
from kcnet_eda.study.pvt.yield_settings import DieCalibration, Sensitivity
from kcnet_eda.study.simulate import require_fit
from kcnet_eda.study.store import PlannedRun, Result, Status

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

AS_BUILT, READ_OUT, DACS, BOTH = "as built", "read-out", "DACs", "DACs and read-out"


@dataclass(frozen=True, eq=False)
class Remedies:
    """Records of both blocks of the study file, None where it has none; and arrays for ``outputs.npz``."""

    sensitivity: dict[str, Any] | None
    calibration: dict[str, Any] | None
    arrays: dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Place:
    """A condition and its edges."""

    condition: Condition
    model: EdgeModel


def fitting_samples(name: str, samples: int, study: PvtStudy, measured_on: DataSet, network: Network) -> DataSet:
    """``samples`` of the data ``name``, drawn by the study's seed, none of which is among those ``measured_on``.

    Raises
    ------
    InvalidInputError
        The data cannot be used, or some are among those measured on: an effect on these would be none on unseen ones.
    """
    data = load_data(name, study.data_dir, features=network.inputs.size, seed=study.seed)
    require_fit(data, network)
    if data.y is None:
        raise InvalidInputError(f"data {data.name}", ["has no labels"], "Use labelled data.")
    data = data.draw(samples, study.seed)
    seen = {row.tobytes() for row in measured_on.x}
    both = sum(row.tobytes() in seen for row in data.x)
    if both:
        raise InvalidInputError(
            f"data {name}",
            [f"{both} of the {len(data)} samples to fit on are also measured on ({measured_on.name})"],
            "Fit on other samples than the study's, such as the training split.",
        )
    return data


@dataclass(frozen=True, eq=False)
class Samples:
    """Initial states [samples, nodes] and labels [samples] that something is fitted on."""

    x0: Floats
    y: Counts

    @property
    def sha256(self) -> str:
        """Their hash."""
        return sha256_bytes(self.x0.tobytes() + self.y.tobytes())


class Kind(StrEnum):
    """What a step computes, and so what its numbers are."""

    GRADIENT = "gradient"  # how many dies have none, and what each edge gains [1 + E]
    HALVED = "sigma halved"  # of_dies with the σ of the edge of a rank halved, [2, dies]; rank 0: of none
    LARGER = "larger"  # right samples of each of the study's dies with the σ of so many edges halved; 0: of none
    FIT = "fit"  # a calibration: Fit.numbers
    COUNT = "count"  # right samples of each of the study's dies, calibrated in a way


@dataclass(frozen=True)
class Step:
    """A row of the store: at the place ``at``; ``rank`` or number of edges in the order of the gradient; for a count
    the place ``fitted_at`` whose calibration it is, and the way."""

    kind: Kind
    at: int
    rank: int = 0
    fitted_at: int = 0
    way: str = AS_BUILT


@dataclass(frozen=True, eq=False)
class Due:
    """A step with what earlier ones found: edges by number, and the numbers of a calibration."""

    step: Step
    edges: tuple[int, ...] = ()
    fit: Floats | None = None


@dataclass(frozen=True, eq=False)
class Fitting:
    """What all steps have in common: the places that are calibrated at, the last the worst, their ``dies``, and the
    samples that edges are ranked on and dies calibrated on."""

    shared: Shared
    places: tuple[Place, ...]
    dies: Dies
    ranked_on: Samples | None
    calibrated_on: Samples | None

    @property
    def names(self) -> list[str]:
        """Of the places."""
        return [place.condition.name for place in self.places]

    @property
    def worst(self) -> int:
        """The number of the worst place."""
        return len(self.places) - 1

    @property
    def ways(self) -> list[str]:
        """In which a die is calibrated."""
        settings = self.shared.study.calibration
        assert settings is not None
        found = [READ_OUT] if settings.readout is not None else []
        found += [DACS] if settings.trims else []
        return [*found, BOTH] if len(found) == 2 else found

    @property
    def ranking(self) -> list[Step]:
        """The steps of the sensitivity, the gradient first."""
        asked, at = self.shared.study.sensitivity, self.worst
        if asked is None:
            return []
        top = min(asked.top, self.dies.units.size)
        again = [Step(Kind.HALVED, at, rank) for rank in range(top + 1)]
        return [Step(Kind.GRADIENT, at), *again, Step(Kind.LARGER, at), Step(Kind.LARGER, at, top)]

    @property
    def calibration(self) -> list[Step]:
        """The steps of the calibration: all fits, then all counts in the order of the record's rows."""
        if self.shared.study.calibration is None:
            return []
        places = range(len(self.places))
        steps = [Step(Kind.FIT, at) for at in places]
        for at in places:
            for fitted_at in dict.fromkeys((at, 0)):
                ways = [AS_BUILT, *self.ways] if fitted_at == at else self.ways
                steps += [Step(Kind.COUNT, at, 0, fitted_at, way) for way in ways]
        return steps

    def key(self, step: Step, same: str) -> str:
        """The hash of all that determines a step's numbers; ``same`` tells the network and the samples. What earlier
        steps found is determined by the same."""
        study, dies = self.shared.study, self.dies
        words = [same, repr(step), str(study.seed), repr(dies.spread), str(study.steps), repr(study.t_unit)]
        words += [repr(dies.units.tolist()), repr(self.places[step.at]), str(study.dies)]
        if step.kind in (Kind.FIT, Kind.COUNT):
            assert self.calibrated_on is not None and study.calibration is not None
            words += [study.calibration.model_dump_json(), self.calibrated_on.sha256]
            words.append(repr(self.places[step.fitted_at]))
        if self.ranked_on is not None and study.sensitivity is not None:
            # of how many edges are run again no step hangs on; of the order of the edges a DAC's place does
            asked = study.sensitivity.model_dump_json(exclude={"top"})
            words += [asked, repr(study.limits.die_accuracy), self.ranked_on.sha256, repr(self.places[self.worst])]
        return sha256_bytes("\n".join(words).encode())

    def planned(self, same: str) -> dict[str, PlannedRun]:
        """The rows of all steps, by key."""
        rows = {}
        for step in [*self.ranking, *self.calibration]:
            of = self.shared.study.sensitivity if step.kind in (Kind.GRADIENT, Kind.HALVED) else None
            first, dies = (0, self.shared.study.dies) if of is None else (self.shared.study.dies, of.dies)
            words = [self.names[step.at], step.kind.value]
            words += [f"rank {step.rank}"] if step.kind is Kind.HALVED and step.rank else []
            words += [f"{step.rank} edges"] if step.kind is Kind.LARGER else []
            words += [f"{step.way}, calibrated at {self.names[step.fitted_at]}"] if step.kind is Kind.COUNT else []
            key = self.key(step, same)
            rows[key] = PlannedRun(key, first, "remedy", ", ".join(words), f"{first}-{first + dies - 1}")
        return rows


def samples_to_fit(study: PvtStudy, measured_on: DataSet, network: Network) -> tuple[Samples | None, Samples | None]:
    """What edges are ranked on and dies calibrated on, by what ``study`` asks for; ``measured_on`` are its samples.

    Raises
    ------
    InvalidInputError
        As :func:`fitting_samples`.
    """

    def drawn(asked: Sensitivity | DieCalibration | None) -> Samples | None:
        if asked is None:
            return None
        data = fitting_samples(asked.data, asked.samples, study, measured_on, network)
        assert data.y is not None  # fitting_samples has seen to it
        return Samples(network.initial_state(data.x), data.y)

    return drawn(study.sensitivity), drawn(study.calibration)


def fitting(shared: Shared, samples: tuple[Samples | None, Samples | None], home: Place, worst: Place) -> Fitting:
    """What ``shared.study`` asks for, on ``samples`` of :func:`samples_to_fit`; ``home`` and ``worst`` are the kit's
    nominal and the study's worst condition."""
    places = (home,) if home.condition == worst.condition else (home, worst)
    dies = replace(shared.dies, models=tuple(place.model for place in places))
    return Fitting(shared, places, dies, *samples)


#: Runs steps, those in the store that are done excepted; their numbers in the same order.
Run = Callable[[Sequence[Due], str], list[Floats]]


def remedies(of: Fitting, run: Run) -> Remedies:
    """Both records, by ``run``: first what hangs on nothing, then what the order of the edges decides, then counts."""
    study, dies = of.shared.study, of.dies
    sensitivity: dict[str, Any] | None = None
    order: list[int] = []
    if study.sensitivity is not None:
        asked, limit = study.sensitivity, study.limits.die_accuracy
        gradient, *steps = of.ranking
        (found,) = run([Due(gradient)], "gradient of the yield")
        lost, gain = int(found[0]), found[1:]
        order = by_gradient(gain).tolist()
        done = run([Due(step, tuple(order)) for step in steps], "edges with half their σ")
        drawn, *again = (numbers.reshape(2, -1) for numbers in done[:-2])
        which = range(study.dies, study.dies + asked.dies)
        record = sensitivity_record(dies, which, asked, limit, gain, lost, drawn, again)
        first = order[: len(again)]
        before, after = (numbers.astype(np.int64) for numbers in done[-2:])
        sensitivity = {
            "condition": of.names[of.worst],
            **record,
            "larger": {
                "edges": len(first),
                "area": float(1 + 3 * dies.units[first].sum() / dies.units.sum()),
                "before": effect(before, before, len(of.shared.y), limit),
                "after": effect(after, before, len(of.shared.y), limit),
            },
        }
    if study.calibration is None:
        return Remedies(sensitivity, None, {})
    record, arrays = _calibrated(of, tuple(order[: study.calibration.trims]), run)
    return Remedies(sensitivity, record, arrays)


def run_step(of: Fitting, due: Due, threads: int = 1) -> Result:
    """The numbers of a step, by its kind: ``v_end``, flat."""
    begun = time.monotonic()
    numbers = _NUMBERS[due.step.kind](of, due, threads)
    return Result(Status.PASSED, "", time.monotonic() - begun, 0, np.asarray(numbers, dtype=np.float64).ravel())


def step_on_worker(of: Fitting, due: Due, scratch: Path) -> Result:
    """:func:`run_step` as a campaign's work."""
    return run_step(of, due)


def _ranked(of: Fitting) -> tuple[Samples, range, SoftYield]:
    """The samples and dies that edges are ranked on, and the smoothed yield."""
    asked, study = of.shared.study.sensitivity, of.shared.study
    assert asked is not None and of.ranked_on is not None
    soft = SoftYield(study.limits.die_accuracy, asked.margin, asked.accuracy)
    return of.ranked_on, range(study.dies, study.dies + asked.dies), soft


def _gradient(of: Fitting, due: Due, threads: int) -> Floats:
    samples, which, soft = _ranked(of)
    steps = of.shared.study.steps
    gain, lost = yield_gradient(of.dies, due.step.at, which, samples.x0, samples.y, soft, steps, threads)
    return np.append(lost, gain)


def _halved(of: Fitting, due: Due, threads: int) -> Floats:
    samples, which, soft = _ranked(of)
    rank, edges = due.step.rank, of.dies.units.size
    scale = halved(edges, due.edges[rank - 1]) if rank else 1.0
    steps = of.shared.study.steps
    return of_dies(of.dies, due.step.at, which, scale, samples.x0, samples.y, soft, steps, threads)


def _larger(of: Fitting, due: Due, threads: int) -> Counts:
    scale = np.ones(of.dies.units.size)
    scale[list(due.edges[: due.step.rank])] = 0.5
    return _right(of, of.dies.edges(due.step.at, range(of.shared.study.dies), scale), threads)


def _right(of: Fitting, edges: BuiltEdges, threads: int, readout: ReadOut | None = None) -> Counts:
    """Right samples of each die, by the study's samples."""
    shared = of.shared
    outputs, finite = of.dies.outputs(edges, shared.x0, shared.study.steps, threads)
    if readout is not None:
        outputs = readout.corrected(outputs)
    return np.asarray(right_labels(outputs, finite, shared.y).sum(axis=1), dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Fit:
    """A calibration of the study's dies: ``unfit`` of them have an output that is not finite; codes of their DACs
    [dies, trims]; their read-outs as built and on these codes."""

    unfit: int
    codes: Floats
    alone: ReadOut
    both: ReadOut

    @property
    def numbers(self) -> Floats:
        """All of it, flat."""
        of = (self.codes, self.alone.gain, self.alone.offset, self.both.gain, self.both.offset)
        return np.concatenate([[float(self.unfit)], *(part.ravel() for part in of)])

    @classmethod
    def of(cls, numbers: Floats, dies: int, trims: int) -> Fit:
        """Back from :attr:`numbers`."""
        codes, rest = np.split(numbers[1:], [dies * trims])
        gains = rest.reshape(4, dies, -1)
        return cls(int(numbers[0]), codes.reshape(dies, trims), ReadOut(*gains[:2]), ReadOut(*gains[2:]))


def _trims(of: Fitting, edges: Sequence[int]) -> Trims:
    settings = of.shared.study.calibration
    assert settings is not None
    return trims_of(of.dies, np.array(edges, dtype=np.int64), settings.bits, settings.span)


def _fit(of: Fitting, due: Due, threads: int) -> Floats:
    study, dies, at = of.shared.study, of.dies, due.step.at
    settings, samples = study.calibration, of.calibrated_on
    assert settings is not None and samples is not None
    target = trained_outputs(dies.cells, samples.x0, study.steps)

    def measure(edges: BuiltEdges) -> Floats:
        return dies.outputs(edges, samples.x0, study.steps, threads)[0]

    def readout(outputs: Floats) -> ReadOut:
        if settings.readout is not None:
            return fit_readout(outputs, target, settings.readout)
        return ReadOut(np.ones(outputs.shape[:2]), np.zeros(outputs.shape[:2]))

    built, trims = dies.edges(at, range(study.dies)), _trims(of, due.edges)
    outputs = measure(built)
    codes = np.zeros((study.dies, 0))
    if due.edges:
        codes = fit_trims(trims, dies.nominal(at), built, measure, target, settings.rounds)
    both = readout(measure(trims.applied(built, codes)))
    return Fit(int((~np.isfinite(outputs).all(axis=(1, 2))).sum()), codes, readout(outputs), both).numbers


def _count(of: Fitting, due: Due, threads: int) -> Counts:
    dies, step = of.shared.study.dies, due.step
    built = of.dies.edges(step.at, range(dies))
    if step.way == AS_BUILT:
        return _right(of, built, threads)
    assert due.fit is not None
    fit = Fit.of(due.fit, dies, len(due.edges))
    if step.way == READ_OUT:
        return _right(of, built, threads, fit.alone)
    set_ = _trims(of, due.edges).applied(built, fit.codes)
    return _right(of, set_, threads, fit.both if step.way == BOTH else None)


_NUMBERS: dict[Kind, Callable[[Fitting, Due, int], Floats | Counts]] = {
    Kind.GRADIENT: _gradient,
    Kind.HALVED: _halved,
    Kind.LARGER: _larger,
    Kind.FIT: _fit,
    Kind.COUNT: _count,
}


def effect(right: Counts, before: Counts, samples: int, limit: float) -> dict[str, Any]:
    """Accuracy and yield of dies, and their change from what the same dies had ``before``; ``error`` is the standard
    error of the mean change over the dies (None of one)."""
    good, was = right >= limit * samples, before >= limit * samples
    change = (right - before) / samples
    return {
        "accuracy": proportion(int(right.sum()), right.size * samples),
        "die_min": float(right.min() / samples),
        "yield": proportion(int(good.sum()), good.size),
        "change": float(change.mean()),
        "error": float(change.std(ddof=1) / np.sqrt(change.size)) if change.size > 1 else None,
        "repaired": int((good & ~was).sum()),
        "spoilt": int((was & ~good).sum()),
    }


def _calibrated(of: Fitting, edges: tuple[int, ...], run: Run) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The study's dies as built and calibrated, at each place by itself, and with what was found at the first of them
    at the others too; DACs are on ``edges``."""
    study, settings = of.shared.study, of.shared.study.calibration
    assert settings is not None
    places = len(of.places)
    fit_steps, count_steps = of.calibration[:places], of.calibration[places:]
    fits = run([Due(step, edges) for step in fit_steps], "dies calibrated")
    due = [Due(step, edges, fits[step.fitted_at]) for step in count_steps]
    counts = [numbers.astype(np.int64) for numbers in run(due, "calibrated dies counted")]
    samples, limit = len(of.shared.y), study.limits.die_accuracy
    before = {step.at: right for step, right in zip(count_steps, counts, strict=True) if step.way == AS_BUILT}
    rows = [
        {
            "condition": of.names[step.at],
            "calibrated_at": None if step.way == AS_BUILT else of.names[step.fitted_at],
            "what": step.way,
            **effect(right, before[step.at], samples, limit),
        }
        for step, right in zip(count_steps, counts, strict=True)
    ]
    found = [Fit.of(numbers, study.dies, len(edges)) for numbers in fits]
    outputs = of.shared.network.readout.size
    record = {
        **settings.model_dump(mode="json"),
        "edges": list(edges),
        "step": _trims(of, edges).step.tolist(),
        "runs_of_a_die": settings.samples * ((settings.rounds if edges else 0) + (settings.readout is not None)),
        "numbers_of_a_die": len(edges) + outputs * {"affine": 2, "offset": 1, None: 0}[settings.readout],
        "not_finite": max(fit.unfit for fit in found),
        "rows": rows,
    }
    arrays = {"right_calibrated": np.stack(counts), "trim_codes": found[0].codes.astype(np.int64)}
    return record, arrays
