"""The models that a bundle of the MOS level needs, on this machine."""

from __future__ import annotations

from pathlib import Path

from kcnet_eda.errors import InvalidInputError
from kcnet_eda.export.bundle import MANIFEST, Bundle
from kcnet_eda.export.pdk_deck import model_header
from kcnet_eda.physical.pdk import Pdk, load_pdk
from kcnet_eda.tools.pdk import Models, link_models, prepare


def bundle_models(bundle: Bundle) -> tuple[Pdk, Models] | None:
    """The kit of a bundle and its models; None at the other levels.

    Raises
    ------
    InvalidInputError
        The manifest does not say which kit.
    KcnetError
        The models are not on this machine, or cannot be compiled.
    """
    if bundle.circuit.level != "mos":
        return None
    try:
        mos = bundle.manifest["mos"]
        named = str(mos["pdk"]) if mos["pdk_file"] is None else bundle.path / str(mos["pdk_file"])
    except (KeyError, TypeError) as error:
        raise InvalidInputError(
            str(bundle.path / MANIFEST), [f"does not say which process kit: {error!r}"], "Export again."
        ) from None
    pdk = load_pdk(named)
    return pdk, prepare(pdk)


def mos_header(bundle: Bundle, folder: Path, above: str) -> str:
    """The lines of a deck that load the models of a bundle's kit, linked into ``folder``, which is ``above`` the deck's
    own; '' at the other levels."""
    found = bundle_models(bundle)
    if found is None:
        return ""
    pdk, models = found
    link, osdi = link_models(models, folder)
    names = [f"{above}{name}" for name in osdi]
    return model_header(pdk, f"{above}{link}", names, direct=bool(bundle.manifest["mos"]["direct"]))
