"""What a latency study found, as one record: its ``report.json``. Sections that were not run say so."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import Any

from kcnet_eda import __version__
from kcnet_eda.dynamics.reference import method
from kcnet_eda.study.engine_run import ENGINE
from kcnet_eda.study.latency.bench import LatencyBench, Row
from kcnet_eda.study.latency.size import MEASURED
from kcnet_eda.study.store import Status
from kcnet_eda.units import format_si

#: What tells the record of a latency study from other runs'.
STUDY = "latency"
#: What a limit of the physical section is, for people.
BOUND_BY = {
    "waveform": "node errors pass what was asked",
    "labels": "labels begin to change",
    "pins": "pins have all of C",
    "noisy_waveform": "noise takes nodes past what was asked",
    "noise": "noise costs accuracy",
}
#: What a law of the size section is of, for people.
QUANTITY = {
    "t_total_s": "T",
    "current_peak": "peak total current",
    "current_mean": "mean total current",
    "charge": "charge",
    "energy_heat": "heat",
    "energy_supplied": "supplied energy",
    "wall_s": "simulation time",
    "wall_a_step_s": "simulation time of a step",
}
SECTIONS = ("scaling", "size", "decision", "inference", "physical")
NOT_RUN = "not run"
#: The tables of each section: file, and the list of rows within the section.
TABLES = {
    "scaling": (("scaling.csv", "rows"), ("scaling_outputs.csv", "outputs")),
    "size": (("size.csv", "rows"), ("size_laws.csv", "laws")),
    "decision": (("decision.csv", "samples"), ("early_exit.csv", "early_exit"), ("tolerances.csv", "tolerances")),
    "inference": (("inference.csv", "steps"), ("inference_samples.csv", "samples"), ("noise.csv", "noise")),
    "physical": (
        ("physical.csv", "points"),
        ("physical_limits.csv", "limits"),
        ("physical_noise.csv", "noise"),
        ("physical_mos_noise.csv", "mos_noise"),
        ("physical_supply.csv", "supply"),
    ),
}


def make_record(bench: LatencyBench, found: Mapping[str, Row]) -> dict[str, Any]:
    """The record of a study whose sections ``found`` were run; plain JSON values, SI units but for names that say
    otherwise."""
    sections: dict[str, Row] = {
        name: {"status": "run"} | found[name] if name in found else {"status": NOT_RUN} for name in SECTIONS
    }
    failed = [{"section": name} | row for name, section in found.items() for row in section["failed"]]
    verdicts = _verdicts(sections)
    circuit = bench.bundle.circuit
    return {
        "study": STUDY,
        "summary": {
            "t_total_s": circuit.run_time(circuit.sequenced),
            "f_hz": 1 / circuit.run_time(circuit.sequenced),
            "sections_run": [name for name in SECTIONS if name in found],
            "sections_not_run": [name for name in SECTIONS if name not in found],
            "failed_runs": len(failed),
            "verdicts": verdicts,
            "kept": all(v["holds"] is not False for v in verdicts if v["limit"]),
        },
        "sections": sections,
        "failed": failed,
        "network": {
            "name": bench.network.name,
            "nodes": bench.network.max_nodes,
            "edges": bench.network.n_edges,
            "phases": len(bench.network.phases),
            "devices": circuit.n_devices,
        },
        "scaling": circuit.scaling.as_dict(),
        "provenance": {
            "kcnet_eda": __version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "data": bench.data.name,
            "samples": len(bench.data),
            "seed": bench.study.seed,
            "reference": method(bench.network),
            "error_asked": bench.study.error,
            "study_file": bench.study.model_dump(mode="json"),
        },
    }


def _verdicts(sections: Mapping[str, Row]) -> list[Row]:
    """What the claim says, what was found, and whether it holds; None where it was not looked at or cannot be told.
    ``limit``: that it does not hold is a limit of the study missed, since the circuits do not do what they should."""
    scaling, size, whole, mos = (sections[name] for name in ("scaling", "size", "inference", "physical"))

    def verdict(claim: str, name: str, holds: bool | None, found: str, limit: bool) -> Row:
        ran = sections[name]["status"] != NOT_RUN
        told = {"holds": holds, "found": found} if ran else {"holds": None, "found": NOT_RUN}
        return {"claim": claim, "section": name} | told | {"limit": limit}

    worst, kits = scaling.get("largest_from_first"), mos.get("kits", [])
    ran = any(row["status"] == Status.PASSED for row in whole.get("samples", []))
    over = whole["total_over_t"] if ran else None
    exponents = {law["of"]: law["exponent"] for law in size.get("laws", []) if law["of"] in MEASURED and law["stated"]}
    laws = "; ".join(f"{QUANTITY[name]} grows as edges^{value:.2f}" for name, value in exponents.items())
    return [
        verdict(
            "v(T) does not depend on the scale, from (1 F, 1 s) down",
            "scaling",
            scaling.get("kept"),
            f"largest difference {worst:.1e} of the range" if worst is not None else "not known, since runs failed",
            True,
        ),
        verdict(
            "T does not depend on the number of edges",
            "size",
            size.get("t_constant"),
            f"{_sizes(size)}; {laws or 'no law of its price: too few sizes, or too far apart'}",
            True,
        ),
        verdict(
            "T is all the time that an inference takes",
            "inference",
            None if over is None else over <= 1,
            f"{over:.2f} T with the blocks of the study" if over is not None else "no run passed",
            False,
        ),
        verdict(
            "T can be made as short as C allows",
            "physical",
            _as_short_as_c_allows(kits),
            "; ".join(map(_binding, kits, kit_names(kits))),
            False,
        ),
    ]


def _as_short_as_c_allows(kits: Sequence[Row]) -> bool | None:
    """Whether in no kit anything else ends the speed before C does; None where that is not known of one."""
    found = [kit["other_than_c"] for kit in kits]
    return False if any(found) else None if None in found or not found else True


def kit_names(kits: Sequence[Row]) -> list[str]:
    """The name of each kit's block: with the network and its unit currents only where that tells blocks apart, and with
    a number where nothing does."""
    own = [
        {"pdk": kit["pdk"], "network": kit["network"], "currents": _currents(kit["currents"]) or "1 I_u"}
        for kit in kits
    ]
    for parts in (("pdk",), ("pdk", "network"), ("pdk", "currents"), ("pdk", "network", "currents")):
        names = [", ".join(kit[part] for part in parts) for kit in own]
        if len({*names}) == len(names):
            return names
    return [f"{name} ({i + 1})" for i, name in enumerate(names)]


def _currents(factors: Sequence[float]) -> str:
    """Unit currents over the kit's, in words; nothing of the kit's own alone."""
    return "" if list(factors) == [1.0] else f"{' and '.join(f'{factor:g}' for factor in factors)} I_u"


def _sizes(size: Row) -> str:
    """At what sizes of the family's circuits T was what, in words."""
    grids = [row for row in size.get("rows", []) if row["family"] == "grid" and row["simulator"] != ENGINE]
    passed = [row for row in grids if row["status"] == Status.PASSED]
    if not passed:
        return "no circuit of the family passed"
    edges, times = [row["edges"] for row in passed], {format_si(row["t_total_s"], "s", 3): None for row in passed}
    failed = sorted({row["edges"] for row in grids} - set(edges))
    there = f"T = {', '.join(times)} from {min(edges)} to {max(edges)} edges"
    there = f"{there}, where circuits are within {size['largest_from_reference']:.1e} of the reference"
    return there + (f"; failed at {', '.join(map(str, failed))} edges" if failed else "")


def _binding(kit: Row, name: str) -> str:
    """What ends the speed in a kit, in words."""
    knee = kit["knee"]
    if knee is None:
        return f"in {name} not shown at any T tried"
    by = BOUND_BY[knee["by"]]
    least = "at least " if knee["over_next_at_least"] else ""
    over = f", {least}{knee['over_next']:.3g} times the next limit" if knee["over_next"] is not None else ""
    current = _currents([knee["current_factor"]])
    at = f" at {current}" if current and current not in name else ""
    found = f"in {name}{at} down to T = {format_si(knee['t_total_s'], 's', 3)}"
    return f"{found}, where {by}{over}" if knee["bracketed"] else f"{found}; what ends it is not known"
