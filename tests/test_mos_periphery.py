"""Bias, write switch and read buffer in ngspice, and every cell's Verilog-A counterpart."""

from __future__ import annotations

import re

import numpy as np
import pytest
from conftest import installed_kit

from kcnet_eda.export.mos_cells import BIAS, Placer, bias_cell, read_cell, write_cell
from kcnet_eda.files import resource_dir
from kcnet_eda.study.mos.rig import Bench
from kcnet_eda.study.mos.sizing import size_cells
from kcnet_eda.tools.openvaf import compile_file
from kcnet_eda.tools.pdk import link_models, prepare
from kcnet_eda.tools.rawfile import read_sweep, read_transient
from kcnet_eda.tools.simulators import NGSPICE

#: Verilog-A counterpart: the subcircuit that it stands for, by the template that writes it.
COUNTERPARTS = {
    "kc_cell_relu": "edge_relu",
    "kc_cell_tanh": "edge_tanh",
    "kc_cell_bias": "bias",
    "kc_cell_write": "write_switch",
    "kc_cell_read": "read_buffer",
}


@pytest.fixture(scope="module", params=["generic180", "gf180mcu"])
def rig(request):
    kit = installed_kit(request.param)
    return size_cells(Bench(kit, prepare(kit)))


@pytest.fixture(scope="module")
def generic_rig():
    kit = installed_kit("generic180")
    return size_cells(Bench(kit, prepare(kit)))


def relu(x):
    return np.maximum(x, 0)


def simulate(rig, folder, circuit, analysis, osdi=()):
    """Run ``analysis`` of ``circuit`` with the kit's models and bias; the raw file."""
    (folder / "out.raw").unlink(missing_ok=True)  # of an earlier run
    link_models(rig.models, folder)
    for module in osdi:
        compiled = compile_file(resource_dir("veriloga") / f"{module}.va")
        (folder / f"{module}.osdi").write_bytes(compiled.read_bytes())
    lines = [
        "* check",
        rig.header([f"{module}.osdi" for module in osdi]),
        *(f".model {module} {module}" for module in osdi),
        bias_cell(Placer(rig.pdk, BIAS, rig.direct), rig.design, 1),
        f"vdd vdd 0 {rig.design.supply}",
        f"vref vref 0 {rig.design.v_ref}",
        "xb vref vdd 0 vbn vbp vclp kc_bias",
    ]
    lines += [*circuit, f".control\nset filetype=binary\n{analysis}\nwrite out.raw\nquit\n.endc\n.end\n"]
    deck = folder / "deck.sp"
    deck.write_text("\n".join(lines))
    NGSPICE.run(deck, folder / "log.txt", 60.0)
    return folder / "out.raw"


def sweep(rig, folder, circuit, source, span, saved, osdi=()):
    """A DC sweep: the source, and what is saved."""
    return read_sweep(simulate(rig, folder, circuit, f"dc {source} {span}", osdi), saved, float(span.split()[1]))


def test_the_read_buffer_follows_the_box_within_a_twentieth_of_a_unit(rig, tmp_path):
    text, devices = read_cell(rig.pdk, rig.design, rig.direct)
    assert len(devices) == 5
    x, y = sweep(rig, tmp_path, [text, "vin in 0 1.8", "xr in out vdd 0 vbn kc_read"], "vin", "1.4 2.2 0.05", ["out"])
    # An amplifier of gain A that is even where its mirror's output is at the diode's voltage, at most 1.2 V away from
    # here, is off by 1.2 V/A: gm/gds of both is 10 /V over 0.1 /V (λ of 0.05 each) or better, so that A > 100
    assert np.abs(y[:, 0] - x).max() < 12e-3
    # and what counts between outputs is the difference of two: 1/A of it
    np.testing.assert_allclose(np.diff(y[:, 0]), np.diff(x), rtol=0.01)


