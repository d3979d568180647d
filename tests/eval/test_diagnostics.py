"""`gtool eval` of tokenizers and priors: reconstructions, agreement with maps, and the usual metrics."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gtool.cli import run
from gtool.data.synthetic.scenes import CLASSES, draw_scenes
from tests.helpers.tiny import save_prior, save_tokenizer


@pytest.fixture
def tokenizer(tmp_path):
    """A run of an untrained tokenizer of 160 scenes, of which eight are kept aside."""
    return save_tokenizer(
        tmp_path / "runs/vqgan-scenes-000/weights-000001.safetensors", "data.num_images=160"
    )


@pytest.fixture
def prior(tmp_path):
    """A run of an untrained prior over label maps of 160 scenes."""
    return save_prior(
        tmp_path / "runs/prior-scenes-000/weights-000002.safetensors",
        "data.num_images=160",
        condition="segmentation",
        condition_size=9,
    )


def answer(capsys, *arguments):
    """Run `gtool eval ... --json` and return the record."""
    flags = ["--json", "--device", "cpu", "--precision", "fp32"]
    assert run(["eval", *map(str, arguments), *flags]) == 0
    return json.loads(capsys.readouterr().out)


# Reconstructions.


def test_reconstructions_of_held_out_images_are_scored_and_shown(tokenizer, capsys):
    record = answer(capsys, tokenizer, "--reconstruction")
    found = record["reconstruction"]
    assert found["protocol"] == "reconstruction-v1/scenes-held-out-n8"
    assert 0 < found["psnr"] < 30
    assert -1 < found["ssim"] < 1
    assert 0 < found["l1"] < 255
    assert 0 < found["codes_used"] <= 1
    assert 1 <= found["perplexity"] <= 32
    assert found["rfd"] > found["rfd_floor"] > 0
    assert found["rfd_ratio"] == pytest.approx(found["rfd"] / found["rfd_floor"])
    with Image.open(found["picture"]) as opened:
        assert opened.width > 800
    kept = [json.loads(line) for line in (tokenizer.parent / "eval.jsonl").read_text().splitlines()]
    assert kept == [record]


def test_a_prior_is_scored_by_the_tokenizer_that_it_holds(tokenizer, prior, capsys):
    first = answer(capsys, tokenizer, "--reconstruction", "--split", "test", "--num", 12)["reconstruction"]
    second = answer(capsys, prior, "--reconstruction", "--split", "test", "--num", 12)["reconstruction"]
    assert first["protocol"] == second["protocol"] == "reconstruction-v1/scenes-test-n12"
    assert first["codebook_size"] == second["codebook_size"] == 32


def test_a_named_set_is_reconstructed_in_the_place_of_held_out_images(tokenizer, capsys):
    Path("real").mkdir()
    for number, image in enumerate(draw_scenes(np.arange(6), 16, 9).images):
        Image.fromarray(image.transpose(1, 2, 0)).save(f"real/{number}.png")
    found = answer(capsys, tokenizer, "--reconstruction", "--reference", "./real")["reconstruction"]
    assert found["protocol"] == "reconstruction-v1/real-n6"


def test_reconstructions_are_a_table_for_people(tokenizer, capsys):
    assert run(["eval", str(tokenizer), "--reconstruction", "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    assert "psnr" in shown
    assert "of 32 codes" in shown
    assert shown.rstrip().endswith("samples/reconstruction-000001.png")


# Agreement with maps.


def test_pictures_are_compared_with_their_maps_beside_ceilings_and_a_baseline(prior, capsys):
    record = answer(capsys, prior, "--map-agreement", "--num", 6)
    found = record["map_agreement"]
    assert found["protocol"] == "scene-classes-v1/scenes-held-out-n6/top-k 100"
    assert found["real"]["pixels"] > 0.7
    assert found["real"]["pixels"] > found["samples"]["pixels"]
    assert 0 <= found["shuffled"]["pixels"] <= 1
    assert len(found["samples"]["classes"]) == len(CLASSES) == len(found["reconstructions"]["ious"])
    assert Path(found["picture"]).is_file()
    assert run(["eval", str(prior), "--map-agreement", "--num", "4", "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    assert "ceiling: the originals" in shown
    assert "cylinder" in shown


# Metrics.


def test_a_prior_is_scored_by_pictures_of_its_own_conditions(prior, capsys):
    record = answer(capsys, prior, "--num", 6)
    assert list(record["metrics"]) == ["rfd", "swd_16"]
    assert record["metrics"]["rfd"]["protocol"] == "rfd-v1/n6/ref-scenes-train-n6"
    assert record["sampling"] == {"top_k": 32, "conditions": "segmentation of scenes, held-out"}
    again = answer(capsys, prior, "--num", 6, "--batch-size", 2)
    assert again["metrics"] == record["metrics"]
    many = answer(capsys, prior, "--num", 20, "--rfd")
    assert many["sampling"]["conditions"] == "segmentation of scenes, all"


def test_a_prior_without_condition_is_scored_too(tmp_path, capsys):
    path = save_prior(tmp_path / "weights.safetensors")
    record = answer(capsys, path, "--num", 5, "--rfd")
    assert record["sampling"]["conditions"] == "nothing"
    assert record["metrics"]["rfd"]["num_fake"] == 5


# What is refused.


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["{tokenizer}", "--map-agreement"], 1, "makes no images by itself; use `gtool train prior"),
        (["{tokenizer}", "--rfd"], 2, "makes no images by itself; score it by --reconstruction"),
        (["{plain}", "--map-agreement"], 2, "conditioned on none, not on label maps"),
        (["./pictures", "--reconstruction"], 2, "--reconstruction needs a model"),
        (
            ["{tokenizer}", "--reconstruction", "--weights", "{tokenizer}"],
            2,
            "no score that is asked for takes Inception",
        ),
        (["{tokenizer}", "--reconstruction", "--reference", "./nothing"], 1, "nothing"),
        (["{tokenizer}", "--reconstruction", "--resolution", "64"], 2, "--resolution 64"),
    ],
)
def test_what_cannot_be_scored_is_one_line(tokenizer, tmp_path, capsys, arguments, status, message):
    plain = save_prior(tmp_path / "plain" / "weights.safetensors")
    Path("pictures").mkdir()
    for number in range(4):
        Image.new("RGB", (16, 16)).save(f"pictures/{number}.png")
    filled = [argument.format(tokenizer=tokenizer, plain=plain) for argument in arguments]
    assert run(["eval", *filled, "--device", "cpu"]) == status
    shown = capsys.readouterr()
    assert message in shown.err
    assert len(shown.err.splitlines()) == 1


def test_generators_have_no_reconstructions(tiny_run, capsys):
    assert run(["eval", str(tiny_run), "--reconstruction", "--device", "cpu"]) == 2
    assert "weights of transgan, which has no tokenizer" in capsys.readouterr().err


def test_map_agreement_knows_scenes_alone(tmp_path, capsys):
    path = save_prior(
        tmp_path / "w.safetensors", "data.dataset=./mine", condition="segmentation", condition_size=9
    )
    assert run(["eval", str(path), "--map-agreement", "--device", "cpu"]) == 2
    assert "trained on ./mine" in capsys.readouterr().err
