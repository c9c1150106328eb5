"""The two-dimensional distributions that the published generative networks were trained on.

Source: the code published with Gao, Sun, Boning, arXiv 2310.15872 (``utils/testbench.py``), whose facts are kept and
whose text is not. The two potentials are U1 and U2 of Rezende and Mohamed, arXiv 1505.05770, Table 1.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Generator = np.random.Generator


def _moons(n: int, rng: Generator) -> Floats:
    from sklearn.datasets import make_moons

    return np.asarray(make_moons(n, noise=0.1, random_state=_state(rng))[0])


def _circles(n: int, rng: Generator) -> Floats:
    from sklearn.datasets import make_circles

    return np.asarray(make_circles(n, noise=0.06, factor=0.5, random_state=_state(rng))[0])


def _swiss_roll(n: int, rng: Generator) -> Floats:
    from sklearn.datasets import make_swiss_roll

    return np.asarray(make_swiss_roll(n, noise=1.0, random_state=_state(rng))[0])[:, [0, 2]] / 5.0


def _state(rng: Generator) -> int:
    return int(rng.integers(2**31))


def _spirals(n: int, rng: Generator) -> Floats:
    """Two arms of one and a half turns, the second the first's mirror image in the origin."""
    turn = np.sqrt(rng.random(n)) * 3.0 * np.pi
    arm = np.stack([-np.cos(turn) * turn, np.sin(turn) * turn], axis=1) + 0.5 * rng.random((n, 2))
    sign = np.where(np.arange(n) % 2, -1.0, 1.0)[:, None]
    return sign * arm / 3.0 + 0.1 * rng.standard_normal((n, 2))


def _pinwheel(n: int, rng: Generator) -> Floats:
    """Five arms, each a radial Gaussian, turned further the farther out."""
    points = rng.standard_normal((n, 2)) * [0.3, 0.1] + [1.0, 0.0]
    angle = 2.0 * np.pi / 5.0 * (np.arange(n) % 5) + 0.25 * np.exp(points[:, 0])
    x, y = points.T
    return 2.0 * np.stack([x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)], axis=1)


def _eight_gaussians(n: int, rng: Generator) -> Floats:
    angle = np.pi / 4.0 * rng.integers(8, size=n)
    centre = 4.0 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return (centre + 0.5 * rng.standard_normal((n, 2))) / 1.414


def _gauss(n: int, rng: Generator) -> Floats:
    return rng.standard_normal((n, 2)) - 1.0


def _potential1(n: int, rng: Generator) -> Floats:
    """exp(−U1): a ring of radius 2, heavier on the left and on the right; by rejection."""
    kept: list[Floats] = []
    while sum(map(len, kept)) < n:
        z = rng.uniform(-5.0, 5.0, (16 * n, 2))
        sides = np.exp(-0.5 * ((z[:, :1] + [2.0, -2.0]) / 0.6) ** 2).sum(axis=1)
        density = np.exp(-0.5 * ((np.hypot(*z.T) - 2.0) / 0.4) ** 2) * sides
        kept.append(z[rng.random(len(z)) * 1.01 < density])  # the sum of the two sides is nowhere above 1.01
    return np.concatenate(kept)[:n]


#: Samplers ``(n, rng) -> [n, 2]`` by the published test bench's name.
TOYS: dict[str, Callable[[int, Generator], Floats]] = {
    "twomoon": _moons,
    "circle": _circles,
    "swissroll": _swiss_roll,
    "2spirals": _spirals,
    "pinwheel": _pinwheel,
    "8gaussians": _eight_gaussians,
    "gauss": _gauss,
    "potential1": _potential1,
}


def potential2_given_first(points: Floats, rng: Generator) -> Floats:
    """Points [n, 2] with the first coordinates of ``points`` and second ones drawn from exp(−U2) given those.

    U2 does not bound the first coordinate, so there is no distribution of both to compare with; given the first, the
    second is a Gaussian about a sine.
    """
    first = points[:, 0]
    return np.stack([first, np.sin(np.pi * first / 2.0) + 0.4 * rng.standard_normal(len(first))], axis=1)