def test_the_read_buffer_lags_by_its_load_over_its_transconductance(rig, tmp_path):
    load, rise, time = 1e-12, 0.4, 300e-9
    i_tail = 8 * rig.design.i_unit
    circuit = [
        read_cell(rig.pdk, rig.design, rig.direct)[0],
        f"vin in 0 pwl(0 1.6 50n 1.6 {50e-9 + time} {1.6 + rise})",
        f"xr in out vdd 0 vbn kc_read\ncl out 0 {load}",
    ]
    raw = simulate(rig, tmp_path, circuit, "tran 1n 350n 0 1n")
    found = read_transient(raw, ["in", "out"], 350e-9)
    v_in, v_out = found.values.T
    behind = (v_in - v_out)[-1] - (v_in - v_out)[0]
    slope = rise / time
    # gm of a side is its half of the tail current times 10 to 30 /V, moderate inversion. Two per cent of the rise are
    # for the offset's own change along it (above).
    assert slope * load / (i_tail / 2 * 30) - 0.02 * rise < behind < slope * load / (i_tail / 2 * 10) + 0.02 * rise


def test_the_write_switch_passes_when_on_and_holds_when_off(rig, tmp_path):
    text, devices = write_cell(rig.pdk, rig.design, rig.direct)
    assert len(devices) == 4
    circuit = [
        text,
        "vin in 0 1.8\nxw in node vdd 0 vdd 0 kc_write\nrl node 0 10meg",
        "xo in held 0 vdd vdd 0 kc_write\nvo held 0 1.8",
    ]
    x, y = sweep(rig, tmp_path, circuit, "vin", "1.4 2.2 0.1", ["node", "i(vo)"])
    ron = 10e6 * (x - y[:, 0]) / y[:, 0]
    # A node has C = T_u·I_u/V_u and is written for a tenth of T_u: ten time constants leave 5e-5 of the difference
    assert (ron > 0).all() and (10 * ron < 0.1 * rig.design.v_unit / rig.design.i_unit).all()
    # Held for T_u with the other side 2 V_u away, less than a thousandth of I_u
    assert np.abs(y[:, 1]).max() < 1e-3 * rig.design.i_unit


def module_pins(module):
    """The pins of a Verilog-A module, in order."""
    text = (resource_dir("veriloga") / f"{module}.va").read_text()
    return re.search(rf"^module {module}\((.*)\);", text, re.MULTILINE)[1].split(", ")


@pytest.mark.parametrize("module", COUNTERPARTS)
def test_a_counterpart_has_the_subcircuits_pins_in_order(module):
    template = resource_dir("jinja_templates") / "mos" / f"{COUNTERPARTS[module]}.j2"
    head = re.search(r"^\.subckt (?:\w+|\{\{ name \}\}) (.*)$", template.read_text(), re.MULTILINE)
    assert module_pins(module) == head[1].split()
    assert module_pins("kc_cell_node") == ["node", "vss"]  # a SPICE capacitor's two


def test_the_edges_counterparts_have_the_law(generic_rig, tmp_path):
    x, y = sweep(
        generic_rig,
        tmp_path,
        [
            "vs s 0 1.8\nvd d 0 1.8\nvs1 s s1 0\nvd1 d d1 0\nvs2 s s2 0\nvd2 d d2 0",
            "n1 s1 d1 s1 d1 vdd 0 vbn vbp vclp kc_cell_relu theta1=0.7 theta2=0.2",
            "n2 s2 d2 s2 d2 vdd 0 vbn vbp vclp kc_cell_tanh slope=1.5 offset=0.3",
        ],
        "vs",
        "1.4 2.2 0.1",
        ["i(vs1)", "i(vd1)", "i(vs2)", "i(vd2)"],
        ("kc_cell_relu", "kc_cell_tanh"),
    )
    v = (x - 1.8) / 0.2
    np.testing.assert_allclose(y[:, 0], 2e-6 * relu(0.7 * v + 0.2), atol=1e-10)
    np.testing.assert_allclose(y[:, 1], -y[:, 0], atol=1e-10)
    np.testing.assert_allclose(y[:, 2], 2e-6 * np.tanh(1.5 * v + 0.3), atol=1e-10)
    np.testing.assert_allclose(y[:, 3], -y[:, 2], atol=1e-10)


