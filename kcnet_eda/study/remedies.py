"""What to do about the yield of a study: which edges to make larger, and what calibrating each die brings.

What is fitted on and what is measured on have nothing in common. Edges are ranked on dies after the study's and on
samples that are none of the study's; a die is calibrated on such samples too. Effects are measured on the study's own
dies and samples, before and after on the same ones (common random numbers).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.dynamics.edge_law import BuiltEdges
from kcnet_eda.errors import InvalidInputError
from kcnet_eda.network.data import DataSet, load_data
from kcnet_eda.network.graph import Network
from kcnet_eda.physical.condition import Condition
from kcnet_eda.physical.edge_model import EdgeModel
from kcnet_eda.progress import Progress
from kcnet_eda.study.accuracy import proportion
from kcnet_eda.study.die_calibration import ReadOut, fit_readout, fit_trims, trained_outputs, trims_of
from kcnet_eda.study.dies import Dies, right_labels
from kcnet_eda.study.pvt_settings import PvtStudy
from kcnet_eda.study.pvt_work import Shared
from kcnet_eda.study.simulate import require_fit
from kcnet_eda.study.yield_sensitivity import sensitivity_record

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


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


def remedies(
    shared: Shared, measured_on: DataSet, home: Place, worst: Place, threads: int, progress: Progress
) -> Remedies:
    """What ``shared.study`` asks for; ``measured_on`` are its samples, ``home`` and ``worst`` the kit's nominal and the
    study's worst condition."""
    study, network = shared.study, shared.network
    places = [home] if home.condition == worst.condition else [home, worst]
    dies = replace(shared.dies, models=tuple(place.model for place in places))
    names = [place.condition.name for place in places]
    at = len(places) - 1
    sensitivity: dict[str, Any] | None = None
    calibration: dict[str, Any] | None = None
    arrays: dict[str, NDArray[Any]] = {}
    if study.sensitivity is not None:
        asked = study.sensitivity
        data = fitting_samples(asked.data, asked.samples, study, measured_on, network)
        assert data.y is not None  # fitting_samples has seen to it
        which = range(study.dies, study.dies + asked.dies)
        x0, limit = network.initial_state(data.x), study.limits.die_accuracy
        found = sensitivity_record(dies, at, which, x0, data.y, asked, limit, study.steps, threads, progress)
        larger = _larger(dies, at, shared, found["by_gradient"][: found["run_again"]], threads)
        sensitivity = {"condition": names[at], **found, "larger": larger}
    if study.calibration is not None:
        data = fitting_samples(study.calibration.data, study.calibration.samples, study, measured_on, network)
        order = [] if sensitivity is None else sensitivity["by_gradient"]
        trimmed = np.array(order[: study.calibration.trims], dtype=np.int64)
        calibration, arrays = _calibrated(
            dies, names, shared, network.initial_state(data.x), trimmed, threads, progress
        )
    return Remedies(sensitivity, calibration, arrays)


def _right(dies: Dies, edges: BuiltEdges, shared: Shared, threads: int, readout: ReadOut | None = None) -> Counts:
    """Right samples of each die, by the study's samples."""
    outputs, finite = dies.outputs(edges, shared.x0, shared.study.steps, threads)
    if readout is not None:
        outputs = readout.corrected(outputs)
    return np.asarray(right_labels(outputs, finite, shared.y).sum(axis=1), dtype=np.int64)


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


def _larger(dies: Dies, at: int, shared: Shared, edges: Sequence[int], threads: int) -> dict[str, Any]:
    """What it brings on the study's dies to give the devices of ``edges`` four times their area."""
    which, scale = range(shared.study.dies), np.ones(dies.units.size)
    scale[list(edges)] = 0.5
    before, after = (_right(dies, dies.edges(at, which, s), shared, threads) for s in (np.ones_like(scale), scale))
    limit, samples = shared.study.limits.die_accuracy, len(shared.y)
    return {
        "edges": len(edges),
        "area": float(1 + 3 * dies.units[list(edges)].sum() / dies.units.sum()),
        "before": effect(before, before, samples, limit),
        "after": effect(after, before, samples, limit),
    }


def _calibrated(
    dies: Dies,
    names: list[str],
    shared: Shared,
    x_fit: Floats,
    trimmed: NDArray[np.int64],
    threads: int,
    progress: Progress,
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The study's dies as built and calibrated, at each of the conditions of ``dies`` by itself, and with what was
    found at the first of them at the others too."""
    study, settings = shared.study, shared.study.calibration
    assert settings is not None
    which, samples, limit = range(study.dies), len(shared.y), study.limits.die_accuracy
    target = trained_outputs(dies.cells, x_fit, study.steps)
    trims = trims_of(dies, trimmed, settings.bits, settings.span)
    fits: list[tuple[Floats, ReadOut | None, ReadOut | None]] = []  # codes, read-out alone, read-out on these codes

    def measure(edges: BuiltEdges) -> Floats:
        return dies.outputs(edges, x_fit, study.steps, threads)[0]

    def readout(outputs: Floats) -> ReadOut | None:
        return None if settings.readout is None else fit_readout(outputs, target, settings.readout)

    rows: list[dict[str, Any]] = []
    counts: list[Counts] = []
    unfit = 0
    with progress.stage("dies calibrated", 2 * len(names)) as advance:
        for at, _ in enumerate(names):
            built = dies.edges(at, which)
            outputs = measure(built)
            unfit = max(unfit, int((~np.isfinite(outputs).all(axis=(1, 2))).sum()))
            codes = np.zeros((study.dies, 0))
            if trimmed.size:
                codes = fit_trims(trims, dies.nominal(at), built, measure, target, settings.rounds)
            fits.append((codes, readout(outputs), readout(measure(trims.applied(built, codes)))))
            advance(1)
        for at, name in enumerate(names):
            built = dies.edges(at, which)
            before = _right(dies, built, shared, threads)
            for fitted_at in dict.fromkeys((at, 0)):
                codes, alone, both = fits[fitted_at]
                set_ = trims.applied(built, codes)
                ways: list[tuple[str, BuiltEdges, ReadOut | None]] = [("as built", built, None)]
                if alone is not None:
                    ways.append(("read-out", built, alone))
                if trimmed.size:
                    ways.append(("DACs", set_, None))
                if trimmed.size and both is not None:
                    ways.append(("DACs and read-out", set_, both))
                for what, edges, way in ways[1 if fitted_at != at else 0 :]:
                    right = before if what == "as built" else _right(dies, edges, shared, threads, way)
                    counts.append(right)
                    where = None if what == "as built" else names[fitted_at]
                    found = effect(right, before, samples, limit)
                    rows.append({"condition": name, "calibrated_at": where, "what": what, **found})
            advance(1)
    record = {
        **settings.model_dump(mode="json"),
        "edges": trimmed.tolist(),
        "step": trims.step.tolist(),
        "runs_of_a_die": settings.samples * ((settings.rounds if trimmed.size else 0) + (settings.readout is not None)),
        "numbers_of_a_die": trimmed.size + target.shape[0] * {"affine": 2, "offset": 1, None: 0}[settings.readout],
        "not_finite": unfit,
        "rows": rows,
    }
    return record, {"right_calibrated": np.stack(counts), "trim_codes": fits[0][0].astype(np.int64)}
