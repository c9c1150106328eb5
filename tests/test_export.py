"""What the designer receives: readable, traceable, checked before it is written, and running without Python."""

import csv
import dataclasses
import json
import os
import re
import subprocess

import numpy as np
import pytest
from conftest import decaying, driven_corner, make_network, random_network, rc_pair, repeating, repeating_solution

from kcnet_eda.errors import InvalidInputError, KcnetError
from kcnet_eda.export.bundle import MANIFEST, export, read_bundle
from kcnet_eda.export.circuit import build_circuit
from kcnet_eda.export.handover import make_banks, time_in_phases
from kcnet_eda.export.netlist import edge_map_csv, enables, render_netlist, transfer_enables
from kcnet_eda.export.render import render
from kcnet_eda.export.trace import trace
from kcnet_eda.files import sha256_file
from kcnet_eda.network.graph import Network, Phase
from kcnet_eda.network.laws import PHI_NAMES, RELU, TANH
from kcnet_eda.network.store import save_network
from kcnet_eda.physical.scaling import resolve
from kcnet_eda.tools.locate import find_ngspice, find_openvaf


@pytest.fixture
def saved(tmp_path):
    def save(network):
        path = tmp_path / "net.kcnet"
        save_network(network, path)
        return path

    return save


def test_every_edge_is_one_device_with_its_parameters_in_si():
    net = random_network(1)
    s = resolve(c=2e-12, v_unit=0.2, i_unit=2e-6, v_cm=0.9)
    circuit = build_circuit(net, s, passes=())
    text = render_netlist(circuit, circuit.stages[0], "ngspice")
    devices = {m[1]: m[0].split() for m in re.finditer(r"^ne(\d+) .*$", text, re.M)}
    e = net.phases[0].edges
    assert len(devices) == len(e)
    for j in range(len(e)):
        _, source, target, rail, module, *params = devices[str(j)]
        net_of = {0: "vcm"} | {n: f"n{n}" for n in range(1, 7)}
        assert (source, target, rail) == (net_of[e.source[j]], net_of[e.target[j]], "vcm")
        assert module == f"kc_edge_{PHI_NAMES[e.phi[j]]}"
        values = {k: float(v) for k, v in (p.split("=") for p in params)}
        expected = (
            {"imax": e.k[j] * 2e-6, "ws": e.a[j] / 0.2, "wd": e.b[j] / 0.2, "x0": e.c[j]}
            if e.phi[j] == TANH
            else {"gs": e.a[j] * 1e-5, "gd": e.b[j] * 1e-5, "i0": e.c[j] * 2e-6, "k": e.k[j]}
        )
        assert values == pytest.approx(expected, rel=5e-9)
    assert "vvcm vcm 0 0.9" in text and text.count(" vcm 2e-12") == 6


def test_edge_map_lists_edges_in_order():
    circuit = build_circuit(random_network(2), resolve(), passes=())
    rows = list(csv.DictReader(edge_map_csv(circuit).splitlines()))
    assert [int(r["edge"]) for r in rows] == list(range(30))
    text = render_netlist(circuit, circuit.stages[0], "ngspice")
    for r in rows:
        assert f"{r['instance']} {r['source']} {r['target']} vcm {r['device']} {r['parameters']}\n" in text


def test_all_that_cannot_be_exported_is_said_at_once(tmp_path, saved):
    names = ("gnd", "time", "Bad Name")
    bad = Network("bad", rc_pair().phases, [1], [2], names)
    with pytest.raises(InvalidInputError) as caught:
        export(saved(bad), tmp_path / "b")
    assert "2 node names" in str(caught.value)
    assert not (tmp_path / "b").exists()


def test_node_names_that_the_netlist_of_all_phases_makes_are_refused(tmp_path, saved):
    phase = rc_pair().phases[0]
    for name in ("en0", "tr1", "n1_p1", "x_end"):
        net = Network("n", (phase, phase), [1, 2], [1], ("gnd", "n1", name))
        with pytest.raises(InvalidInputError, match="kept for nets"):
            export(saved(net), tmp_path / "b")
    export(saved(Network("n", (phase,), [1, 2], [1], ("gnd", "n1", "en0"))), tmp_path / "b")


