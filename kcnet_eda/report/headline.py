"""What a manager reads first of each run: numbers with their intervals, and the verdict against each limit."""

from __future__ import annotations

from typing import Any

from kcnet_eda.report.pvt import LEVEL_TEXT
from kcnet_eda.report.runs import Run, look_up
from kcnet_eda.study.pvt.record import checks
from kcnet_eda.study.simulate import RECORD
from kcnet_eda.study.store import Status
from kcnet_eda.units import format_si

Row = dict[str, Any]

#: Per kind: text, where in the record, unit ("%" for shares, "" for plain numbers), where its interval and n are.
_NUMBERS: dict[str, tuple[tuple[str, str, str, str, str], ...]] = {
    "simulate": (
        ("circuit accuracy", "accuracy.circuit.value", "%", "accuracy.circuit.wilson95", "accuracy.circuit.n"),
        ("labels as software", "agreement.value", "%", "agreement.wilson95", "agreement.n"),
        ("largest error, of the range", "contract.reached", "", "", "summary.n"),
        ("T", "summary.t_total_s", "s", "", ""),
    ),
    "pvt": (
        ("least accuracy of a condition", "summary.accuracy_min", "%", "", "summary.samples"),
        ("yield at the worst condition", "summary.yield_min", "%", "", "summary.dies"),
        ("dies good everywhere", "summary.yield_everywhere", "%", "summary.yield_everywhere_interval", "summary.dies"),
        ("labels as the simulator’s", "check.agreement", "%", "check.agreement_interval", "check.cases"),
    ),
    "latency": (
        ("T", "summary.t_total_s", "s", "", ""),
        ("median decision time", "sections.decision.decision_s.median", "s", "", "sections.decision.decision_s.n"),
        ("whole inference", "sections.inference.total_s", "s", "", ""),
        ("fastest T in transistors", "sections.physical.knee.t_total_s", "s", "", "sections.physical.n"),
    ),
    "adjoint": (("worst relative error of a gradient", "summary.worst", "", "", "summary.n"),),
}


def numbers(run: Run) -> list[Row]:
    """The run's headline numbers that there are, each with its source in the record."""
    found = []
    for text, key, unit, interval, n in _NUMBERS.get(run.kind, ()):
        value = look_up(run.record, key)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            bounds, count = look_up(run.record, interval) if interval else None, look_up(run.record, n) if n else None
            source = {"run": run.name, "file": RECORD, "key": key}
            found.append({"of": text, "value": value, "unit": unit, "interval": bounds, "n": count, "source": source})
    return found


def verdicts(run: Run) -> list[Row]:
    """Each limit of the run, and each part of the paper's claim that it judges: what was asked, what was found, and
    whether it was kept. A part of the claim that has to hold in any right simulation is a limit too."""
    r, found = run.record, []

    def add(of: str, kept: Any, text: str, key: str, limit: bool = True, claim: bool = False) -> None:
        if kept is not None:
            source = {"run": run.name, "file": RECORD, "key": key}
            row = {"run": run.name, "of": of, "kept": bool(kept), "found": text, "source": source}
            found.append(row | {"limit": limit, "claim": claim})

    if run.kind == "simulate":
        reached, asked = look_up(r, "contract.reached"), look_up(r, "contract.requested")
        if reached is not None and asked is not None:
            add(
                "error of final voltages",
                look_up(r, "contract.kept"),
                f"{reached:.1e}, limit {asked:g}",
                "contract.kept",
            )
        add("ngspice as VACASK", look_up(r, "both.kept"), "difference of the two simulators", "both.kept")
    elif run.kind == "pvt":
        for i, limit in enumerate(look_up(r, "limits") or []):
            text = _of_limit(limit)
            add(f"{limit['of']}, {limit['kind']}", limit["kept"], text, f"limits[{i}]")
        for key, check in checks(r or {}).items():
            text = f"{check['agree']} of {check['cases']} labels, limit {100 * check['asked']:g} %"
            add(f"engine as ngspice ({LEVEL_TEXT[check['level']]})", check["kept"], text, key)
    elif run.kind == "latency":
        for i, v in enumerate(look_up(r, "summary.verdicts") or []):
            add(v["claim"], v["holds"], v["found"], f"summary.verdicts[{i}]", v["limit"], True)
    elif run.kind == "adjoint":
        worst, asked = look_up(r, "summary.worst"), look_up(r, "summary.requested")
        text = "no run passed" if worst is None else f"{worst:.1e}, limit {asked:g}"
        add("error of gradients", look_up(r, "summary.kept"), text, "summary.kept")
    return found


def _of_limit(limit: Row) -> str:
    """What was found and what was asked: a share in %, or an SI value."""
    unit = limit.get("unit")
    if limit["found"] is None:
        return "not finite"
    if unit:
        return f"{format_si(limit['found'], unit)}, limit {format_si(limit['limit'], unit)}"
    return f"{100 * limit['found']:.2f} %, limit {100 * limit['limit']:g} %"


def failures(run: Run) -> list[str]:
    """What is wrong with the run, in words: parts that cannot be read, and rows of the store that did not pass."""
    bad = {status: n for status, n in run.statuses.items() if status != Status.PASSED}
    of = sum(run.statuses.values())
    rows = [
        f"{n} of {of} planned runs {'not run yet' if status == Status.PLANNED else f'failed: {status}'}"
        for status, n in bad.items()
    ]
    told = look_up(run.record, "failed") or look_up(run.record, "failures") or []
    first = [f"the first: {told[0].get('message', '')}"] if told else []
    if told and told[0].get("folder"):
        first[0] += f" (its decks and logs: {told[0]['folder']})"
    return [*run.problems, *rows, *first]


def differences(runs: list[Run]) -> list[Row]:
    """Headline numbers of runs of one kind side by side, with the difference of each from the first; none where they
    are not of as many samples."""
    found = []
    for kind in _NUMBERS:
        own = [run for run in runs if run.kind == kind]
        if len(own) < 2:
            continue
        tables = {run.name: {row["of"]: row for row in numbers(run)} for run in own}
        for text in dict.fromkeys(name for table in tables.values() for name in table):
            cells = [tables[run.name].get(text) for run in own]
            first = cells[0]
            changes = [
                None if c is None or first is None or c["n"] != first["n"] else c["value"] - first["value"]
                for c in cells
            ]
            found.append({"kind": kind, "of": text, "runs": [r.name for r in own], "cells": cells, "changes": changes})
    return found
