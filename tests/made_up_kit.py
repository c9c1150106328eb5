"""A process kit of nowhere, in one YAML file, and currents of devices in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kcnet_eda.export.pdk_deck import model_header
from kcnet_eda.physical.pdk import Pdk
from kcnet_eda.tools.pdk import link_models, prepare
from kcnet_eda.tools.rawfile import read_sweep
from kcnet_eda.tools.simulators import NGSPICE

# A process that no kit is like: built-in models without wrappers, bare sizes with a scale option, a two-terminal
# resistor of fixed width, no mismatch.
MADE_UP = """
name: moon350
description: a process of nowhere
source: {path: models}
corners:
  tt: [{file: moon.lib, section: n}, {file: extra.inc}]
  hot: [{file: moon.lib, section: h}, {file: extra.inc}]
resistor_corners: {typ: []}
devices:
  nmos: {model: nch, instance: M, width: {min: 1, max: 50, grid: 0.05}, length: {min: 0.5, max: 20, grid: 0.05},
         diffusion: 0.8}
  pmos: {model: pch, instance: M, width: {min: 1, max: 50, grid: 0.05}, length: {min: 0.5, max: 20, grid: 0.05}}
resistor: {model: rdiff, instance: R, bulk: false, width: {min: 2, max: 2, grid: 0.1}, width_parameter: w,
           length: {min: 4, max: 400, grid: 0.1}, sheet_resistance: 100}
capacitor: {density: 1}
size_unit: ""
operating: {supply: 5, common_mode: 2.5, v0: 500m, i0: 10u}
options: [scale=1e-6]
"""
MOON_LIB = """* moon
.lib n
.model nch nmos level=1 vto=0.8 kp=60u lambda=0.03 tox=20n
.model pch pmos level=1 vto=-0.9 kp=20u lambda=0.04 tox=20n
.endl n
.lib h
.model nch nmos level=1 vto=0.7 kp=80u lambda=0.03 tox=20n
.model pch pmos level=1 vto=-0.9 kp=20u lambda=0.04 tox=20n
.endl h
"""


def write_moon(folder: Path) -> Path:
    """The kit's file and its models in ``folder``."""
    models = folder / "models"
    models.mkdir()
    (models / "moon.lib").write_text(MOON_LIB)
    (models / "extra.inc").write_text(".model rdiff r rsh=100\n")
    path = folder / "moon.yaml"
    path.write_text(MADE_UP)
    return path


def measure(folder: Path, pdk: Pdk, lines: list[str], currents: list[str], **options) -> np.ndarray:
    """Currents [amperes] at 1.65 V on node a, as a one-point sweep."""
    models = prepare(pdk)
    link, osdi = link_models(models, folder)
    deck = folder / "deck.sp"
    (folder / "out.raw").unlink(missing_ok=True)
    deck.write_text(
        "\n".join(
            [
                *("* t", model_header(pdk, link, osdi, **options), "va a 0 1.65", *lines),
                *(".control", "dc va 1.65 1.65 1", f"write out.raw {' '.join(currents)}", ".endc", ".end", ""),
            ]
        )
    )
    done = NGSPICE.run(deck, folder / "log", 60)
    assert (folder / "out.raw").is_file(), done.output
    return read_sweep(folder / "out.raw", currents, 1.65)[1][0]
