"""Where transistors and cells are measured: a kit with its models, the conditions, and the cell's sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kcnet_eda.export.pdk_deck import model_header
from kcnet_eda.physical.cell_design import CellDesign
from kcnet_eda.physical.pdk import Pdk
from kcnet_eda.tools.pdk import MODELS_LINK, Models


@dataclass(frozen=True, eq=False)
class Bench:
    """Where a kit's devices are measured. ``temperature`` [°C] and ``supply`` [V] are the kit's if None; cells are
    drawn for the kit's supply in any case. ``seed`` draws mismatch, of which there is none if None."""

    pdk: Pdk
    models: Models
    corner: str = "tt"
    resistor_corner: str = "typ"
    temperature: float | None = None
    supply: float | None = None
    seed: int | None = None

    @property
    def direct(self) -> bool:
        """Whether the transistors' own models are placed, which is faster where a kit allows it."""
        return self.seed is None and all(t.direct is not None for t in (self.pdk.devices.nmos, self.pdk.devices.pmos))

    def header(self, extra: Sequence[str] = ()) -> str:
        """The header of a deck beside which the models are linked; ``extra`` are further compiled models."""
        return model_header(
            self.pdk,
            MODELS_LINK,
            [*(file.name for file in self.models.osdi), *extra],
            corner=self.corner,
            resistor_corner=self.resistor_corner,
            temperature=self.temperature,
            mismatch=self.seed is not None,
            seed=self.seed or 1,
            direct=self.direct,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Rig(Bench):
    """A bench with the edge cell as sized for its kit."""

    design: CellDesign
