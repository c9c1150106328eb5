"""Losses of a network's outputs at T, and their gradients: what an adjoint starts from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.network.graph import Network

Floats = NDArray[np.float64]

LossKind = Literal["cross_entropy", "output", "sum"]


@dataclass(frozen=True)
class Loss:
    """A loss L of v(T), in model units: ``cross_entropy`` of ``gain``·v(T) at the read-out nodes against the label, as
    in training; the ``output`` of the label, or the ``sum`` of all outputs (neither sees the gain)."""

    kind: LossKind = "cross_entropy"
    gain: float = 8.0

    @property
    def needs_label(self) -> bool:
        """Whether it can be told only where the label is known."""
        return self.kind != "sum"

    def value(self, network: Network, v_end: Floats, label: int) -> float:
        """L at ``v_end`` = v(T) [nodes]."""
        out = v_end[network.readout]
        if self.kind == "sum":
            return float(out.sum())
        if self.kind == "output":
            return float(out[label])
        return float(np.logaddexp.reduce(self.gain * out) - self.gain * out[label])

    def gradient(self, network: Network, v_end: Floats, label: int) -> Floats:
        """∂L/∂v(T) [nodes], ground's 0."""
        of_out = np.ones(network.readout.size)
        if self.kind != "sum":
            of_out = np.zeros(network.readout.size)
            of_out[label] = 1.0
        if self.kind == "cross_entropy":
            z = self.gain * v_end[network.readout]
            share = np.exp(z - z.max())
            of_out = self.gain * (share / share.sum() - of_out)
        of_end = np.zeros(v_end.size)
        np.add.at(of_end, network.readout, of_out)
        of_end[0] = 0.0
        return of_end
