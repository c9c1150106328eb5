"""A condition of process, supply and temperature."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Condition:
    """A corner of the transistors and one of the resistor, the supply [V] and the temperature [°C]."""

    corner: str
    resistor: str
    supply: float
    temperature: float

    @property
    def name(self) -> str:
        """How tables call it."""
        return f"{self.corner}/{self.resistor} {self.supply:g} V {self.temperature:g} °C"
