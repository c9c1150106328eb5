"""What the compiler must know of a process: one YAML file a kit, checked whole. Lengths are in µm throughout."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from kcnet_eda.config import Settings, check_settings, read_yaml
from kcnet_eda.errors import InvalidInputError
from kcnet_eda.files import resource_dir
from kcnet_eda.units import parse_si

_REMEDY = "docs/pdk.md says what each key means, in which unit, and how to find its value."
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_TEXT = re.compile(r"[^\s\"';$`]+")
_ON_GRID = 1e-6  # of a grid step: what a decimal number may be off

DeviceKind = Literal["nmos", "pmos"]
DEVICE_KINDS: tuple[DeviceKind, DeviceKind] = ("nmos", "pmos")

#: The folder, beside a deck's models, of models lifted out of their wrappers.
LIFTED = "lifted"


def _number(value: Any) -> Any:
    """SPICE suffixes are welcome: ``2u``."""
    if not isinstance(value, str):
        return value
    try:
        return parse_si(value)
    except InvalidInputError as error:
        raise ValueError(f"{error.problems[0]}; write it with a SPICE suffix (2u) or as 2e-6") from None


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("is not a SPICE name; use letters, digits, _ and .")
    return value


def _file(value: str) -> str:
    # It is written into decks between quotes, where '..' is meant (a sibling folder) and a quote or $ is not.
    if not value or value.startswith(("/", "~")) or not re.fullmatch(r"[^\"'\n\r;$`\\]+", value):
        raise ValueError("must be a path relative to the models' folder, without quotes, ; $ ` or \\")
    return value


def _text(value: str) -> str:
    if not _TEXT.fullmatch(value):
        raise ValueError("must be one word without quotes, ; $ or `")
    return value


Number = Annotated[float, BeforeValidator(_number)]
Positive = Annotated[float, BeforeValidator(_number), Field(gt=0)]
SpiceName = Annotated[str, AfterValidator(_name)]
ModelFile = Annotated[str, AfterValidator(_file)]
Word = Annotated[str, AfterValidator(_text)]
# It becomes a word of pip's command line and a folder's name.
PackageWord = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")]


@dataclass(frozen=True)
class Lifted:
    """Models of a kind of device at a corner that stand inside their wrapper, in the models' file ``source``."""

    kind: DeviceKind
    corner: str
    source: str

    @property
    def name(self) -> str:
        """Their own file in :data:`LIFTED`."""
        return f"{self.kind}_{self.corner}.spice"


class Span(Settings):
    """The drawn sizes that a device may have, µm."""

    min: Positive = Field(description="smallest drawn size, µm: below it the models have no bin")
    max: Positive = Field(description="largest drawn size of one device, µm")
    grid: Positive = Field(description="layout grid, µm: sizes are multiples of it")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min:g} µm is above max {self.max:g} µm; exchange them")
        for name in ("min", "max"):
            steps = getattr(self, name) / self.grid
            if abs(steps - round(steps)) > max(_ON_GRID, 1e-9 * steps):
                raise ValueError(f"{name} {getattr(self, name):g} µm is not a multiple of grid {self.grid:g} µm")
        return self

    def snap(self, size: float) -> float:
        """The multiple of ``grid`` nearest to ``size`` [µm], limits not looked at."""
        return round(round(size / self.grid) * self.grid, 9) if math.isfinite(size) else size

    def complaint(self, size: float) -> str:
        """Why a snapped ``size`` [µm] cannot be drawn, or ''."""
        if not math.isfinite(size):
            return f"{size} is no size"
        if size < self.min - _ON_GRID * self.grid:
            return f"{size:g} µm is below its smallest, {self.min:g} µm"
        if size > self.max + _ON_GRID * self.grid:
            return f"{size:g} µm is above its largest, {self.max:g} µm"
        return ""


class Library(Settings):
    """One ``.lib`` or ``.include`` line."""

    file: ModelFile = Field(description="file, relative to the models' folder")
    section: SpiceName | None = Field(None, description="section of a library; none: the file is included whole")


class Wheel(Settings):
    """The package that brings the models."""

    package: PackageWord = Field(description="name of the Python package (only its files are used)")
    version: PackageWord = Field(description="exact version that was tried")
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] = Field(description="SHA-256 of the wheel, hexadecimal")
    models: ModelFile = Field(description="folder of the models inside the wheel")


