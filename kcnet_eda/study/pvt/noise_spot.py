"""Spot checks of the noise: samples run in ngspice with transient noise, and how far it spreads the outputs.

On calibrated Verilog-A edges, at the nominal condition, on the die without mismatch and at one C. Every edge has a
noise source of its own, and every node its kT/C; all numbers come from the study's seed, none is shared with the
engine's draws. A sample is run twice with noise of its own: half the mean square of the difference of two such runs is
the variance, whatever both have in common.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from kcnet_eda.dynamics.noise import WhiteNoise, evolve_noisy
from kcnet_eda.export.calibrated import MODULE, NOISE, CalibratedDie, DrawnNoise, render_die
from kcnet_eda.export.testbench import ORDERS, SolverSettings, Window
from kcnet_eda.files import sha256_bytes
from kcnet_eda.physical.scaling import Scaling
from kcnet_eda.study.campaign.ladder import climb, ladder
from kcnet_eda.study.mos.export import kit_scaling
from kcnet_eda.study.pvt.dies import NOMINAL, Dies
from kcnet_eda.study.pvt.noise import NoiseStudy
from kcnet_eda.study.pvt.repeat import run_die, tools_of
from kcnet_eda.study.pvt.work import require_version
from kcnet_eda.study.store import Result
from kcnet_eda.tools.simulators import NGSPICE

Floats = NDArray[np.float64]

#: What a deck with transient noise is compiled from, and how it is solved.
MODULES = (MODULE, NOISE)
SETTINGS = SolverSettings(1e-3, 200, ORDERS[NGSPICE.name])
#: Of a noise source over T: lines between them take a share of 0.5/POINTS times T over a node's own time.
POINTS = 400
_DRAWS = 200  # of the engine for each sample
_WITHIN = 0.1  # of the engine's σ
_LEVEL = 0.95
_SPOT = 5  # the first word of its keys among what the seed draws
_SAMPLES, _SPICE, _ENGINE = range(3)  # the second


@dataclass(frozen=True, order=True)
class SpotRun:
    """A row of the store: a sample, by number, and which of its two runs."""

    sample: int
    twin: int


@dataclass(frozen=True, eq=False)
class SpotChecks:
    """What the spot checks of a study have in common; ``simulator_version`` is the ngspice they are planned for."""

    noise: NoiseStudy
    simulator_version: str

    @property
    def c(self) -> float:
        """Their capacitance [F]."""
        settings = self.noise.settings
        return settings.spot_c or min(settings.capacitances)

    @property
    def scaling(self) -> Scaling:
        """That of their C; edges have the lag in T_u that they have at the study's."""
        return kit_scaling(self.noise.kit, self.c, None)

    @property
    def runs(self) -> list[SpotRun]:
        """Two runs for each sample."""
        of = len(self.noise.shared.y)
        count = min(self.noise.settings.spot_checks, of)
        return [
            SpotRun(int(i), k) for i in np.sort(self._rng(_SAMPLES).choice(of, count, replace=False)) for k in (0, 1)
        ]

    @property
    def settings(self) -> SolverSettings:
        """Solver settings as planned."""
        return SETTINGS

    @property
    def _drawn(self) -> tuple[float, WhiteNoise]:
        """kT/C in V_u, and the edges' noise."""
        return self.noise.drawn(self.c)

    def _rng(self, *words: int) -> np.random.Generator:
        seed = self.noise.shared.dies.seed
        return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_SPOT, *words)))

    @property
    def _dies(self) -> Dies:
        return replace(self.noise.shared.dies, models=(self.noise.model,), spread=None)

    @cached_property
    def _tools(self) -> str:
        return tools_of(MODULES, self.simulator_version)

    def deck(self, run: SpotRun, settings: SolverSettings) -> tuple[str, Window, Floats]:
        """The deck of a run, what it covers, and its initial state [nodes] in model units."""
        dies, scaling, home = self._dies, self.scaling, self.noise.home
        sigma, white = self._drawn
        rng = self._rng(_SPICE, run.sample, run.twin)
        x0 = self.noise.shared.x0[run.sample]
        v0, drawn = noisy_start(rng, x0, sigma, dies.units.size, self.noise.settings.excess, white)
        model = replace(self.noise.model, lag=self.noise.model.lag / dies.t_unit * scaling.t_unit)
        normals = np.zeros((3, dies.units.size))
        die = CalibratedDie(
            *(dies.cells.network, dies.cells.ends, dies.nominal(0), dies.units, model, None, normals, NOMINAL),
            home.temperature,
        )
        text, window = render_die(die, scaling, settings, v0, "die", drawn)
        return text, window, v0

    def key(self, run: SpotRun) -> str:
        """The hash of all that determines a run; the deck has all its numbers."""
        words = [repr(run), self._tools, self.deck(run, self.settings)[0], repr(ladder(self.settings))]
        return sha256_bytes("\n".join(words).encode())

    def attempt(self, run: SpotRun, settings: SolverSettings, folder: Path) -> Result:
        """A run in ngspice: its final state in model units. Deck and log stay in the new ``folder``."""
        text, window, v0 = self.deck(run, settings)
        return run_die((text, window), MODULES, self.scaling, v0, folder, self.noise.shared.study.timeout_s)

    def engine_variance(self, sample: int) -> Floats:
        """Variance [outputs] of the final outputs of a sample by the fast engine, V_u²."""
        dies, network, settings = self._dies, self.noise.shared.network, self.noise.settings
        rng = self._rng(_ENGINE, sample)
        x0 = np.tile(self.noise.shared.x0[sample], (_DRAWS, 1))
        written = rng.standard_normal(x0.shape)
        written[:, 0] = 0.0
        sigma, white = self._drawn
        duration = network.phases[0].duration
        v = evolve_noisy(
            dies.cells.ends, dies.nominal(0), x0 + sigma * written, duration, white, rng, steps=settings.steps
        )
        return np.asarray(v[network.readout].astype(np.float64).var(axis=1, ddof=1))


