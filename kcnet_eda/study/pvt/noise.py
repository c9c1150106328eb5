"""Noise in the study over conditions and dies: kT/C of what was written and white noise of the edges, against C.

At the kit's nominal condition and on the die without mismatch, by the fast engine with :mod:`kcnet_eda.dynamics.noise`.
C sets the speed, T_u = C·V_u/I_u, since the kit's cells have their V_u and I_u.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.dynamics.noise import WhiteNoise, right_with_noise
from kcnet_eda.export.mos_netlist import MosCircuit
from kcnet_eda.files import sha256_bytes
from kcnet_eda.physical.condition import Condition
from kcnet_eda.physical.edge_model import EdgeModel
from kcnet_eda.physical.pdk import Pdk
from kcnet_eda.physical.scaling import Scaling
from kcnet_eda.physical.thermal import kit_noise, ktc_noise
from kcnet_eda.study.accuracy import wilson
from kcnet_eda.study.mos.export import kit_scaling
from kcnet_eda.study.pvt.dies import Dies
from kcnet_eda.study.pvt.settings import Noise
from kcnet_eda.study.pvt.work import Shared
from kcnet_eda.study.store import Result, Status
from kcnet_eda.units import format_si

Floats = NDArray[np.float64]

WITHIN = 0.005  # of the accuracy without noise, for the smallest C
REFERENCE = "without_noise"
_NOISE = 2  # the first word of a draw's key among what the seed draws


@dataclass(frozen=True)
class NoiseRun:
    """A row of the store: all samples once, at a capacitance ``c`` [F] (None: without noise at the study's T_u), with
    the lag that cells have at ``t_unit`` [s]. ``draw`` numbers the noise's draw (None: none), ``what`` is the column.
    """

    what: str
    c: float | None
    t_unit: float
    draw: int | None

    @property
    def name(self) -> str:
        """How tables call it."""
        words = [self.what.replace("_", " ")]
        words += [] if self.c is None else [f"C {format_si(self.c, 'F')}"]
        return ", ".join(words + ([] if self.draw is None else [f"draw {self.draw}"]))


@dataclass(frozen=True, eq=False)
class NoiseStudy:
    """What all runs of the noise have in common: ``model`` are the edges at the condition ``home``."""

    shared: Shared
    settings: Noise
    kit: Pdk
    home: Condition
    model: EdgeModel

    @property
    def scalings(self) -> list[Scaling]:
        """Those of each C, falling."""
        return [kit_scaling(self.kit, c, None) for c in sorted(set(self.settings.capacitances), reverse=True)]

    @property
    def runs(self) -> list[NoiseRun]:
        """Every run. Every C is there twice on the same draws: with the lag that the edges have at the study's T_u,
        which is what noise alone costs, and with the lag that the cells have at the T_u of that C; and once without
        noise."""
        at_study, draws = self.shared.scaling.t_unit, range(self.settings.draws)
        found = [NoiseRun(REFERENCE, None, at_study, None)]
        for s in self.scalings:
            found += [NoiseRun("noise", s.c, at_study, k) for k in draws]
            found += [NoiseRun("noise_and_lag", s.c, s.t_unit, k) for k in draws]
            found.append(NoiseRun("lag", s.c, s.t_unit, None))
        return found

    def drawn(self, c: float) -> tuple[float, WhiteNoise]:
        """kT/C of ``c`` [F] in V_u, and the white noise of the edges."""
        return kit_noise(self.kit, c, self.home.temperature, self.settings.excess, self.settings.mirrors)

    def key(self, run: NoiseRun, data: str) -> str:
        """The hash of all that determines a run; ``data`` tells the network and the samples."""
        s, dies = self.settings, self.shared.dies
        words = [data, repr(run), repr(self.model), repr(self.home), repr(dies.units.tolist()), str(dies.seed)]
        words += [repr((s.excess, s.mirrors, s.steps, self.kit.operating.v0, self.kit.operating.gm_id.mirror))]
        return sha256_bytes("\n".join(words).encode())


def run_noise(noise: NoiseStudy, run: NoiseRun) -> Result:
    """How many samples are right, of how many: ``v_end`` [2]."""
    begun, shared = time.monotonic(), noise.shared
    drawn = None if run.draw is None or run.c is None else (*noise.drawn(run.c), run.draw)
    dies = replace(shared.dies, models=(noise.model,), t_unit=run.t_unit)
    counts = np.array([count_right(dies, shared, noise.settings.steps, drawn), len(shared.y)], dtype=float)
    return Result(Status.PASSED, "", time.monotonic() - begun, 0, counts)


def noise_on_worker(noise: NoiseStudy, run: NoiseRun, scratch: Path) -> Result:
    """:func:`run_noise` as a campaign's work."""
    return run_noise(noise, run)


def noise_record(noise: NoiseStudy, results: Mapping[NoiseRun, Result], mos: MosCircuit) -> dict[str, Any]:
    """Accuracy against C, plain JSON values; ``mos`` are the network's cells."""
    settings, home, duration = noise.settings, noise.home, noise.shared.network.phases[0].duration

    def counted(what: str, c: float | None) -> dict[str, Any]:
        counts = [result.v_end for run, result in results.items() if (run.what, run.c) == (what, c)]
        right, trials = np.sum([v for v in counts if v is not None], axis=0).astype(int).tolist()
        return {"value": right / trials, "right": right, "trials": trials, "interval": list(wilson(right, trials))}

    reference = counted(REFERENCE, None)
    pins, current = float(mos.parasitics.max()), mos.static_current
    rows: list[dict[str, Any]] = [
        {
            "c": s.c,
            "t_unit_s": s.t_unit,
            "t_s": s.t_unit * duration,
            "sigma_v": ktc_noise(s.c, home.temperature),
            "noise": counted("noise", s.c),
            "lag": counted("lag", s.c),
            "noise_and_lag": counted("noise_and_lag", s.c),
            "energy_j": current * home.supply * s.t_unit * duration,
            "above_pins": s.c > pins,
        }
        for s in noise.scalings
    ]
    return {
        "condition": home.name,
        "temperature": home.temperature,
        "die": "nominal",
        **settings.model_dump(mode="json", exclude={"capacitances"}),
        "mirror_gm_id": noise.kit.operating.gm_id.mirror,
        "within": WITHIN,
        "reference": reference,
        "supply_current_a": current,
        "pins_f": pins,
        "smallest": {
            what: smallest_c([(row["c"], row[what]["value"]) for row in rows], reference["value"])
            for what in ("noise", "noise_and_lag")
        },
        "rows": rows,
    }


def smallest_c(points: list[tuple[float, float]], reference: float) -> float | None:
    """Of (C, accuracy), C falling, the last before the accuracy first falls short of ``reference`` by more than
    :data:`WITHIN`; None if it does so at once."""
    found = None
    for c, accuracy in points:
        if accuracy < reference - WITHIN - 1e-12:  # counts over counts: half a point is within
            break
        found = c
    return found


def count_right(dies: Dies, shared: Shared, steps: int, noise: tuple[float, WhiteNoise, int] | None) -> int:
    """How many samples the die without mismatch of the first condition gets right; ``noise``: rms of the initial
    voltages [V_u], that of the edges, and the draw's number. What is not finite is wrong."""
    sigma, white, draw = noise or (0.0, WhiteNoise(0.0), 0)
    rng = np.random.default_rng(np.random.SeedSequence(dies.seed, spawn_key=(_NOISE, draw)))
    ends, edges = dies.cells.ends, dies.nominal(0)
    return right_with_noise(shared.network, ends, edges, shared.x0, shared.y, (sigma, white), rng, steps=steps)