class Source(Settings):
    """Where the models are, in the order in which they are looked for: ``pdk_root``, ``path``, ``wheel``."""

    pdk_root: tuple[ModelFile, ...] = Field((), description="folders below $PDK_ROOT that may hold the models")
    path: str | None = Field(None, description="folder of the models, absolute or relative to this YAML file")
    wheel: Wheel | None = Field(None, description="the package that 'kcnet pdk install' fetches")

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if not self.pdk_root and self.path is None and self.wheel is None:
            raise ValueError("names no place; give pdk_root, path or wheel")
        return self


class Osdi(Settings):
    """One compiled device model that the libraries use."""

    module: SpiceName = Field(description="name of the compiled file, such as psp103")
    sources: tuple[ModelFile, ...] = Field(
        min_length=1, description="places of its Verilog-A file relative to the models' folder; the first found is used"
    )


class Direct(Settings):
    """How to place the transistor model itself, without its wrapper subcircuit: faster, and without mismatch."""

    instance: Literal["M", "N"] = Field(description="M for a built-in model, N for a compiled one")
    model: SpiceName = Field(description="name of the model")
    includes: tuple[ModelFile, ...] = Field((), description="files that make the model known at the top level")
    inside: dict[SpiceName, ModelFile] = Field(
        {}, description="the file, by corner, whose wrapper has the model's cards inside; they are lifted out of it"
    )
    globals: dict[SpiceName, Number] = Field({}, description=".param values that these files expect of the wrapper")
    multiplier: SpiceName = Field("m", description="instance parameter for devices in parallel")
    parameters: dict[SpiceName, Word] = Field({}, description="further instance parameters that the wrapper sets")
    diffusion: Positive | None = Field(None, description="length of a source or drain region, µm, for as, ad, ps, pd")


class Transistor(Settings):
    """One MOS device; terminals are drain, gate, source, bulk."""

    model: SpiceName = Field(description="name of the subcircuit or model")
    instance: Literal["X", "M", "N"] = Field(description="X for a subcircuit, M a built-in model, N a compiled one")
    width: Span = Field(description="drawn width of one device, µm")
    length: Span = Field(description="drawn length, µm")
    multiplier: SpiceName = Field("m", description="instance parameter for devices in parallel")
    mismatch_multiplier: SpiceName | None = Field(
        None, description="further parameter that must repeat that number, or devices in parallel share one deviation"
    )
    parameters: dict[SpiceName, Word] = Field({}, description="further parameters of each instance")
    diffusion: Positive | None = Field(None, description="length of a source or drain region, µm, for as, ad, ps, pd")
    direct: Direct | None = Field(None, description="the model without its wrapper, where the process allows it")


class Resistor(Settings):
    """The resistor that edges and bias use; R ≈ sheet_resistance · L / (W + width_offset) + end_resistance / W."""

    model: SpiceName = Field(description="name of the subcircuit or model")
    instance: Literal["X", "R"] = Field(description="X for a subcircuit, R for a built-in model")
    bulk: bool = Field(description="whether there is a third terminal, the substrate")
    width: Span = Field(description="drawn width, µm; min is used if nothing else is asked for")
    length: Span = Field(description="drawn length, µm")
    width_parameter: SpiceName | None = Field("w", description="instance parameter of the width; null where fixed")
    length_parameter: SpiceName = Field("l", description="instance parameter of the length")
    sheet_resistance: Positive = Field(description="ohms a square, nominal")
    width_offset: Number = Field(0.0, description="effective less drawn width, µm")
    end_resistance: Annotated[float, BeforeValidator(_number), Field(ge=0)] = Field(
        0.0, description="both ends together, ohm · µm of width"
    )
    tc1: Number = Field(0.0, description="linear temperature coefficient, 1/K")
    tc2: Number = Field(0.0, description="quadratic temperature coefficient, 1/K²")

    @model_validator(mode="after")
    def _effective(self) -> Self:
        if self.width.min + self.width_offset <= 0:
            raise ValueError("width_offset leaves nothing of width.min; it is in µm")
        return self

    def resistance(self, length: float, width: float | None = None) -> float:
        """Nominal ohms of a drawn ``length`` and ``width`` [µm]: a first guess, which calibration corrects."""
        w = self.width.min if width is None else width
        return self.sheet_resistance * length / (w + self.width_offset) + self.end_resistance / w

    def length_for(self, resistance: float, width: float | None = None) -> float:
        """The drawn length [µm], not snapped, whose nominal value is ``resistance`` [ohm]."""
        w = self.width.min if width is None else width
        return (resistance - self.end_resistance / w) * (w + self.width_offset) / self.sheet_resistance


