"""``--simulator both``: the same samples through ngspice and VACASK, and how far the two are from each other."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from kcnet_eda.dynamics.contract import compare, node_scales
from kcnet_eda.files import write_atomic
from kcnet_eda.network.graph import labels
from kcnet_eda.network.store import load_network
from kcnet_eda.study.simulate import BUNDLE, NETWORK, OUTPUTS, RECORD, STORE, simulate
from kcnet_eda.study.store import open_store
from kcnet_eda.tools.simulators import NGSPICE, VACASK


def simulate_both(target: str | Path, out: Path, **options: Any) -> dict[str, Any]:
    """:func:`kcnet_eda.study.simulate.simulate` with ngspice into ``out`` and with VACASK into ``out/vacask``; the
    record of the first, with their difference under ``both``, which is judged by the same contract."""
    record = simulate(target, out, **options, simulator=NGSPICE.name)
    bundle = target if Path(target).is_dir() else out / BUNDLE
    with open_store(out / STORE) as done, open_store(out / VACASK.name / STORE) as fresh:
        for key, v_end in done.references().items():  # the truth is the same: it is not solved twice
            fresh.keep_reference(key, v_end)
    second = simulate(bundle, out / VACASK.name, **options, simulator=VACASK.name)
    network = load_network(out / NETWORK)
    ends = []
    for folder in (out, out / VACASK.name):
        with np.load(folder / OUTPUTS, allow_pickle=False) as arrays:
            x0, v = arrays["x0"], arrays["v_end"]
        ends.append(v)
    ran = np.isfinite(ends[0]).all(axis=1) & np.isfinite(ends[1]).all(axis=1)
    first, other = ends[0][ran], ends[1][ran]
    difference = compare(network, first, other, node_scales(network, x0))
    asked = record["contract"]["requested"]
    record["both"] = {
        "simulators": [r["summary"]["simulator_version"] for r in (record, second)],
        "n": int(ran.sum()),
        "same_label": int((labels(network, first) == labels(network, other)).sum()),
        "simulate_s_per_sample": [r["run"]["simulate_s_per_sample"] for r in (record, second)],
        "failed_runs": [r["summary"]["failed_runs"] for r in (record, second)],
        "kept": bool(difference.max_rel <= asked and second["contract"]["kept"]),
        "max_rel": difference.max_rel,
        **asdict(difference),
    }
    write_atomic(out / RECORD, json.dumps(record, indent=1, allow_nan=False) + "\n")
    return record
