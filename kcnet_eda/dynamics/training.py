"""Training a one-phase Eq. (6) classifier with torch: cross-entropy at the read-out nodes at T, AdamW.

torch is imported by this module and by ``torch_path`` alone; nothing else in the package needs it.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import affine_grid, cross_entropy, grid_sample

from kcnet_eda import __version__
from kcnet_eda.config import Settings, load_settings
from kcnet_eda.dynamics.torch_path import Incidence, heun
from kcnet_eda.errors import InvalidInputError
from kcnet_eda.network import topology
from kcnet_eda.network.data import DataSet, load_data
from kcnet_eda.network.graph import Edges, Network, Phase
from kcnet_eda.network.laws import RELU, eq6

Fraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class TopologySettings(Settings):
    """Pixels, hidden nodes and outputs, and what connects them."""

    window: Annotated[int, Field(ge=1)] = 3  # pixel neighbourhood, odd; 1 is none
    hidden: Annotated[int, Field(ge=0)] = 16
    pixels_to_hidden: Literal["forward", "both"] = "both"
    hidden_to_hidden: bool = False
    pixels_to_outputs: bool = False
    ground: bool = True  # ground to every hidden and output node, and back


class Augmentation(Settings):
    """Random affine maps of each training image, drawn anew each time it is shown; uniform within ± these."""

    rotate_degrees: NotNegative = 10.0
    shift_pixels: NotNegative = 0.5
    scale: Fraction = 0.1


class TrainSettings(Settings):
    """The whole of a ``train`` file."""

    name: str
    data: str = "digits:train"
    seed: int
    validation_fraction: Fraction = 0.0  # held out of the training set, never of the test set
    topology: TopologySettings = TopologySettings()
    duration: Positive = 1.0  # T in model time
    steps: Count = 10  # Heun steps over T while training
    epochs: Count = 60
    batch: Count = 128
    learning_rate: Positive = 0.01
    weight_decay: NotNegative = 0.01
    init_scale: Positive = 0.2
    logit_gain: Positive = 10.0  # cross-entropy sees gain · v(T): outputs need not swing far
    voltage_limit: Positive = 1.5
    voltage_penalty: NotNegative = 1.0
    average: Fraction = 0.99  # of the running average of the parameters that is kept, a step
    augmentation: Augmentation = Augmentation()