class Capacitor(Settings):
    """The node capacitor: ideal where no model is named."""

    density: Positive = Field(description="fF/µm², for the area estimate")
    model: SpiceName | None = Field(None, description="name of the capacitor's subcircuit; none: an ideal capacitor")
    libraries: tuple[Library, ...] = Field((), description="what the model needs")


class Devices(Settings):
    nmos: Transistor = Field(description="the n-channel transistor")
    pmos: Transistor = Field(description="the p-channel transistor")


class GmId(Settings):
    """gm/I_D of each kind of device of the edge cell at its unit's current, 1/V: what widths are chosen for."""

    pair: Positive = Field(14.0, description="the pair: a high one makes its gain hang on the resistor")
    tail: Positive = Field(4.2, description="the pair's tails: a low one matches better and takes headroom")
    source: Positive = Field(2.5, description="the PMOS source: a low one leaves width to take away for θ2")
    mirror: Positive = Field(3.8, description="the PMOS mirrors: a low one is faster and takes headroom")
    sink: Positive = Field(5.0, description="the sinking mirror")
    cascode: Positive = Field(12.5, description="the sinking mirror's cascodes: a high one leaves headroom")


class Operating(Settings):
    """Where circuits in this process work."""

    supply: Positive = Field(description="nominal supply, V")
    supply_tolerance: Annotated[float, BeforeValidator(_number), Field(ge=0, lt=1)] = Field(
        0.1, description="share of the supply by which it may be off, such as 0.1"
    )
    common_mode: Positive = Field(description="voltage that stands for model ground, V")
    v0: Positive = Field(description="volts of a model unit of voltage")
    i0: Positive = Field(description="amperes of a model unit of current")
    gm_id: GmId = Field(GmId(), description="what the cell's widths are chosen for")
    clamp_share: Annotated[float, BeforeValidator(_number), Field(ge=1e-3, le=0.02)] = Field(
        3e-3, description="current of the cell's clamp at the turn-on point, over the cell's full scale"
    )
    temperatures: tuple[Number, ...] = Field((-40.0, 27.0, 125.0), min_length=1, description="°C, for studies")
    nominal_temperature: Number = Field(27.0, description="°C, if nothing else is asked for")

    @model_validator(mode="after")
    def _inside(self) -> Self:
        low, high = self.common_mode - 2 * self.v0, self.common_mode + 2 * self.v0
        if low <= 0 or high >= self.supply * (1 - self.supply_tolerance):
            raise ValueError(
                f"nodes range over common_mode ± 2·v0 = {low:g} to {high:g} V, which does not fit between 0 V and the "
                f"lowest supply, {self.supply * (1 - self.supply_tolerance):g} V; lower v0 or move common_mode"
            )
        if any(t <= -273.15 for t in (*self.temperatures, self.nominal_temperature)):
            raise ValueError("a temperature is below absolute zero; they are in °C")
        return self


class Mismatch(Settings):
    """How mismatch is switched: other sections, or parameters, or both."""

    section_suffix: str = Field("", pattern="^[A-Za-z0-9_.]*$", description="appended to each section's name")
    # not 'on' and 'off', which YAML reads as true and false
    parameters_on: dict[SpiceName, Number] = Field({}, description=".param values that turn mismatch on")
    parameters_off: dict[SpiceName, Number] = Field({}, description=".param values that turn it off")

    @model_validator(mode="after")
    def _switches(self) -> Self:
        if not self.section_suffix and not self.parameters_on:
            raise ValueError("switches nothing; give section_suffix or parameters_on, or leave mismatch out")
        return self


