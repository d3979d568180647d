"""A pipeline in small: train, gate, refuse a worse model, compare with a stored baseline, read the JUnit file back.

`tests/pipeline.sh` is the same as a pipeline runs it, with a minute of training.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gtool.cli import run
from gtool.config.recipe import to_toml
from tests.helpers.junit_files import read_junit
from tests.helpers.tiny import tiny_recipe

# rfd of 32 images on one thread: 421 after training, 837 of the same network before any.
LIMIT = 600
SETTINGS = ("kimg=0.4", "tick_kimg=0.4", "snapshot_kimg=0.4", "ema_kimg=0.05", "n_critic=1")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of 50 steps, its result as main.json, and an untrained network of the same shape beside it."""
    import torch

    from gtool.io.weights import save_weights
    from gtool.models import registry
    from gtool.models.generate import weights_meta

    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("pipeline")
        patch.chdir(folder)
        patch.setenv("GTOOL_CACHE", str(folder / "cache"))
        recipe = tiny_recipe(*(f"train.{setting}" for setting in SETTINGS))
        Path("tiny.toml").write_text(to_toml(recipe), encoding="utf-8")
        assert run(["train", "transgan", "--recipe", "tiny.toml", "--out", "trained", "--device", "cpu"]) == 0
        config = registry.config_class("transgan").model_validate(recipe.model)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            generator = registry.network_module("transgan").Generator(config)
        save_weights(Path("untrained.safetensors"), generator.state_dict(), weights_meta(recipe, config, 0))
        assert score("trained", "--max", f"rfd={LIMIT}", "-o", "main.json", "-o", "main.xml") == 0
    return folder


@pytest.fixture
def pipeline(trained, monkeypatch):
    """The folder of the trained run, as the working folder."""
    monkeypatch.chdir(trained)
    monkeypatch.setenv("GTOOL_CACHE", str(trained / "cache"))
    return trained


def score(*arguments):
    return run(["eval", *map(str, arguments), "--num", "32", "--device", "cpu"])


def test_a_trained_model_passes_its_gate(pipeline):
    record = json.loads(Path("main.json").read_text())
    assert record["metrics"].keys() == {"rfd"}  # a gate asks for its metric, and for no other
    (gate,) = record["gates"]
    assert (gate["metric"], gate["kind"], gate["limit"], gate["passed"]) == ("rfd", "max", LIMIT, True)
    assert len(record["weights_sha256"]) == 64
    (case,) = read_junit(Path("main.xml")).values()
    assert case["failure"] is None


def test_a_worse_model_is_refused_with_status_4(pipeline, capsys):
    assert score("untrained.safetensors", "--max", f"rfd={LIMIT}", "-o", "worse.xml", "-o", "worse.json") == 4
    assert "gates not met" in capsys.readouterr().err.splitlines()[-1]
    assert json.loads(Path("worse.json").read_text())["gates"][0]["passed"] is False
    (case,) = read_junit(Path("worse.xml")).values()
    assert f"> {LIMIT}.000" in case["message"]


def test_a_regression_against_the_stored_baseline_is_refused(pipeline, capsys):
    compare = ["--baseline", "main.json", "--max-regress", "rfd=20%"]
    assert score("trained", *compare) == 0
    assert "baseline" in capsys.readouterr().out
    assert score("untrained.safetensors", *compare, "-o", "worse.xml") == 4
    shown = capsys.readouterr()
    assert "rfd at most 20% worse than the baseline" in shown.out
    (case,) = read_junit(Path("worse.xml")).values()
    assert float(case["said"]["delta"]) > 200


def test_a_baseline_of_another_protocol_is_refused_before_anything_is_scored(pipeline, capsys, monkeypatch):
    monkeypatch.setattr("gtool.eval.run.score", None)
    compare = ["--baseline", "main.json", "--max-regress", "rfd=20%", "--device", "cpu", "-o", "other.json"]
    assert run(["eval", "trained", "--num", "24", *compare]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert "rfd-v1/n24/ref-scenes-train-n24" in last
    assert "rfd-v1/n32/ref-scenes-train-n32" in last
    assert not Path("other.json").exists()


def test_a_page_shows_the_earlier_results_of_the_run(pipeline):
    assert score("trained", "--rfd", "-o", "report.html") == 0
    page = Path("report.html").read_text()
    assert "<h2>History</h2>" in page
    history = page[page.index("<h2>History</h2>") :].partition("</section>")[0]
    assert history.count("<tr>") >= 3  # the heads, an earlier result and this one