def test_transfers_are_only_where_a_hand_over_needs_them():
    phase = rc_pair().phases[0]

    def moved(*kinds):
        phases = tuple(Phase(n, 1.0, phase.edges, *kind) for n, *kind in kinds)
        banks = make_banks(["vcm", *(f"n{i}" for i in range(1, max(p.n_nodes for p in phases)))], phases)
        return [[(t.target, t.first, t.second) for t in bank.transfers] for bank in banks]

    assert moved((4,), (3,), (4,)) == [[], [], [], []]
    assert moved((3,), (3, "repeat"), (6, "repeat")) == [
        [],
        [],
        [("n3", "n1", "vcm"), ("n4", "n2", "vcm"), ("n5", "n1", "vcm")],
        [],
    ]
    # The end of phase 0 is needed again, so phase 1 goes on elsewhere; its own end and that make the start of phase 2.
    assert moved((2,), (2, "zeros", 0), (2,)) == [[], [("n1_p1", "n1", "vcm")], [("n1_p2", "n1_p1", "n1")], []]
    # The sum is repeated, not what phase 0 evolved to.
    assert moved((2, "zeros", 0), (3, "repeat")) == [[], [("n1_p1", "n1", "n1"), ("n2", "n1", "n1")], []]
    assert moved((2, "zeros", 0)) == [[], [("n1_end", "n1", "n1")]]


def test_transfer_windows_are_part_of_the_run(tmp_path, saved):
    bundle = export(saved(repeating()), tmp_path / "b")
    circuit = bundle.circuit
    # phases of 1 and 0.5 ps, one window of half the shorter
    assert circuit.timeline.windows == {1: pytest.approx((1e-12, 1.25e-12), abs=0)}
    assert circuit.run_time(True) == bundle.manifest["t_end"] == pytest.approx(1.75e-12, abs=0)
    assert circuit.run_time(False) == circuit.t_end == pytest.approx(1.5e-12, abs=0)
    steps = bundle.settings["ngspice"].steps
    window = transfer_enables(circuit, steps, "ngspice")[1]
    rise, fall = [sorted(c) for c in zip(*window.corners[1:], strict=True)]
    en0, en1 = enables(circuit, steps, "ngspice")
    assert rise[0] >= en0.corners[-1][0] and rise[-1] <= en1.corners[-2][0] and fall == [0, 0, 1, 1]
    text = (tmp_path / "b" / "README.md").read_text()
    assert "Transfer windows take 250 fs of the 1.75 ps" in text and "kc_transfer.va" in text
    lines = (tmp_path / "b" / "expected" / "waveforms.csv").read_text().split()
    rows = np.array([line.split(",") for line in lines[1:]], float)
    still = rows[(rows[:, 0] > 1.001e-12) & (rows[:, 0] < 1.249e-12), 1:]
    assert rows[-1, 0] == pytest.approx(1.75e-12, abs=0) and len(still) > 5
    np.testing.assert_allclose(still, still[:1].repeat(len(still), axis=0), rtol=1e-8)
    np.testing.assert_allclose(rows[-1, 1:], repeating_solution(1.0, -0.6)[[0, 2, 3]], atol=1e-7)
    np.testing.assert_allclose(time_in_phases(np.array([0.5, 1.1, 1.3, 1.75]), [(1, 1.25)]), [0.5, 1, 1.05, 1.5])


@pytest.mark.parametrize("net", [repeating(), decaying(None, 0), decaying(None, 0, 1, 0), decaying(0)])
def test_run_sh_hands_over_with_transfers(tmp_path, saved, net):
    export(saved(net), tmp_path / "b", v_cm="0.6")
    good = run_sh(tmp_path / "b")
    assert good.returncode == 0, good.stdout + good.stderr
    assert "PASS: all" in good.stdout
    netlist = tmp_path / "b" / "netlist" / f"{net.name}.sp"
    netlist.write_text(re.sub(r"(?m)^n1t0 .*\n", "", netlist.read_text()))  # without one transfer it must not pass
    assert run_sh(tmp_path / "b").returncode == 1


def test_a_trace_leads_from_edge_to_device_and_back(tmp_path, saved):
    net = make_network(
        [(1, 2, 1.0, -1.0, -0.2, 1.0, RELU), (2, 1, 0.5, -0.5, 0.1, 2.0, RELU), (0, 1, 0.0, 0.0, 0.3, 1.0, RELU)],
        3,
        examples=[[1.0, 0.0]],
    )
    bundle = export(saved(net), tmp_path / "b")
    edge, device, *values = trace(bundle, "0:1")
    assert "edge 0:1, n2 to n1" in edge and "2·relu(0.5·v_s -0.5·v_d +0.1)" in edge
    name = re.search(r"device (\w+)", device)[1]
    assert "term" in device and "g_" in values[0] and f"{name} " in (tmp_path / "b/netlist/small.sp").read_text()
    back = "\n".join(trace(bundle, name))
    assert "edge 0:0" in back and "edge 0:1" in back
    assert "constant" in trace(bundle, "2")[1]
    for wrong in ("7", "1:0", "np99"):
        with pytest.raises(InvalidInputError, match="--trace"):
            trace(bundle, wrong)


