"""GANsformer from the command line: trained, resumed, scored by its attention."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gtool.cli import run
from tests.helpers.runs import assert_same_state, train, write_recipe
from tests.helpers.tiny import tiny_gansformer


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of 20 steps, made once."""
    import os

    folder = tmp_path_factory.mktemp("gansformer")
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert train("gansformer", write_recipe(tiny_gansformer()), "run", "--json") == 0
    finally:
        os.chdir(before)
    return folder / "run"


def test_a_run_leaves_what_every_run_leaves(trained):
    names = {path.name.partition("-")[0] for path in trained.iterdir()}
    assert {"recipe.toml", "log.jsonl", "curves.png", "training.webp", "weights", "state"} <= names
    last = json.loads((trained / "log.jsonl").read_text().splitlines()[-1])
    assert last["kimg"] == 0.16
    assert np.isfinite(last["rfd"])


@pytest.mark.parametrize(
    "settings",
    [
        ("model.synthesis.dropout=0.3", "loss.style_mixing=0.5", "loss.path_length=2"),
        ("model.attention=none", "model.synthesis.architecture=skip"),
        ("model.attention=centroid", "model.synthesis.iterations=2"),
    ],
    ids=["duplex", "none", "centroid"],
)
def test_a_run_in_two_pieces_is_the_run_in_one(settings, capsys):
    recipe = write_recipe(tiny_gansformer(*settings, "train.kimg=0.096", "train.metrics=[]"))
    assert train("gansformer", recipe, "straight") == 0
    assert train("gansformer", recipe, "pieces", "--kimg", "0.048") == 0
    assert run(["train", "gansformer", "--resume", "pieces", "--kimg", "0.096", "--device", "cpu"]) == 0
    assert_same_state("straight", "pieces")


def test_attention_is_scored_beside_its_baselines(trained, capsys):
    found = ["eval", str(trained), "--attention", "--num", "12", "--json", "--device", "cpu"]
    assert run(found) == 0
    record = json.loads(capsys.readouterr().out)["attention"]
    assert [row["layer"] for row in record["layers"][::2]] == ["4a", "8a", "8b", "16a", "16b"]
    assert {row["head"] for row in record["layers"]} == {0, 1}
    assert set(record["picked"]["ari"]) == {"attention", "permuted", "untrained", "grid", "kmeans"}
    for row in record["layers"]:
        assert row["scores"]["sensitivity"]["value"] > 0
        assert row["untrained"]["ari"]["value"] != row["scores"]["ari"]["value"]
    sheet = Path(record["picture"])
    assert sheet.parent == trained / "samples"
    with Image.open(sheet) as opened:
        assert opened.width > 300
    kept = json.loads((trained / "eval.jsonl").read_text().splitlines()[-1])
    assert kept["attention"]["picked"] == record["picked"]


def test_attention_and_metrics_are_scored_by_one_command(trained, capsys):
    assert run(["eval", str(trained), "--attention", "--rfd", "--num", "12", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "permuted" in out
    assert "rfd-v1" in out


def test_scores_of_attention_are_those_of_the_seed(trained, capsys):
    def picked(*more):
        assert (
            run(["eval", str(trained), "--attention", "--num", "6", "--json", "--device", "cpu", *more]) == 0
        )
        return json.loads(capsys.readouterr().out)["attention"]["layers"]

    assert picked() == picked()
    assert picked() != picked("--seed", "1")


def test_what_has_no_attention_to_score_is_refused_in_one_line(tiny_run, tmp_path, capsys):
    assert run(["eval", str(tiny_run), "--attention", "--device", "cpu"]) == 2
    assert "transgan has no attention between pixels and components" in capsys.readouterr().err
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    assert run(["eval", str(folder), "--attention", "--device", "cpu"]) == 2
    assert "name a run or weights" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--resolution", "32"], "--resolution would have no effect"),
        (["--num", "10000000"], "are as many as are kept at once"),
    ],
)
def test_what_means_nothing_for_attention_is_refused(trained, more, said, capsys):
    assert run(["eval", str(trained), "--attention", *more, "--device", "cpu"]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("model.mapping.layers=3", "mapping.layers = 3 is odd"),
        ("model.discriminator.group_channels=3", "group_channels = 3 does not divide"),
        ("model.synthesis.heads=3", "heads = 3 does not divide"),
        ("model.synthesis.style=false", "nothing reads the latents"),
        ("model.resolution=48", "no power of two"),
    ],
)
def test_networks_that_cannot_be_are_refused_before_anything_is_written(setting, said, capsys):
    settings = [setting] if "style" not in setting else [setting, "model.attention=none"]
    more = [part for one in settings for part in ("--set", one)]
    assert train("gansformer", write_recipe(tiny_gansformer()), "never", *more) == 2
    err = capsys.readouterr().err
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert not Path("never").exists()


def test_pictures_that_no_mask_is_known_for_are_refused(trained, tmp_path, capsys):
    import shutil

    from gtool.io.weights import load_weights, save_weights

    path = sorted(trained.glob("weights-*"))[-1]
    weights = load_weights(path)
    other = weights.meta | {"recipe": weights.meta["recipe"] | {"data": {"dataset": "cifar10"}}}
    copy = Path(shutil.copy(path, tmp_path / "other.safetensors"))
    save_weights(copy, weights.tensors, {key: value for key, value in other.items() if key != "format"})
    assert run(["eval", str(copy), "--attention", "--device", "cpu"]) == 2
    assert "trained on cifar10" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("dataset", "recipe"),
    [((), "scenes"), (("--dataset", "ffhq"), "ffhq"), (("--dataset", "."), "folder-cpu")],
)
def test_each_data_set_has_its_recipe(dataset, recipe, capsys):
    for name in ("one.png", "two.png"):
        Image.new("RGB", (8, 8)).save(name)
    assert run(["train", "gansformer", *dataset, "--device", "cpu", "--dry-run"]) == 0
    assert f"{recipe}: generator" in capsys.readouterr().err
