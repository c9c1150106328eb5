"""The mismatch of a study: as its file says, or out of the kit's own Monte Carlo, measured once and cached."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

from kcnet_eda.files import cache_dir, sha256_bytes, write_atomic
from kcnet_eda.physical.calibration import pack
from kcnet_eda.physical.edge_model import MeasuredCells
from kcnet_eda.physical.mismatch import UnitSpread, unit_spread
from kcnet_eda.physical.size_classes import size_classes
from kcnet_eda.progress import Progress
from kcnet_eda.study.mos.calibrate import calibrate, pin_currents
from kcnet_eda.study.mos.rig import Rig
from kcnet_eda.study.pvt.settings import PvtStudy
from kcnet_eda.tools.simulators import NGSPICE

_VERSION = 3  # of what is kept in the cache
#: Decks, and how often each has every size. Of cells, all sizes together, a σ is known to 3 %; of the bias to 13 %.
_DIES, _COPIES = 32, 3


def study_spread(study: PvtStudy, rig: Rig, progress: Progress) -> UnitSpread | None:
    """The spread that ``study`` asks for; None: all dies are the same."""
    if study.mismatch is None:
        return None
    if study.mismatch != "kit":
        return UnitSpread(**study.mismatch.model_dump())
    return kit_spread(rig, progress)


def kit_spread(rig: Rig, progress: Progress) -> UnitSpread:
    """The spread by the kit's statistics, at its nominal condition.

    Raises
    ------
    ToolFailedError, NotConvergedError, RunTimeoutError
        The simulator gave no result; the message names its log.
    """
    home, drawn = calibrate(rig, *size_classes(rig.design), progress), _drawn(rig)
    words = [repr((_VERSION, _COPIES)), *(there.header() for there in drawn), repr(rig.design), rig.models.sha256]
    words += [rig.pdk.model_dump_json(exclude={"file"}), NGSPICE.version()]
    key = sha256_bytes("\n".join(words).encode() + pack(home))[:24]
    path = cache_dir() / "mos" / f"spread-{key}.json"
    if path.is_file():
        return UnitSpread(**json.loads(path.read_text()))
    found = unit_spread(drawn_dies(rig, progress))
    write_atomic(path, json.dumps(asdict(found), allow_nan=False))
    return found


def _drawn(rig: Rig) -> list[Rig]:
    return [replace(rig, seed=seed) for seed in range(1, _DIES + 1)]


def drawn_dies(rig: Rig, progress: Progress) -> list[MeasuredCells]:
    """Cells of every size, several of each, on dies drawn by the kit's statistics. Not cached; raises as
    :func:`kit_spread` does."""
    home = calibrate(rig, *size_classes(rig.design), progress)
    dies = []
    with progress.stage("the kit's mismatch", _DIES) as advance:
        for there in _drawn(rig):
            dies.append(pin_currents(there, home, _COPIES, fine=False))
            advance(1)
    return dies