def noisy_start(
    rng: np.random.Generator, x0: Floats, sigma: float, edges: int, excess: float, white: WhiteNoise
) -> tuple[Floats, DrawnNoise]:
    """What a run with noise starts from instead of ``x0`` [nodes], with kT/C of ``sigma``, and the noise of its
    ``edges``, of γ ``excess``."""
    written = rng.standard_normal(x0.size)
    written[0] = 0.0  # ground is held
    return x0 + sigma * written, DrawnNoise(rng.standard_normal((POINTS + 1, edges)), excess, white.mirror)


def spot_on_worker(spot: SpotChecks, run: SpotRun, scratch: Path) -> Result:
    """A run in ngspice along the ladder of solver options; as a campaign's work."""
    require_version(spot.simulator_version)
    return climb(spot.settings, lambda settings, folder: spot.attempt(run, settings, folder), scratch)


def spot_record(spot: SpotChecks, results: Mapping[SpotRun, Result]) -> dict[str, Any]:
    """σ of the outputs by both, and their ratio with its interval; plain JSON values.

    A sample counts where both of its runs passed. The interval is Student's, of the samples' mean squares. ``kept``: no
    run failed, and the interval has a ratio within a tenth of 1.
    """
    readout = spot.noise.shared.network.readout
    spice, engine = [], []
    for sample in sorted({run.sample for run in results}):
        one, two = (results[SpotRun(sample, k)].v_end for k in (0, 1))
        if one is not None and two is not None:
            spice.append(float(np.mean((one[readout] - two[readout]) ** 2) / 2))
            engine.append(float(spot.engine_variance(sample).mean()))
    failed = [r.message for r in results.values() if r.v_end is None]
    record: dict[str, Any] = {
        "level": "behavioral",
        "simulator": spot.simulator_version,
        "c": spot.c,
        "runs": len(results),
        "failed": len(failed),
        "first_failure": failed[0] if failed else None,
        "samples": len(spice),
        "outputs": int(readout.size),
        "engine_draws": _DRAWS,
        **dict.fromkeys(("sigma_v", "engine_sigma_v", "ratio", "interval")),
        "within": _WITHIN,
        "kept": False,
    }
    ratio = spread_ratio(np.array(spice), np.array(engine))
    if ratio is not None:
        v_unit = spot.scaling.v_unit
        value, low, high = ratio
        record |= {
            "sigma_v": float(np.sqrt(np.mean(spice))) * v_unit,
            "engine_sigma_v": float(np.sqrt(np.mean(engine))) * v_unit,
            "ratio": value,
            "interval": [low, high],
            "kept": not failed and low <= 1 + _WITHIN and high >= 1 - _WITHIN,
        }
    return record


def spread_ratio(mean_squares: Floats, of_engine: Floats) -> tuple[float, float, float] | None:
    """The ratio of two σ and its 95 % interval, from mean squares [samples] of the same samples; None of fewer than two
    samples, or where nothing moves."""
    n = mean_squares.size
    if n < 2 or of_engine.sum() == 0:
        return None
    ratio = float(mean_squares.sum() / of_engine.sum())
    error = float((mean_squares - ratio * of_engine).std(ddof=1) / np.sqrt(n) / of_engine.mean())
    reach = float(student.ppf((1 + _LEVEL) / 2, n - 1)) * error
    return float(np.sqrt(ratio)), float(np.sqrt(max(0.0, ratio - reach))), float(np.sqrt(ratio + reach))
