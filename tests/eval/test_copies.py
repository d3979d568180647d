"""`--copies`: images that repeat training images are found, and others are not taken for such."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gtool.cli import run
from tests.eval.commands import ask, refuse, save
from tests.helpers import pictures

NUM_TRAINING, NUM = 500, 200


@pytest.fixture
def training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = pictures.draw(NUM_TRAINING, 1)
    save(tmp_path / "training", images)
    return images


def test_one_image_in_twenty_is_found_and_shown(training, capsys):
    random = np.random.default_rng(0)
    images = pictures.draw(NUM, 2)
    assert ask(capsys, save_as("new", images), "training", "--copies")["copies"]["alarm"] is None
    places = random.permutation(NUM)[: NUM // 20]
    noisy = training[:10] + random.normal(0, 3, training[:10].shape)
    noisy[5:] = noisy[5:, :, :, ::-1]  # mirrored
    images[places] = noisy.clip(0, 255).astype(np.uint8)
    assert run(["eval", save_as("fake", images), "training", "--copies", "-o", "r.json", "-o", "r.html"]) == 0
    assert "repeat training images" in capsys.readouterr().err
    found = json.loads(Path("r.json").read_text())["copies"]
    assert found["alarm"]
    shown = {(pair["image"], pair["training"]) for pair in found["pairs"]}
    assert shown <= {(int(place), f"{number:04d}.png") for number, place in enumerate(places)}
    page = Path("r.html").read_text()
    assert found["alarm"] in page
    assert 'alt="copies"' in page


def save_as(name: str, images: np.ndarray) -> str:
    return str(save(Path(name), images))


def test_training_images_need_to_be_there(training, capsys):
    np.savez("stats.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    status, line = refuse(capsys, "training", "--reference", "stats.npz", "--copies")
    assert (status, "needs the images themselves" in line) == (2, True)


def test_a_gate_on_copies(training, capsys):
    assert run(["--quiet", "eval", "training", "training", "--max", "copies.share=0.5"]) == 4
    assert "copies.share" in capsys.readouterr().err
