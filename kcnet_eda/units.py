"""SI numbers: from SPICE text to float, to exact SPICE text, and to text for people."""

from __future__ import annotations

import math
import re

from kcnet_eda.errors import InvalidInputError

# SPICE's suffixes are case-insensitive: M is milli and MEG is mega.
_SUFFIX = {"": 0, "t": 12, "g": 9, "meg": 6, "k": 3, "m": -3, "u": -6, "µ": -6, "n": -9, "p": -12, "f": -15, "a": -18}
_AMBIGUOUS = {"F": ("femto", " for farads"), "A": ("atto", " for amperes"), "M": ("milli", "meg for mega")}
_NUMBER = re.compile(
    r"^\s*(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*"
    r"(?P<suffix>meg|[tgkmunpfaµ])?(?P<unit>a|v|s|f|w|j|c|hz|ohm|Ω)?\s*$",
    re.IGNORECASE,
)
_PREFIX = {12: "T", 9: "G", 6: "M", 3: "k", 0: "", -3: "m", -6: "µ", -9: "n", -12: "p", -15: "f", -18: "a"}


def parse_si(text: str | float | int) -> float:
    """Read a number with an optional SPICE suffix: ``1p``, ``10u``, ``1meg``, ``2.5e-12``.

    A unit letter after the suffix is accepted (``1pF``). As in SPICE a single trailing ``f`` or ``a`` is the suffix
    (femto, atto), not the unit, and ``m`` is milli. The capitals ``1F``, ``1A`` and ``1M``, which SPICE reads so too
    and people read as farad, ampere and mega, are refused.

    Raises
    ------
    InvalidInputError
        The text is not such a number, not finite, or means one thing to SPICE and another to its reader.
    """
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        value = float(text)
        if not math.isfinite(value):
            raise InvalidInputError(f"number {text!r}", ["is not finite"])
        return value
    match = _NUMBER.match(str(text))
    if match is None:
        raise InvalidInputError(
            f"number {text!r}", ["is not a number"], "Write it with a SPICE suffix: 1p, 10u, 3.3, 1meg, 2e-12."
        )
    if match["suffix"] in _AMBIGUOUS and not match["unit"]:
        small, meant = _AMBIGUOUS[match["suffix"]]
        raise InvalidInputError(
            f"number {text!r}",
            [f"is {small} to SPICE, whatever its author meant"],
            f"Write {match['number']}{match['suffix'].lower()} for {small}, {match['number']}{meant}.",
        )
    exponent = _SUFFIX[(match["suffix"] or "").lower()]
    # Written as text, so that '1p' is the same double as 1e-12, with no product's rounding between them.
    mantissa, _, written = match["number"].lower().partition("e")
    value = float(f"{mantissa}e{int(written or 0) + exponent}")
    if not math.isfinite(value):
        raise InvalidInputError(f"number {text!r}", ["is not finite"])
    return value


def format_si(value: float, unit: str = "", digits: int = 4) -> str:
    """Text for people, with a prefix: ``format_si(1.5e-12, "s")`` is ``1.5 ps``."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g} {unit}".strip()
    exponent = max(-18, min(12, 3 * math.floor(math.log10(abs(value)) / 3)))
    scaled = f"{value / 10.0**exponent:.{digits}g}"
    if abs(float(scaled)) >= 1000 and exponent < 12:  # rounding carried it over: 999.99 -> 1000
        exponent += 3
        scaled = f"{value / 10.0**exponent:.{digits}g}"
    return f"{scaled} {_PREFIX[exponent]}{unit}".strip()


def spice_number(value: float) -> str:
    """Decimal text with nine significant digits (relative rounding at most 5e-9), which every SPICE reads."""
    return f"{value:.9g}"
