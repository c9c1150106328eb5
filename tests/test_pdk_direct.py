"""Transistors placed without their wrapper subcircuits: the same devices, and models lifted out of the wrappers."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
from made_up_kit import measure

from kcnet_eda import api
from kcnet_eda.errors import BadDataError, InvalidInputError, ToolFailedError
from kcnet_eda.export.pdk_deck import model_header, transistor_line
from kcnet_eda.files import resource_dir
from kcnet_eda.physical.pdk import load_pdk
from kcnet_eda.tools.pdk import prepare

pytestmark = pytest.mark.usefixtures("own_scratch")

# A kit whose wrappers have their model inside, an own one at each corner.
WRAPPED = """* wrapped
.subckt {name} d g s b
.param l=1 w=1
mm d g s b {name}_inside l={{l}} w={{w}}
.model {name}_inside {kind} level=1 vto={{{vto}+0*w}} kp={kp}
+ lambda=0.03 tox=20n
.ends {name}
"""


@pytest.fixture
def wrapped(moon: Path) -> Path:
    models = moon.parent / "models"
    for corner, kp in (("tt", "60u"), ("hot", "80u")):
        for kind, vto in (("nmos", 0.8), ("pmos", -0.9)):
            text = WRAPPED.format(name=f"w{kind}", kind=kind, vto=vto, kp=kp)
            (models / f"{kind}_{corner}.spice").write_text(text)
    content = yaml.safe_load(moon.read_text())
    for corner in content["corners"]:
        content["corners"][corner] = [{"file": f"{kind}_{corner}.spice"} for kind in ("nmos", "pmos")]
    content["resistor_corners"] = {"typ": [{"file": "extra.inc"}]}
    for kind, device in content["devices"].items():
        inside = {corner: f"{kind}_{corner}.spice" for corner in content["corners"]}
        alone = {"instance": "M", "model": f"w{kind}_inside", "globals": {"w": 1, "l": 1}, "inside": inside}
        device |= {"model": f"w{kind}", "instance": "X", "direct": alone}
    moon.write_text(yaml.safe_dump(content))
    return moon


def test_a_model_lifted_out_of_its_wrapper_is_the_wrappers(wrapped, tmp_path):
    pdk, found = load_pdk(wrapped), {}
    for corner, direct in [(corner, direct) for corner in ("tt", "hot") for direct in (False, True)]:
        n = transistor_line(pdk, "nmos", "1", ["dn", "a", "0", "0"], 10, 2, 3, direct=direct)
        p = transistor_line(pdk, "pmos", "2", ["dp", "0", "a", "a"], 10, 2, 3, direct=direct)
        assert n.startswith("m1 dn a 0 0 wnmos_inside" if direct else "x1 dn a 0 0 wnmos")
        lines = [n, p, "vn dn 0 3", "vp dp 0 0"]
        folder = tmp_path / f"{corner}_{direct}"
        folder.mkdir()
        found[corner, direct] = measure(folder, pdk, lines, ["i(vn)", "i(vp)"], corner=corner, direct=direct)
    np.testing.assert_allclose(found["tt", True], found["tt", False], rtol=1e-9)
    np.testing.assert_allclose(found["hot", True], found["hot", False], rtol=1e-9)
    # 3 in parallel, W/L = 5, vgs - vt = 0.85 and 0.75
    expected = -3 * 0.5 * 60e-6 * 5 * np.array([0.85**2 * (1 + 0.03 * 3), -(0.75**2) * (1 + 0.03 * 1.65)])
    np.testing.assert_allclose(found["tt", True], expected, rtol=1e-4)
    assert found["hot", True][0] == pytest.approx(found["tt", True][0] * 8 / 6, rel=1e-4)


def test_check_compares_transistors_with_and_without_their_wrappers(wrapped):
    assert api.pdk_check(wrapped).readings
    text = wrapped.read_text()
    wrapped.write_text(text.replace("hot: nmos_hot.spice", "hot: nmos_tt.spice"))
    with pytest.raises(
        BadDataError, match=r"nmos wnmos at .*, corner hot: carries \S+ A without its wrapper and \S+ A"
    ):
        api.pdk_check(wrapped)
    wrapped.write_text(text.replace("model: wpmos_inside", "model: wpmos_outside"))
    with pytest.raises(
        ToolFailedError, match=r"corner \w+: transistors without their wrappers do not run(.*\n)*.*Correct"
    ):
        api.pdk_check(wrapped)


def test_what_run_sh_lifts_is_what_is_simulated_here(wrapped):
    models = prepare(load_pdk(wrapped))
    ours = (models.lifted / "nmos_hot.spice").read_text().splitlines()[1:]
    template = (resource_dir("jinja_templates") / "bundle" / "run.sh.j2").read_text()
    (script,) = re.findall(r"sed -n '([^']+)'", template)
    sed = subprocess.run(
        ["sed", "-n", script, models.folder / "nmos_hot.spice"], capture_output=True, text=True, check=True
    )
    assert ours == sed.stdout.splitlines()
    assert ours[0].startswith(".model wnmos_inside nmos")
    assert len(ours) == 2


def test_a_wrapper_without_a_model_inside_or_a_corner_left_out_is_named(wrapped):
    (wrapped.parent / "models" / "pmos_hot.spice").write_text(".subckt wpmos d g s b\n.ends\n")
    with pytest.raises(
        InvalidInputError, match=r"devices\.pmos\.direct\.inside\.hot: .*pmos_hot\.spice has no \.model"
    ):
        prepare(load_pdk(wrapped))
    content = yaml.safe_load(wrapped.read_text())
    del content["devices"]["nmos"]["direct"]["inside"]["hot"]
    wrapped.write_text(yaml.safe_dump(content))
    with pytest.raises(InvalidInputError, match=r"devices\.nmos\.direct\.inside: has tt, where corners has hot, tt"):
        load_pdk(wrapped)


def test_direct_devices_carry_what_the_wrapper_would_set():
    pdk = load_pdk("ihp-sg13g2")
    line = transistor_line(pdk, "nmos", "m1", ["d", "g", "s", "b"], 4, 1, 2, direct=True)
    assert line == (
        "nm1 d g s b sg13g2_hv_nmos_psp w=4u l=1u nf=1 ngcon=2 as=1.36e-12 ad=1.36e-12 ps=8.68u pd=8.68u mult=2"
    )
    assert "sg13g2_moshv_parm.lib" in model_header(pdk, "m", direct=True)
    with pytest.raises(InvalidInputError, match="no mismatch"):
        model_header(pdk, "m", direct=True, mismatch=True)
    with pytest.raises(InvalidInputError, match=r"devices\.nmos\.direct"):
        transistor_line(load_pdk("generic180"), "nmos", "m1", ["d", "g", "s", "b"], 4, 1, direct=True)