def test_bad_requests_are_refused_before_anything_is_written(tmp_path):
    for wrong in (
        {"level": "quantum"},
        {"c": "0"},
        {"c": "1x"},
        {"error": 2.0},
        {"v_unit": "1", "i_unit": "1", "t_unit": "1"},
    ):
        with pytest.raises(InvalidInputError):
            export("digits", tmp_path / "b", **wrong)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path, saved):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(InvalidInputError, match=r"is not a bundle that may be replaced"):
        export(saved(rc_pair()), tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "years of work"
    (tmp_path / "file").write_text("x")
    with pytest.raises(InvalidInputError):
        export(saved(rc_pair()), tmp_path / "file")


def test_a_failure_in_the_middle_leaves_the_old_bundle_whole(tmp_path, saved, monkeypatch):
    export(saved(rc_pair()), tmp_path / "b")
    before = sha256_file(tmp_path / "b" / MANIFEST)

    def full(*_a, **_k):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kcnet_eda.export.bundle._waveforms_csv", full)
    with pytest.raises(KcnetError, match="No space left"):
        export(saved(driven_corner()), tmp_path / "b")
    assert sha256_file(tmp_path / "b" / MANIFEST) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "net.kcnet"]


def test_the_bundle_is_complete_and_hashed(tmp_path, saved):
    bundle = export(saved(driven_corner()), tmp_path / "b", c="1f", t_unit="1f", v_cm="0.9", lower="none")
    manifest = json.loads((tmp_path / "b" / MANIFEST).read_text())
    files = {str(p.relative_to(tmp_path / "b")) for p in (tmp_path / "b").rglob("*") if p.is_file()} - {MANIFEST}
    assert set(manifest["sha256"]) == files
    assert {
        "README.md",
        "run.sh",
        "network.kcnet",
        "netlist/small.sp",
        "netlist/small.inc",
        "netlist/edge_map.csv",
        "testbench/example.sp",
        "expected/final.csv",
        "expected/waveforms.csv",
        "veriloga/kc_edge_relu.va",
        "veriloga/kc_edge_identity.va",
    } == files
    assert manifest["node_map"][0] == {"node": 0, "net": "vcm", "role": "ground"}
    assert bundle.edited == () and bundle.circuit.t_end == pytest.approx(1e-15, rel=1e-9, abs=0)
    for absent in ("/root", "/home", "/tmp", str(tmp_path)):
        for name in files - {"network.kcnet"}:
            assert absent not in (tmp_path / "b" / name).read_text(), name


def test_export_is_reproducible(tmp_path, saved):
    path = saved(driven_corner())
    first, second = (export(path, tmp_path / name).manifest["sha256"] for name in ("one", "two"))
    assert first == second


def test_reading_back_says_what_changed(tmp_path, saved):
    export(saved(rc_pair()), tmp_path / "b")
    netlist = tmp_path / "b" / "netlist" / "small.sp"
    netlist.write_text(netlist.read_text() + "* mine\n")
    assert read_bundle(tmp_path / "b").edited == ("netlist/small.sp",)
    netlist.unlink()
    with pytest.raises(InvalidInputError, match=r"small\.sp is missing"):
        read_bundle(tmp_path / "b")
    with pytest.raises(InvalidInputError, match="is not a bundle"):
        read_bundle(tmp_path)
    (tmp_path / "b" / MANIFEST).write_text('{"manifest_version": 7, "sha256": {}}')
    with pytest.raises(InvalidInputError, match="manifest version 7"):
        read_bundle(tmp_path / "b")


def test_a_template_name_without_a_value_is_an_error():
    with pytest.raises(Exception, match="undefined"):
        render("ngspice/netlist.j2")


