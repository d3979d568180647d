"""`gtool doctor`: what it says about a healthy machine and about a broken one."""

from __future__ import annotations

import json
import time

import pytest

from gtool import __version__
from gtool.cli import doctor, run
from gtool.io import hub

NETWORKS = ("inception", "clip", "clip-l", "dinov2-s", "dinov2-b", "dinov2-l")


def answer(capsys) -> dict:
    assert run(["doctor", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_report_names_versions_machine_and_state(capsys):
    report = answer(capsys)
    assert report["gtool"] == __version__
    assert report["packages"]["torch"]
    assert report["machine"]["precision"] in ("bf16", "fp32")
    assert report["machine"]["cores"] >= 1
    assert report["hub"]["status"] == "switched off by the environment"
    assert report["problems"] == []


def test_the_page_has_a_line_for_every_question(capsys):
    assert run(["doctor"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    expected = [
        "gtool",
        "packages",
        "[onnx]",
        "[video]",
        "[features]",
        "[tensorboard]",
        "device",
        "processor",
    ]
    assert names == [*expected, "cache", "GTOOL_DATA", *NETWORKS, "statistics", "hub"]


def test_the_cache_is_measured(capsys, tmp_path):
    (tmp_path / "cache" / "pixels").mkdir(parents=True)
    (tmp_path / "cache" / "pixels" / "a.npy").write_bytes(bytes(1000))
    cache = answer(capsys)["cache"]
    assert cache == {"path": str(tmp_path / "cache"), "files": 1, "bytes": 1000, "writable": True}


def test_the_data_folders_are_looked_into(capsys, tmp_path, monkeypatch):
    (tmp_path / "data" / "cifar10").mkdir(parents=True)
    monkeypatch.setenv("GTOOL_DATA", f"{tmp_path / 'data'}:{tmp_path / 'none'}")
    found, missing = answer(capsys)["data"]
    assert (found["exists"], found["names"]) == (True, ["cifar10"])
    assert (missing["exists"], missing["names"]) == (False, [])


def test_an_unreachable_hub_costs_less_than_three_seconds(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    start = time.monotonic()
    assert not hub.is_reachable()
    assert time.monotonic() - start < hub.PROBE_SECONDS + 0.5


def test_a_missing_extra_is_answered_with_its_command(capsys, monkeypatch):
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "av" else real(name))
    assert run(["doctor"]) == 0
    assert '[video]      not installed: pip install "gtool[video]"' in capsys.readouterr().out


@pytest.mark.parametrize("package", ["torch", "safetensors"])
def test_a_missing_library_is_an_error_after_the_report(capsys, monkeypatch, package):
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == package else real(name))
    assert run(["doctor"]) == 1
    shown = capsys.readouterr()
    assert f"{package} MISSING" in shown.out
    assert shown.err == f"error: {package} is not installed\n"


def test_a_library_that_does_not_start_is_an_error_after_the_report(capsys, monkeypatch):
    def broken():
        raise OSError("libtorch.so: cannot open shared object file")

    monkeypatch.setattr("gtool.runtime.device.make_compute", broken)
    assert run(["doctor", "--json"]) == 1
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert problems == ["torch does not start: libtorch.so: cannot open shared object file"]


def test_inception_weights_are_found_judged_and_their_damage_named(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("GTOOL_INCEPTION_WEIGHTS", raising=False)
    planted = tmp_path / "cache" / "weights" / "inception-2015-12-05.pt"
    planted.parent.mkdir(parents=True)
    planted.write_bytes(b"cut short")
    found = answer(capsys)["inception"]
    assert (found["path"], found["damaged"]) == (None, [str(planted)])
    mine = tmp_path / "mine.pth"
    mine.write_bytes(b"weights")
    monkeypatch.setenv("GTOOL_INCEPTION_WEIGHTS", str(mine))
    found = answer(capsys)["inception"]
    assert (found["path"], found["is_published"], len(found["sha256"])) == (str(mine), False, 64)
    assert run(["doctor"]) == 0
    assert "not the published weights" in capsys.readouterr().out


def test_kept_statistics_are_counted(capsys, tmp_path):
    for folder, name in (("stats", "a.safetensors"), ("stats", "a.lock"), ("published", "b.npz")):
        (tmp_path / "cache" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "cache" / folder / name).write_bytes(bytes(10))
    assert answer(capsys)["statistics"] == {"references": 1, "published": 1, "bytes": 20}