class Pdk(Settings):
    """A process kit. ``file`` is set on loading."""

    file: Path
    name: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9._-]*$")] = Field(description="short name, for reports")
    description: Annotated[str, Field(min_length=1)] = Field(description="one line: process and devices")
    source: Source = Field(description="where the models are")
    includes: tuple[Library, ...] = Field((), description="what every deck loads first")
    corners: dict[SpiceName, tuple[Library, ...]] = Field(
        description="transistor corners: what each loads; tt is the nominal, ff ss fs sf by custom (n first)"
    )
    resistor_corners: dict[SpiceName, tuple[Library, ...]] = Field(
        description="resistor corners: what each loads; typ is the nominal, low and high by custom"
    )
    osdi: tuple[Osdi, ...] = Field((), description="Verilog-A models to compile")
    devices: Devices = Field(description="the transistors")
    resistor: Resistor = Field(description="the edge resistor")
    capacitor: Capacitor = Field(description="the node capacitor")
    size_unit: Literal["u", ""] = Field(description="what follows a size in µm: u, or nothing with option scale=1e-6")
    operating: Operating = Field(description="supply, common mode, swing, currents, temperatures")
    mismatch: Mismatch | None = Field(None, description="how mismatch is switched on; none: the kit has none")
    parameters: dict[SpiceName, Number] = Field({}, description=".param values that every deck sets")
    options: tuple[Word, ...] = Field(("klu",), validate_default=True, description="ngspice options of every deck")
    gotchas: tuple[str, ...] = Field((), description="what whoever uses this kit should know, a sentence each")

    @field_validator("options")
    @classmethod
    def _scale_fits(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        scales = [option for option in value if option.lower().startswith("scale=")]
        if any(option.lower() not in ("scale=1e-6", "scale=1u") for option in scales):
            raise ValueError(f"{scales[0]}: sizes are written in µm, so a scale must be scale=1e-6")
        if "size_unit" in info.data and bool(scales) == bool(info.data["size_unit"]):
            raise ValueError("size_unit must be u without the option scale=1e-6, and empty with it")
        return value

    @property
    def has_direct(self) -> bool:
        """Whether transistors can be placed without their wrappers."""
        return all(self.transistor(kind).direct is not None for kind in DEVICE_KINDS)

    def lifted(self) -> tuple[Lifted, ...]:
        """What is lifted out of its wrapper."""
        inside = {kind: direct.inside for kind in DEVICE_KINDS if (direct := self.transistor(kind).direct)}
        return tuple(Lifted(kind, at, file) for kind, files in inside.items() for at, file in files.items())

    def transistor(self, kind: DeviceKind) -> Transistor:
        """The transistor of that kind."""
        return self.devices.nmos if kind == "nmos" else self.devices.pmos

    def size(self, kind: DeviceKind, width: float, length: float, who: str = "") -> tuple[float, float]:
        """A transistor's width and length [µm] on the grid; ``who`` names the instance in the error.

        Raises
        ------
        InvalidInputError
            The process cannot draw it; both sizes are looked at.
        """
        device = self.transistor(kind)
        w, l = device.width.snap(width), device.length.snap(length)  # noqa: E741
        self._refuse(
            f"devices.{kind} {device.model}" + (f" {who}" if who else ""),
            {"width": device.width.complaint(w), "length": device.length.complaint(l)},
            "Put several devices in parallel (multiplier) where one is too wide; choose another length otherwise.",
        )
        return w, l

    def resistor_size(self, length: float, width: float | None = None, who: str = "") -> tuple[float, float]:
        """The resistor's width and length [µm] on the grid; the smallest width if none is given.

        Raises
        ------
        InvalidInputError
            The process cannot draw it.
        """
        r = self.resistor
        w = r.width.snap(r.width.min if width is None else width)
        l = r.length.snap(length)  # noqa: E741
        self._refuse(
            f"resistor {r.model}" + (f" {who}" if who else ""),
            {"width": r.width.complaint(w), "length": r.length.complaint(l)},
            f"Its values run from {r.resistance(r.length.min):.4g} to {r.resistance(r.length.max):.4g} ohm at the "
            "smallest width.",
        )
        return w, l

    def _refuse(self, what: str, complaints: dict[str, str], remedy: str) -> None:
        problems = [f"{what}: {side} {said}" for side, said in complaints.items() if said]
        if problems:
            raise InvalidInputError(str(self.file), problems, remedy)

    def corner(self, name: str) -> tuple[Library, ...]:
        """What a transistor corner loads; :class:`InvalidInputError` if there is none of that name."""
        return self._chosen("corner", name, self.corners)

    def resistor_corner(self, name: str) -> tuple[Library, ...]:
        """What a resistor corner loads; :class:`InvalidInputError` if there is none of that name."""
        return self._chosen("resistor corner", name, self.resistor_corners)

    def corner_pairs(self, names: Sequence[str]) -> list[tuple[str, str]]:
        """(transistor corner, resistor corner) of each of ``names``, of which one is nominal; of all if none is given.

        Raises
        ------
        InvalidInputError
            The kit has no such corner.
        """
        chosen = tuple(dict.fromkeys(names)) or (*self.corners, *(r for r in self.resistor_corners if r != "typ"))
        unknown = [f"has no corner {c!r}" for c in chosen if c not in self.corners and c not in self.resistor_corners]
        if unknown:
            there = f"transistors have {', '.join(self.corners)}, resistors {', '.join(self.resistor_corners)}"
            raise InvalidInputError(str(self.file), unknown, f"The {there}.")
        return [(c, "typ") if c in self.corners else ("tt", c) for c in chosen]

    def _chosen(self, what: str, name: str, among: dict[str, tuple[Library, ...]]) -> tuple[Library, ...]:
        if name not in among:
            raise InvalidInputError(str(self.file), [f"has no {what} {name!r}"], f"It has {', '.join(among)}.")
        return among[name]

    def model_files(self) -> tuple[str, ...]:
        """Every library and include file that some corner uses, relative to the models' folder, sorted."""
        libraries = [*self.includes, *self.capacitor.libraries]
        for corner in (*self.corners.values(), *self.resistor_corners.values()):
            libraries += corner
        direct = [f for t in (self.devices.nmos, self.devices.pmos) if t.direct for f in t.direct.includes]
        return tuple(
            sorted({library.file for library in libraries} | {*direct, *(each.source for each in self.lifted())})
        )


def shipped_pdks() -> dict[str, Path]:
    """The kits that come with the program: name and file."""
    return dict(sorted((path.stem, path) for path in resource_dir("pdk_examples").glob("*.yaml")))


def is_shipped(pdk: Pdk) -> bool:
    """Whether a kit is one that comes along, as it comes."""
    return shipped_pdks().get(pdk.name) == pdk.file


def kit_text(pdk: Pdk, models: Path | None) -> str:
    """A kit's file for another folder; with ``models`` its source.path is that folder, which it may have as relative to
    the file, or not at all."""
    content = read_yaml(pdk.file)
    if models is not None:
        content["source"] = {**content.get("source", {}), "path": str(models.resolve())}
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)


