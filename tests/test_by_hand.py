"""What a bundle gives a designer to check by hand: the README's commands typed, pictures and symbol read back."""

from __future__ import annotations

import contextlib
import csv
import os
import pty
import re
import select
import signal
import subprocess
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from conftest import installed_kit
from test_mos import RING

from kcnet_eda import api
from kcnet_eda.export.mos_cells import EDGE_PINS
from kcnet_eda.network.store import save_network
from kcnet_eda.tools.locate import find_ngspice
from kcnet_eda.tools.pdk import prepare


@pytest.fixture(scope="module", params=["generic180", "gf180mcu"])
def bundle(request, tmp_path_factory):
    """A bundle of a ring of six edges, run once by its run.sh."""
    models = prepare(installed_kit(request.param))
    folder = tmp_path_factory.mktemp(request.param)
    save_network(RING, folder / "ring.kcnet")
    found = api.export(folder / "ring.kcnet", folder / "bundle", level="mos", pdk=request.param)
    env = {**os.environ, "MODELS": str(models.folder), "NGSPICE": str(find_ngspice())}
    done = subprocess.run(["./run.sh"], cwd=found.path, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return found


def blocks(bundle, language):
    """The README's code of a language, in its section on checks by hand."""
    text = (bundle.path / "README.md").read_text()
    section = text.split("## Check by hand in ngspice")[1].split("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


def number(output, name):
    """The last value that ngspice printed under a name."""
    return float(re.findall(rf"^{re.escape(name)} = (\S+)", output, re.MULTILINE)[-1])


def at_a_terminal(program, typed, folder):
    """What a shell ``program`` says when text is typed to it: ngspice has its prompt only at a terminal."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execvpe("sh", ["sh", "-e", "-c", program], {**os.environ, "TERM": "dumb", "HOME": str(folder.parent)})
    os.write(terminal, typed.encode())
    said = b""
    with contextlib.suppress(OSError):  # the terminal closes when the program ends
        while select.select([terminal], [], [], 60)[0] and (more := os.read(terminal, 4096)):
            said += more
    with contextlib.suppress(ProcessLookupError):  # if it hangs
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(terminal)
    return said.decode().replace("\r", "")


def test_the_commands_work_as_typed(bundle):
    (shell,) = blocks(bundle, "sh")
    typed = "".join(blocks(bundle, "spice"))
    assert "ngspice -n ../testbench/cell.sp" in shell
    said = at_a_terminal(shell.replace("&& ngspice", f"&& '{find_ngspice()}'"), typed, bundle.path)
    # without a display ngspice says that it has none
    assert not re.search(r"error(?!: \(external\)  no graphics)|no such|can't|unknown|failed", said, re.I), said
    rows = list(csv.DictReader((bundle.path / "netlist" / "edge_map.csv").open()))
    kind = re.search(r"\^\\\.subckt (\S+) /", shell)[1]
    row = next(r for r in rows if r["cell"] == kind)
    # Two points of a curve against a fit to all of it: the cell's error is some per cent of full scale.
    assert number(said, "theta1") == pytest.approx(abs(float(row["fitted_theta1"])), rel=0.04)
    assert number(said, "theta2") == pytest.approx(float(row["fitted_theta2"]), abs=0.1)
    # The trickle's two ends differ by λ·ΔV of 180 nA (generic180: 0.05/V, at most 1 V apart); the rest is the clamp's
    assert abs(number(said, "i_off")) < 10e-9
    assert 0 < number(said, "unequal") < 0.05
    assert 0.5e-15 < number(said, "c_pin") < 100e-15
    assert 0.3 < number(said, "v(vbn)") < 1.5
    # Two diodes of PMOS below the supply, at nA: each a little less than its threshold of 0.8 V, with or without body
    assert 3.3 - 2 * 1.0 < number(said, "v(vclp)") < 3.3 - 2 * 0.6
    # Each pedestal is I_u on either side, and the bias generator takes some 16 I_u: tens of 2 µA
    assert 20e-6 < -number(said, "i(vvdd)") < 200e-6
    ends = {r["net"]: float(r["volts"]) for r in csv.DictReader((bundle.path / "expected" / "final.csv").open())}
    for net in (bundle.circuit.nets[n] for n in bundle.network.readout[:3]):
        assert number(said, f"v({net})[ends]") == pytest.approx(ends[net], abs=0.03)


def test_pictures_are_svg_and_name_every_device(bundle):
    netlist = (bundle.path / "netlist" / "ring.sp").read_text() + (bundle.path / "netlist" / "periphery.sp").read_text()
    readme = (bundle.path / "README.md").read_text()
    assert "schematic/kc_edge.svg" in readme
    for picture, cell in (("kc_edge", "kc_edge_0"), ("kc_bias",) * 2, ("kc_write",) * 2, ("kc_read",) * 2):
        tree = ElementTree.parse(bundle.path / "schematic" / f"{picture}.svg")
        words = set("\n".join(tree.getroot().itertext()).split())
        body = re.search(rf"\.subckt {cell} .*?\.ends", netlist, re.DOTALL)[0]
        devices = {re.sub(r"^(src|deg|amp|ref)\d+$", r"\1", name) for name in re.findall(r"^[xmnr](\S+)", body, re.M)}
        missing = {name for name in devices if name not in words and f"{name}:" not in words}
        assert devices and not missing, (picture, missing)


def test_the_clamp_is_as_the_readme_and_the_picture_say(bundle):
    """w·f²/mk wide; longer by the same share where the process draws nothing so narrow."""
    readme = (bundle.path / "README.md").read_text()
    w, l = (float(v) for v in re.search(r"\| clamp \| (\S+)·f²/mk / (\S+) µm \|", readme).groups())  # noqa: E741
    picture = "".join(ElementTree.parse(bundle.path / "schematic" / "kc_edge.svg").getroot().itertext())
    assert f"{w:g}·f²/mk wide" in picture and f"{l:g} long" in picture
    grid = 0.005  # of both kits' widths and lengths
    drawn = {
        r["cell"]: r for r in csv.DictReader((bundle.path / "netlist" / "devices.csv").open()) if r["device"] == "clamp"
    }
    rows = [r for r in csv.DictReader((bundle.path / "netlist" / "edge_map.csv").open()) if r["cell"]]
    assert rows
    for row in rows:
        clamp = drawn[row["cell"]]
        f = (4 * abs(float(row["theta1"])) + float(row["theta2"])) / 2
        wanted = w * f**2 / int(row["mk"])
        # A step of the grid is 2 % of the narrowest, and the length's the same: W/L within 4 %
        assert float(clamp["w_um"]) / float(clamp["l_um"]) == pytest.approx(wanted / l, rel=0.04)
        assert float(clamp["l_um"]) == pytest.approx(l, abs=grid) or wanted < float(clamp["w_um"]) + grid


#: xschem's file format: a letter, numbers, and a text in braces with attributes, those of which the symbol is made.
RECORD = re.compile(
    r"([vGKVSE]) \{([^{}]*)\}\n|(L) (\d+(?: -?\d+){4}) \{\}\n|(B) 5 ((?:-?[\d.]+ ){4})\{([^{}]*)\}\n"
    r"|(T) \{([^{}]+)\} (-?\d+ -?\d+ [0-3] [01] [\d.]+ [\d.]+) \{\}\n"
)


def attributes(text):
    """name=value or name="several words" of an xschem property string."""
    return {name: value.strip('"') for name, value in re.findall(r'(\w+)=("[^"]*"|\S+)', text)}


def test_the_symbol_is_xschems_and_has_the_netlists_pins_in_order(bundle):
    symbol = (bundle.path / "schematic" / "kc_edge.sym").read_text()
    assert RECORD.sub("", symbol) == ""
    records = list(RECORD.finditer(symbol))
    assert [r[1] for r in records[:6]] == list("vGKVSE")
    version = re.fullmatch(r"xschem version=(\d+)\.\d+\.\d+ file_version=1\.2", records[0][2])
    assert version and int(version[1]) == 3
    pins = [(attributes(r[7]), [float(v) for v in r[6].split()]) for r in records if r[5]]
    assert [(p["name"], p["dir"]) for p, _ in pins] == list(EDGE_PINS)
    middles = np.array([[x1 + x2, y1 + y2] for _, (x1, y1, x2, y2) in pins]) / 2
    assert (middles % 10 == 0).all()  # on xschem's grid
    assert len({tuple(m) for m in middles}) == len(pins)

    # What xschem writes of an instance: format with @pinlist the pins' nets in this order. "subcircuit" would have it
    # look for kc_edge.sch and write an empty subcircuit of that name, which ngspice cannot read.
    own = attributes(records[2][2])
    assert own["type"] == "primitive"
    defaults = attributes(own["template"])
    nets = [p["name"] for p, _ in pins]
    line = own["format"].replace("@pinlist", " ".join(nets))
    line = re.sub(r"@(\w+)", lambda found: defaults[found[1]], line)
    netlist = (bundle.path / "netlist" / "ring.sp").read_text()
    subcircuit = re.search(rf"^\.subckt {defaults['cell']} (.*)$", netlist, re.MULTILINE)
    assert line == f"x1 {subcircuit[1]} {defaults['cell']}"
    rows = list(csv.DictReader((bundle.path / "netlist" / "edge_map.csv").open()))
    row = next(r for r in rows if r["cell"] == defaults["cell"])
    assert abs(float(defaults["theta1"])) == abs(float(row["theta1"])) and defaults["theta2"] == row["theta2"]
    shown = {name for r in records if r[8] for name in re.findall(r"@(\w+)", r[9])}
    assert shown == set(defaults)