def run_sh(bundle, **env):
    """run.sh with no Python of ours: an empty environment but for the two tools and the base system."""
    clean = {"PATH": "/usr/bin:/bin", "OPENVAF": str(find_openvaf()), "NGSPICE": str(find_ngspice())} | env
    return subprocess.run(
        ["sh", str(bundle / "run.sh")],
        env={k: v for k, v in clean.items() if v is not None},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_run_sh_passes_on_what_was_exported_and_fails_on_what_was_changed(tmp_path, saved):
    net = make_network(
        [(1, 2, 1.0, -1.0, -0.2, 1.0, RELU), (1, 3, 0.5, -0.5, 0.0, 1.0, RELU)],
        4,
        readout=[2, 3],
        examples=[[1.0, 0.0, 0.1]],
    )
    bundle = tmp_path / "a folder with spaces"
    export(saved(net), bundle, v_cm="0.6", lower="none")
    good = run_sh(bundle)
    assert good.returncode == 0, good.stdout + good.stderr
    assert "PASS: all 3 nets" in good.stdout and "label 1 (expected 1)" in good.stdout

    netlist = bundle / "netlist" / "small.sp"
    exported = netlist.read_text()
    netlist.write_text(exported.replace("gs=1 gd=-1", "gs=1.02 gd=-1.02"))
    off = run_sh(bundle)
    assert off.returncode == 1 and "outside their tolerance" in off.stdout
    netlist.write_text(exported.replace("cn3 n3 vcm", "cn3 other vcm"))  # net n3 loses its capacitor, then its name
    assert run_sh(bundle).returncode == 1
    netlist.write_text(re.sub(r"\bn3\b", "nx", exported))
    gone = run_sh(bundle)
    assert gone.returncode == 1 and "PASS" not in gone.stdout


def test_run_sh_judges_no_label_that_is_not_meant_or_not_decided(tmp_path, saved):
    """Two outputs closer than twice the tolerance: the label may be either. Outputs that are coordinates have none."""
    rows = [(1, 2, 1.0, -1.0, 0.0, 1.0, RELU), (1, 3, 1.00001, -1.00001, 0.0, 1.0, RELU)]
    net = make_network(rows, 4, inputs=[1], readout=[2, 3], examples=[[1.0], [0.2]])
    export(saved(net), tmp_path / "tie", lower="none")
    netlist = tmp_path / "tie" / "netlist" / "small.sp"
    netlist.write_text(netlist.read_text().replace("gs=1.00001 gd=-1.00001", "gs=0.99999 gd=-0.99999"))
    tie = run_sh(tmp_path / "tie")
    assert tie.returncode == 0 and "label 0 (expected 1)" in tie.stdout, tie.stdout + tie.stderr
    points = dataclasses.replace(net, record={"imported": {"test_bench": "twomoon"}})
    save_network(points, tmp_path / "points.kcnet")
    export(tmp_path / "points.kcnet", tmp_path / "points")
    ran = run_sh(tmp_path / "points")
    assert ran.returncode == 0 and "label" not in ran.stdout and "PASS" in ran.stdout
    assert "names the answer" not in (tmp_path / "points" / "README.md").read_text()


def test_run_sh_never_passes_on_an_old_result(tmp_path, saved, fake_program):
    export(saved(rc_pair()), tmp_path / "b")
    assert run_sh(tmp_path / "b").returncode == 0
    silent = run_sh(tmp_path / "b", NGSPICE=str(fake_program("ngspice", "exit 0")))
    assert silent.returncode == 1 and "wrote no waveforms" in silent.stderr
    missing = run_sh(tmp_path / "b", OPENVAF="", PATH="/nowhere:/bin:/usr/bin")
    assert missing.returncode == 1 and "OPENVAF" in missing.stderr
    cut = fake_program("cut", f'"{find_ngspice()}" "$@"; head -c 600 example.raw > x; mv x example.raw')
    assert run_sh(tmp_path / "b", NGSPICE=str(cut)).returncode == 1


def test_the_wheel_exports_from_a_clean_environment(tmp_path):
    """Build the wheel, install it where only its dependencies are, and export away from the checkout."""
    import sys
    import sysconfig
    from pathlib import Path

    root = Path(__file__).parent.parent
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(tmp_path), str(root)],
        check=True,
        capture_output=True,
        timeout=300,
    )
    wheel = next(tmp_path.glob("*.whl"))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "env")], check=True, timeout=120)
    python = tmp_path / "env" / "bin" / "python"
    site = Path(
        subprocess.run(
            [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
    )
    # The dependencies' folder, without its .pth files, so that the checkout itself stays out of reach.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--target", str(site), str(wheel)],
        check=True,
        timeout=120,
    )
    code = (
        "import kcnet_eda, pathlib; from kcnet_eda.api import export, pdk_check; "
        "b = export('digits', pathlib.Path('b')); print(kcnet_eda.__file__, b.circuit.n_devices); "
        "assert pdk_check('generic180', ['tt']).readings"
    )
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run([str(python), "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert str(site) in done.stdout and (tmp_path / "b" / "run.sh").is_file()


def test_numbers_of_the_expected_files_are_the_reference(tmp_path, saved):
    export(saved(driven_corner()), tmp_path / "b")
    rows = list(csv.reader((tmp_path / "b" / "expected" / "waveforms.csv").read_text().splitlines()))
    from conftest import driven_corner_solution

    np.testing.assert_allclose(np.array(rows[-1][1:], float), driven_corner_solution(), atol=1e-7)
    assert float(rows[-1][0]) == pytest.approx(1e-12, rel=1e-6, abs=0)