def load_pdk(name: str | Path) -> Pdk:
    """A kit by the name of a shipped one, or from a YAML file.

    Raises
    ------
    InvalidInputError
        There is no such kit, or its file breaks the schema; all breaks are listed, each with its key.
    """
    shipped = shipped_pdks()
    path = shipped.get(str(name), Path(name))
    if str(name) not in shipped and path.suffix not in (".yaml", ".yml"):
        raise InvalidInputError(
            f"PDK {str(name)!r}", ["is not known"], f"Use {', '.join(shipped)}, or give a YAML file: my.yaml."
        )
    content = read_yaml(path)
    if "file" in content:
        raise InvalidInputError(str(path), ["file: is not a key of a PDK file"], _REMEDY)
    # A validator of the corners' field would not be heard where a corner is wrong, so this is asked beside the schema.
    problems = [
        f"{key}: lacks {nominal}, the nominal corner (found {', '.join(map(str, content[key])) or 'none'}); name it so"
        for key, nominal in (("corners", "tt"), ("resistor_corners", "typ"))
        if isinstance(content.get(key), dict) and nominal not in content[key]
    ]
    try:
        pdk = check_settings({"file": path, **content}, Pdk, str(path))
        problems += _not_inside(pdk)
    except InvalidInputError as error:
        problems = [*error.problems, *problems]
    if problems:
        raise InvalidInputError(str(path), problems, _REMEDY)
    return pdk


def _not_inside(pdk: Pdk) -> list[str]:
    """What is wrong with the corners of models that are lifted out of their wrappers."""
    named: dict[str, set[str]] = {}
    for each in pdk.lifted():
        named.setdefault(each.kind, set()).add(each.corner)
    return [
        f"devices.{kind}.direct.inside: has {', '.join(sorted(corners))}, where corners has {', '.join(pdk.corners)}"
        for kind, corners in named.items()
        if corners != set(pdk.corners)
    ]
