"""The canonical edge law i = k·φ(a·v_s + b·v_d + c) and the published laws that are cases of it.

Source: Gao, Sun, Boning, arXiv 2310.15872, Eq. (6), for the default law; all quantities in model units.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: φ by its code in :attr:`Edges.phi`. The order is part of the file format: append, never reorder.
PHI_NAMES = ("relu", "leaky_relu", "tanh", "identity")
RELU, LEAKY_RELU, TANH, IDENTITY = range(4)

LEAKY_SLOPE = 0.01


def eq6(theta1: Floats, theta2: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """``(a, b, c, k)`` of Eq. (6), i = ReLU(θ1·(v_s − v_d) + θ2): the paper's default edge.

    The paper reads it as a conductance θ1 in parallel with a current source θ2, in series with a one-sided
    switch. Arrays of shape [E] in, arrays of shape [E] out.
    """
    theta1 = np.asarray(theta1, dtype=np.float64)
    return theta1, -theta1, np.asarray(theta2, dtype=np.float64), np.ones_like(theta1)


@dataclass(frozen=True)
class PublishedLaw:
    """A device law of the published code: the ``rows`` of its parameter array [rows, E], φ, and ``canonical``, which
    turns the rows into ``(a, b, c, k)``."""

    rows: int
    phi: int
    canonical: Callable[[Floats], tuple[Floats, Floats, Floats, Floats]]


def _shifted(p: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """p1·φ(v_s − v_d − p0)"""
    one = np.ones_like(p[0])
    return one, -one, -p[0], p[1]


def _affine(p: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """φ(p0·v_s + p1·v_d + p2)"""
    return p[0], p[1], p[2], np.ones_like(p[0])


def _difference(p: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """φ(p1·(v_s − v_d) + p0)"""
    return p[1], -p[1], p[0], np.ones_like(p[0])


def _conductance(p: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """p0·(v_s − v_d)"""
    return p[0], -p[0], np.zeros_like(p[0]), np.ones_like(p[0])


def _eq6_rows(p: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """φ(p0·(v_s − v_d) + p1)"""
    return eq6(p[0], p[1])


#: The laws without settings, by their published names. ShiftTanh1 and Conductance store rows that they never read.
PUBLISHED_LAWS = {
    "ShiftRelu1": PublishedLaw(2, RELU, _shifted),
    "ShiftLeakyRelu1": PublishedLaw(2, LEAKY_RELU, _shifted),
    "ShiftRelu2": PublishedLaw(3, RELU, _affine),
    "ShiftLeakyRelu2": PublishedLaw(3, LEAKY_RELU, _affine),
    "ShiftTanh1": PublishedLaw(3, TANH, _difference),
    "ShiftTanh2": PublishedLaw(3, TANH, _affine),
    "Conductance": PublishedLaw(3, IDENTITY, _conductance),
}


def published_device(negation: bool, phi: int) -> PublishedLaw:
    """The published ``Device``: of the voltage difference with ``negation``, of both voltages without."""
    return PublishedLaw(2, phi, _difference) if negation else PublishedLaw(3, phi, _affine)


def barebone_device(use_diff: bool, phi: int) -> PublishedLaw:
    """The barebone ``TwoTerminalDevice``: as ``Device``, but slope before offset where it takes the difference."""
    return PublishedLaw(2, phi, _eq6_rows) if use_diff else PublishedLaw(3, phi, _affine)
