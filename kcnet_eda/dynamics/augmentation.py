"""Random distortions of training images: rotation, shift, scale, and a smooth elastic field."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

from kcnet_eda.config import Settings

_CONTROL = 3  # control points of the elastic field along each side


class Augmentation(Settings):
    """Each image is distorted anew each time it is shown; the affine parts are uniform within ± these."""

    rotate_degrees: Annotated[float, Field(ge=0, le=180)] = 10.0
    shift_pixels: Annotated[float, Field(ge=0)] = 0.5
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.1
    elastic_pixels: Annotated[float, Field(ge=0)] = 0.2  # standard deviation at the control points


def augment(x: Tensor, grid: tuple[int, int], settings: Augmentation, generator: torch.Generator) -> Tensor:
    """Distorted copies of images ``x`` [n, pixels], resampled bicubically and held within 0..1."""
    n, (rows, columns) = len(x), grid

    def uniform(reach: float) -> Tensor:
        return (2 * torch.rand(n, generator=generator, dtype=torch.float64) - 1) * reach

    angle, scale = uniform(math.radians(settings.rotate_degrees)), 1 + uniform(settings.scale)
    # affine_grid counts an image from −1 to 1, so a pixel is 2/columns
    across, down = (uniform(2 * settings.shift_pixels / size) for size in (columns, rows))
    affine = torch.stack(
        [
            torch.cos(angle) / scale,
            -torch.sin(angle) / scale,
            across,
            torch.sin(angle) / scale,
            torch.cos(angle) / scale,
            down,
        ],
        dim=1,
    ).view(n, 2, 3)
    affine = affine.to(x.dtype)
    where = affine_grid(affine, [n, 1, rows, columns], align_corners=False)
    if settings.elastic_pixels > 0:
        field = torch.randn(n, 2, _CONTROL, _CONTROL, generator=generator, dtype=torch.float64)
        field = field * torch.tensor([2 / columns, 2 / rows]).view(1, 2, 1, 1) * settings.elastic_pixels
        where = where + interpolate(field.to(x.dtype), size=grid, mode="bicubic", align_corners=True).permute(
            0, 2, 3, 1
        )
    images = grid_sample(x.view(n, 1, rows, columns), where, mode="bicubic", align_corners=False)
    return images.reshape(n, -1).clamp(0, 1)
