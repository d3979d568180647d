"""`--tracker`: a run logs to a service as to its own log, and keeps stdout to itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gtool.cli import run

STANDIN = """
import json

class Run:
    def log(self, values, step=None, **_):
        print("a service that talks")
        with open("logged.jsonl", "a") as stream:
            stream.write(json.dumps({"step": step, **values}) + "\\n")
    def finish(self):
        print("uploading, please wait")

class config(dict):
    @staticmethod
    def update(values, **_):
        with open("config.json", "w") as stream:
            json.dump(values, stream)

config = config()

def init(project, name):
    if name == "refused":
        raise RuntimeError("no account\\nmore lines")
    return Run()
"""


@pytest.fixture
def trackio(tmp_path, monkeypatch):
    """A stand-in for Trackio that writes to files here."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "trackio.py").write_text(STANDIN)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    monkeypatch.chdir(tmp_path)


def train(out: str) -> int:
    small = [
        "data.num_images=16",
        "train.metrics=[]",
        "model.preset=cpu32",
        "train.tick_kimg=0.016",
        "sample.num=1",
    ]
    sets = [word for setting in small for word in ("--set", setting)]
    return run(
        ["train", "transgan", "--kimg", "0.032", "--out", out, "--tracker", "trackio", "--json", *sets]
    )


def test_a_service_gets_the_recipe_and_what_the_log_gets(trackio, capsys):
    assert train("out") == 0
    assert json.loads(capsys.readouterr().out)["kimg"] == 0.032  # and nothing that the service says
    logged = [json.loads(line) for line in Path("logged.jsonl").read_text().splitlines()]
    own = [json.loads(line) for line in Path("out/log.jsonl").read_text().splitlines()][1:]
    assert [line["step"] for line in logged] == [record["nimg"] for record in own] == [16, 32]
    assert json.loads(Path("config.json").read_text())["model_name"] == "transgan"


def test_a_service_that_cannot_start_is_one_line(trackio, capsys):
    assert train("refused") == 1
    assert "error: --tracker trackio: no account\n" in capsys.readouterr().err