def test_the_bias_generators_counterpart_follows_the_reference_as_it_does(generic_rig, tmp_path):
    """Square-law transistors: thresholds and overdrives from the two ends of a sweep of the reference hold between."""
    lines, span = ["vbn", "vbp", "vclp"], "0.8 1.6 0.1"
    raw = simulate(generic_rig, tmp_path, [], f"dc vref {span}")
    x, real = read_sweep(raw, lines, 1.6)
    design = generic_rig.design
    root = np.sqrt(x / design.v_ref)

    def through_the_ends(v):
        vov = (v[-1] - v[0]) / (root[-1] - root[0])
        return f"{v[0] - vov * root[0]:.6g}", f"{vov:.6g}"

    (vth_n, vov_n), (vth_p, vov_p) = through_the_ends(real[:, 0]), through_the_ends(design.supply - real[:, 1])
    model = (
        f".model twin kc_cell_bias r_ref={design.v_ref / (2 * design.i_unit)} i_unit={design.i_unit} "
        f"vth_n={vth_n} vov_n={vov_n} vth_p={vth_p} vov_p={vov_p} vclamp={design.supply - real[4, 2]:.6g}"
    )
    circuit = [model, "n1 vref vdd 0 twin_n twin_p twin_c twin"]
    _, twin = sweep(generic_rig, tmp_path, circuit, "vref", span, ["twin_n", "twin_p", "twin_c"], ("kc_cell_bias",))
    # What a mirror's output conductance adds (λ = 0.05 /V at most, 1 V) is 5 % of a current, 2.5 % of an overdrive of
    # less than 0.6 V
    np.testing.assert_allclose(twin[:, :2], real[:, :2], atol=15e-3)
    assert twin[4, 2] == pytest.approx(real[4, 2], abs=1e-4)
    thresholds = float(vth_n), float(vth_p)
    assert thresholds == pytest.approx((0.684, 0.812), abs=0.1)  # of `kcnet pdk check`: docs/pdk.md


def test_the_peripherys_counterparts_have_their_closed_forms(generic_rig, tmp_path):
    modules = ("kc_cell_write", "kc_cell_read", "kc_cell_node")
    circuit = [
        "vin in 0 1.8\nrl node 0 1meg\nn1 in node vdd 0 vdd 0 kc_cell_write\nn2 in held 0 vdd vdd 0 kc_cell_write",
        "vh held 0 1.8\nn3 in out vdd 0 vbn kc_cell_read",
    ]
    x, y = sweep(generic_rig, tmp_path, circuit, "vin", "1.4 2.2 0.1", ["node", "i(vh)", "out"], modules[:2])
    np.testing.assert_allclose(y[:, 0], x * 1e6 / (1e6 + 5e3), rtol=1e-6)
    np.testing.assert_allclose(y[:, 1], (x - 1.8) / 1e12, atol=1e-13)
    # out follows by A/(1 + A) about the middle; tanh bends by a third of (1/A of 4 mV·gm/i_tail) squared: nothing
    np.testing.assert_allclose(y[:, 2], 1.8 + (x - 1.8) * 100 / 101, atol=1e-5)
    raw = simulate(
        generic_rig,
        tmp_path,
        ["ic 0 cap 1u\nn4 cap 0 kc_cell_node c=3p c_pins=1p\n.ic v(cap)=0"],
        "tran 1n 100n uic",
        modules,
    )
    found = read_transient(raw, ["cap"], 100e-9)
    np.testing.assert_allclose(found.values[:, 0], 1e-6 * found.time / 2e-12, atol=1e-4)
