"""The digits network over conditions and dies: what ``kcnet study pvt`` finds, and what it takes.

    python benchmarks/pvt_digits.py [--pdk generic180] [--dies 1000] [--repeat 200] [--repeat-mos 0] [--workers 2]
                                    [--spread 0] [--out FOLDER]

With ``--repeat-mos`` it also prints how far the engine is from the same runs in transistors if gain and shift are all
it knows of a condition. ``--spread N``: one digit in transistors at the nominal condition on N dies drawn by the kit's
own mismatch, against the engine's dies of the kit's statistics: how far the final read-out voltages spread.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from kcnet_eda import api
from kcnet_eda.config import load_settings
from kcnet_eda.export.bundle import DEFAULT_ERROR
from kcnet_eda.network.data import load_data
from kcnet_eda.network.store import load_network, network_path
from kcnet_eda.physical.edge_model import fit_model
from kcnet_eda.physical.pdk import load_pdk
from kcnet_eda.physical.size_classes import model_classes
from kcnet_eda.progress import NoProgress
from kcnet_eda.study.mos.calibrate import calibrate
from kcnet_eda.study.mos.export import calibrated_circuit, kit_scaling, mos_settings
from kcnet_eda.study.mos.run import mos_deck, run_in_transistors
from kcnet_eda.study.pvt.conditions import cells_at, grid, measured, nominal
from kcnet_eda.study.pvt.dies import Dies, network_cells
from kcnet_eda.study.pvt.settings import PvtStudy

ENGINE_DIES = 1000

STUDY = """
network: digits_mos
pdk: {pdk}
corners: [tt, ff, ss, fs, sf]
supplies: ["-10%", "0%", "+10%"]
temperatures: [-40, 27, 125]
limits: {{die_accuracy: 0.93}}
dies: {dies}
repeat: {repeat}
repeat_mos: {repeat_mos}
"""


def without_the_rest(file: Path, run: Path) -> None:
    """Print how engines with and without all but gain and shift differ from the transistors of a finished ``run``."""
    study = load_settings(file, PvtStudy)
    kit = load_pdk(study.pdk)
    conditions = grid(study, kit)
    found = measured(study, kit, conditions, NoProgress())
    cells = network_cells(load_network(network_path(study.network)))
    network = cells.network
    data = load_data(study.data, None, features=network.inputs.size, seed=study.seed)
    home = calibrate(found.rig, *model_classes(found.rig.design))
    dies = Dies(cells, found.models, cells.units(found.rig.design), found.spread, study.seed, study.t_unit)
    off: dict[str, list[float]] = {"all": [], "gain and shift": []}
    agree = dict.fromkeys(off, 0)
    with np.load(run / "outputs.npz") as outputs:
        cases, ends = outputs["case_mos"], outputs["case_mos_v_end"]
    for (condition, _, sample), end in zip(cases.tolist(), ends, strict=True):
        if np.isnan(end).any():
            continue
        x0 = network.initial_state(data.x)[sample]
        plain = fit_model(*cells_at(found.rig, home, conditions[condition]), ())
        for what, model in (("all", found.models[condition]), ("gain and shift", plain)):
            one = replace(dies, models=(model,))
            v = one.evolve(one.nominal(0), x0[None], study.steps, 1)[0, :, 0]
            off[what].append(float(np.abs(v - end).max()))
            agree[what] += int(v[network.readout].argmax() == end[network.readout].argmax())
    for what, values in off.items():
        print(f"{what}: {agree[what]} of {len(values)} labels are the transistors', largest node difference a case: "
              f"median {np.median(values):.3f}, worst {max(values):.3f} V_u")  # fmt: skip


def spread(name: str, dies: int) -> None:
    """Print σ of final read-out voltages over dies, in V_u, rms over the outputs, in transistors and by the engine."""
    kit = load_pdk(name)
    study = PvtStudy(network="digits_mos", pdk=name, dies=ENGINE_DIES)
    at = [nominal(kit)]
    found = measured(study, kit, at, NoProgress())
    cells = network_cells(load_network(network_path("digits_mos")))
    drawn = Dies(cells, found.models, cells.units(found.rig.design), found.spread, study.seed, study.t_unit)
    network, scaling = cells.network, kit_scaling(kit, None, study.t_unit)
    data = load_data("digits:test", None, features=network.inputs.size, seed=study.seed)
    x0 = network.initial_state(data.x)[0]
    by_engine = drawn.evolve(drawn.edges(0, range(ENGINE_DIES)), x0[None], study.steps, 1)[:, network.readout, 0]
    mos, ends, begun = calibrated_circuit(network, found.rig, scaling), [], time.monotonic()
    for seed in range(1, dies + 1):
        there = replace(found.rig, seed=seed)
        deck = mos_deck(there, replace(mos, direct=there.direct), mos_settings(network, DEFAULT_ERROR), x0)
        ends.append(np.append(0.0, run_in_transistors(there, deck).v[-1])[network.readout])
    seconds = (time.monotonic() - begun) / dies
    both = [float(np.sqrt(np.var(v, axis=0, ddof=1).mean())) for v in (np.array(ends), by_engine)]
    means = np.abs(np.mean(ends, axis=0) - by_engine.mean(axis=0))
    print(f"one digit on {dies} dies of the kit's mismatch in transistors, {seconds:.1f} s each: σ {both[0]:.4f} V_u;")
    print(f"by the engine on {ENGINE_DIES} dies: {both[1]:.4f} V_u; means differ by at most {means.max():.4f} V_u")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pdk", default="generic180")
    parser.add_argument("--dies", type=int, default=1000)
    parser.add_argument("--repeat", type=int, default=200)
    parser.add_argument("--repeat-mos", type=int, default=0)
    parser.add_argument("--spread", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    out = given.out or Path(tempfile.mkdtemp())
    out.mkdir(parents=True, exist_ok=True)
    file = out / "study.yaml"
    file.write_text(STUDY.format(pdk=given.pdk, dies=given.dies, repeat=given.repeat, repeat_mos=given.repeat_mos))
    load = os.getloadavg()[0]
    record = api.study_pvt(file, out / "run", workers=given.workers)
    s = record["summary"]
    print(f"{s['conditions']} conditions, {s['dies']} dies, {s['samples']} digits: {s['classifications']} labels")
    print(
        f"{s['wall_s']} s with {given.workers} threads, {time.process_time():.0f} s of processor without ngspice; ",
        end="",
    )
    print(f"load before: {load:.1f}")
    for row in sorted(record["conditions"], key=lambda row: (row["yield"], row["accuracy"])):
        print(f"{row['condition']}: accuracy {row['accuracy']:.4f} {row['accuracy_interval']}, ", end="")
        print(f"dies {row['die_min']:.4f} to {row['die_max']:.4f}, yield {row['yield']:.4f} {row['yield_interval']}")
    print(f"good at every condition: {s['yield_everywhere']} {s['yield_everywhere_interval']}")
    print(f"changes nothing: {s['inert_axes']}")
    print(f"repeated in ngspice: {record['check']}, {record['check_mos']}")
    rows = record["conditions"]
    for name in ("gain_min", "gain_max", "rounding", "lag_s", "fit_error", "fit_rms", "plain_fit_error", "departure"):
        print(f"{name}: {min(row[name] for row in rows):.4g} to {max(row[name] for row in rows):.4g}")
    if given.repeat_mos:
        without_the_rest(file, out / "run")
    if given.spread:
        spread(given.pdk, given.spread)


if __name__ == "__main__":
    main()
