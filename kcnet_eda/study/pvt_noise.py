"""Noise in the study over conditions and dies: kT/C of what was written and white noise of the edges, against C.

At the kit's nominal condition and on the die without mismatch, by the fast engine with :mod:`kcnet_eda.dynamics.noise`.
C sets the speed, T_u = C·V_u/I_u, since the kit's cells have their V_u and I_u.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.dynamics.noise import WhiteNoise, evolve_noisy
from kcnet_eda.export.mos_netlist import MosCircuit
from kcnet_eda.network.graph import Network
from kcnet_eda.physical.condition import Condition
from kcnet_eda.physical.edge_model import EdgeModel
from kcnet_eda.physical.pdk import Pdk
from kcnet_eda.physical.thermal import ktc_noise
from kcnet_eda.study.accuracy import wilson
from kcnet_eda.study.dies import Dies
from kcnet_eda.study.export_mos import kit_scaling
from kcnet_eda.study.pvt_settings import Noise
from kcnet_eda.study.pvt_work import Shared

Floats = NDArray[np.float64]

WITHIN = 0.005  # of the accuracy without noise, for the smallest C
_NOISE = 2  # the first word of a draw's key among what the seed draws


def noise_record(
    shared: Shared, settings: Noise, kit: Pdk, home: Condition, model: EdgeModel, mos: MosCircuit, threads: int
) -> dict[str, Any]:
    """Accuracy against C, plain JSON values; ``model`` are the edges at ``home``, ``mos`` the network's cells.

    Every C is computed twice on the same draws: with the lag that the edges have at the study's T_u, which is what
    noise alone costs, and with the lag that the cells have at the T_u of that C.
    """
    scalings = [kit_scaling(kit, c, None) for c in sorted(settings.capacitances, reverse=True)]
    at_study = kit_scaling(kit, None, shared.study.t_unit).t_unit
    gm_id = kit.operating.gm_id.mirror
    samples, duration = len(shared.y), shared.network.phases[0].duration

    def right(c: float, t_unit: float, draw: int | None) -> int:
        sigma = ktc_noise(c, home.temperature) / kit.operating.v0
        white = WhiteNoise(settings.excess * sigma**2, settings.mirrors * gm_id * kit.operating.v0)
        dies = replace(shared.dies, models=(model,), t_unit=t_unit)
        return count_right(dies, shared, settings.steps, None if draw is None else (sigma, white, draw))

    def jobs_of(c: float, t_unit: float) -> list[Callable[[], int]]:
        return [lambda k=k: right(c, t_unit, k) for k in range(settings.draws)]  # type: ignore[misc]

    jobs = [lambda: right(scalings[0].c, at_study, None)]
    for s in scalings:
        jobs += [*jobs_of(s.c, at_study), *jobs_of(s.c, s.t_unit), lambda s=s: right(s.c, s.t_unit, None)]  # type: ignore[misc]
    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(lambda job: job(), jobs))
    reference, trials = found.pop(0), settings.draws * samples
    rows: list[dict[str, Any]] = []
    pins, current = float(mos.parasitics.max()), mos.static_current
    for i, s in enumerate(scalings):
        counts = found[i * (2 * settings.draws + 1) : (i + 1) * (2 * settings.draws + 1)]
        alone, lagged = sum(counts[: settings.draws]), sum(counts[settings.draws : -1])
        rows.append(
            {
                "c": s.c,
                "t_unit_s": s.t_unit,
                "t_s": s.t_unit * duration,
                "sigma_v": ktc_noise(s.c, home.temperature),
                "noise": _proportion(alone, trials),
                "lag": _proportion(counts[-1], samples),
                "noise_and_lag": _proportion(lagged, trials),
                "energy_j": current * home.supply * s.t_unit * duration,
                "above_pins": s.c > pins,
            }
        )
    return {
        "condition": home.name,
        "temperature": home.temperature,
        "die": "nominal",
        **settings.model_dump(mode="json", exclude={"capacitances"}),
        "mirror_gm_id": gm_id,
        "within": WITHIN,
        "reference": _proportion(reference, samples),
        "supply_current_a": current,
        "pins_f": pins,
        "smallest": {
            what: smallest_c([(row["c"], row[what]["value"]) for row in rows], reference / samples)
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
    network: Network = shared.network
    sigma, white, draw = noise or (0.0, WhiteNoise(0.0), 0)
    rng = np.random.default_rng(np.random.SeedSequence(dies.seed, spawn_key=(_NOISE, draw)))
    written = rng.standard_normal(shared.x0.shape)
    written[:, 0] = 0.0  # ground is held
    duration = network.phases[0].duration
    x0 = shared.x0 + sigma * written
    v = evolve_noisy(dies.cells.ends, dies.nominal(0), x0, duration, white, rng, steps=steps)
    return int(((v[network.readout].argmax(axis=0) == shared.y) & np.isfinite(v).all(axis=0)).sum())


def _proportion(right: int, trials: int) -> dict[str, Any]:
    return {"value": right / trials, "right": right, "trials": trials, "interval": list(wilson(right, trials))}
