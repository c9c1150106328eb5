"""Where transistors and cells are measured: a kit with its models, the conditions, and the cell's sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from kcnet_eda.errors import BadDataError, ToolFailedError
from kcnet_eda.export.pdk_deck import model_header
from kcnet_eda.physical.cell_design import CellDesign
from kcnet_eda.physical.pdk import Pdk
from kcnet_eda.tools.pdk import MODELS_LINK, Models, run_beside
from kcnet_eda.tools.pdk_check import pdk_check

_T = TypeVar("_T")


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
        return self.seed is None and self.pdk.has_direct

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

    def run(self, deck: str, name: str, timeout_s: float, read: Callable[[Path], _T]) -> _T:
        """Run a ``deck`` beside the kit's models and ``read`` its folder, as :func:`run_beside` does. Where it fails,
        the kit's own check says which device it is and what to do.

        Raises
        ------
        KcnetError
            The simulator gave no result, or not what was asked for: the kit's file, device and remedy are named, or,
            where each device works alone, the log.
        """
        try:
            return run_beside(self.models, deck, name, timeout_s, read)
        except (ToolFailedError, BadDataError) as error:
            pdk_check(self.pdk.file, sorted({self.corner, self.resistor_corner} - {"typ"}), models=self.models.folder)
            raise type(error)(
                f"{self.pdk.file}: {error}\n  Each device passes kcnet pdk check at corner {self.corner}, "
                f"{self.resistor_corner} alone: look at options and operating in that file, and at the log."
            ) from None


@dataclass(frozen=True, eq=False, kw_only=True)
class Rig(Bench):
    """A bench with the edge cell as sized for its kit."""

    design: CellDesign
