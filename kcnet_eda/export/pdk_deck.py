"""A process kit's part of a deck: the header that loads its models, and lines that place its devices."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from kcnet_eda.errors import InvalidInputError
from kcnet_eda.export.render import render
from kcnet_eda.physical.pdk import DEVICE_KINDS, LIFTED, DeviceKind, Direct, Pdk, Transistor


def model_header(
    pdk: Pdk,
    models: str | Path,
    osdi: Sequence[str | Path] = (),
    *,
    corner: str = "tt",
    resistor_corner: str = "typ",
    temperature: float | None = None,
    mismatch: bool = False,
    seed: int = 1,
    direct: bool = False,
) -> str:
    """The lines of an ngspice deck that load a kit's models: after the title line, before the first device.

    ``models`` is the folder as the deck shall name it and ``osdi`` the compiled models likewise, relative to the deck
    (:func:`kcnet_eda.tools.pdk.link_models` makes such names: ngspice cannot read a library whose path has a blank);
    ``temperature`` is in °C. With ``direct`` the transistors' own models are made known, for :func:`transistor_line`
    with ``direct=True``; those that are lifted out of their wrappers lie in :data:`LIFTED` beside ``models``. ``seed``
    (from 1) makes one draw of mismatch.

    Raises
    ------
    InvalidInputError
        The kit has no such corner, no mismatch, or no direct models; or direct models are asked to mismatch.
    """
    libraries = (*pdk.corner(corner), *pdk.resistor_corner(resistor_corner), *pdk.capacitor.libraries)
    where = str(pdk.file)
    blanks = [str(path) for path in (models, *osdi) if re.search(r"\s", str(path))]
    if blanks:
        raise InvalidInputError(
            blanks[0], ["has a blank, where ngspice cuts a library's path"], "Link to it from beside."
        )
    if mismatch and pdk.mismatch is None:
        raise InvalidInputError(where, ["has no key 'mismatch', so no mismatch can be simulated"], "Add it.")
    if mismatch and direct:
        raise InvalidInputError(where, ["direct devices have no mismatch"], "Use the wrappers: direct=False.")
    if not 1 <= seed < 2**31:
        raise InvalidInputError("seed", [f"{seed} is not from 1 to {2**31 - 1}, ngspice's range"])
    switch = pdk.mismatch
    switched = {} if switch is None else switch.parameters_on if mismatch else switch.parameters_off
    models_alone = _direct(pdk) if direct else ()
    return render(
        "mos/header.j2",
        pdk=pdk,
        models=str(models),
        osdi=[str(file) for file in osdi],
        corner=corner,
        resistor_corner=resistor_corner,
        temperature=pdk.operating.nominal_temperature if temperature is None else temperature,
        mismatch=mismatch,
        seed=seed,
        includes=pdk.includes,
        # after the includes, which may hold the kit's own defaults: ngspice keeps the last value
        parameters={**pdk.parameters, **switched},
        libraries=libraries,
        suffix=switch.section_suffix if switch is not None and mismatch else "",
        direct_parameters={name: value for model in models_alone for name, value in model.globals.items()},
        direct_includes=dict.fromkeys(file for model in models_alone for file in model.includes),
        lifted=[
            str(Path(models).with_name(LIFTED) / each.name)
            for each in (pdk.lifted() if direct else ())
            if each.corner == corner
        ],
    )


def transistor_line(
    pdk: Pdk,
    kind: DeviceKind,
    name: str,
    nodes: Sequence[str],
    width: float,
    length: float,
    multiplier: int = 1,
    *,
    direct: bool = False,
) -> str:
    """One transistor: ``name`` without its letter, ``nodes`` drain, gate, source, bulk, sizes in µm (snapped).

    Raises
    ------
    InvalidInputError
        The process cannot draw that size, or has no direct models.
    """
    if len(nodes) != 4:
        raise InvalidInputError(f"transistor {name}", [f"has {len(nodes)} nodes; drain, gate, source and bulk are 4"])
    if not (isinstance(multiplier, int) and multiplier >= 1):
        raise InvalidInputError(f"transistor {name}", [f"multiplier {multiplier!r} is not a whole number from 1"])
    w, l = pdk.size(kind, width, length, name)  # noqa: E741
    device: Transistor | Direct = pdk.transistor(kind)
    if direct:
        device = dict(zip(DEVICE_KINDS, _direct(pdk), strict=True))[kind]
    parameters: dict[str, str] = dict(device.parameters)
    if device.diffusion is not None:
        unit, z = pdk.size_unit, device.diffusion
        area = f"{w * z * (1e-12 if unit else 1):.9g}"  # with a scale option areas are in µm² too
        around = f"{2 * (w + z):.9g}{unit}"
        parameters |= {"as": area, "ad": area, "ps": around, "pd": around}
    if multiplier > 1:
        parameters[device.multiplier] = str(multiplier)
        if isinstance(device, Transistor) and device.mismatch_multiplier is not None:
            parameters[device.mismatch_multiplier] = str(multiplier)
    return render(
        "mos/transistor.j2",
        letter=device.instance.lower(),
        name=name,
        nodes=nodes,
        model=device.model,
        width=f"{w:.9g}",
        length=f"{l:.9g}",
        unit=pdk.size_unit,
        parameters=parameters,
    )


def resistor_line(
    pdk: Pdk, name: str, a: str, b: str, bulk: str, length: float, width: float | None = None, *, multiplier: int = 1
) -> str:
    """One resistor of the kit between ``a`` and ``b``: ``name`` without its letter, sizes in µm (snapped); ``bulk`` is
    left out where the kit's resistor has none.

    Raises
    ------
    InvalidInputError
        The process cannot draw that size.
    """
    r = pdk.resistor
    w, l = pdk.resistor_size(length, width, name)  # noqa: E741
    sizes = {r.width_parameter: w, r.length_parameter: l}
    parameters = {key: f"{size:.9g}{pdk.size_unit}" for key, size in sizes.items() if key is not None}
    if multiplier > 1:
        parameters["m"] = str(multiplier)
    return render(
        "mos/resistor.j2",
        letter=r.instance.lower(),
        name=name,
        nodes=[a, b, bulk] if r.bulk else [a, b],
        model=r.model,
        parameters=parameters,
    )


def _direct(pdk: Pdk) -> tuple[Direct, Direct]:
    """How both transistors are placed without their wrappers."""
    n, p = pdk.devices.nmos.direct, pdk.devices.pmos.direct
    if n is None or p is None:
        lacking = [f"devices.{kind}.direct" for kind, model in (("nmos", n), ("pmos", p)) if model is None]
        raise InvalidInputError(
            str(pdk.file),
            [f"{key}: is not given, so the model cannot be placed alone" for key in lacking],
            "Use the wrappers: direct=False.",
        )
    return n, p
