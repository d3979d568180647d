"""`--per-class`: each class of a conditional model against the real images of that class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gtool.cli import run
from gtool.config.recipe import to_toml
from gtool.io.weights import save_weights
from gtool.models import registry
from gtool.models.generate import weights_meta
from tests.eval.commands import ask, refuse
from tests.helpers.pictures import class_folders
from tests.helpers.tiny import save_prior, tiny_recipe


@pytest.fixture
def pets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return class_folders(tmp_path / "pets", 24)


def save_generator(pets: Path, classes: tuple[str, ...]) -> Path:
    """Write an untrained generator of these classes whose images are all dark; returns the weights."""
    recipe = tiny_recipe("data.condition=class", f"data.dataset={pets}")
    config = registry.config_class("transgan").model_validate({**recipe.model, "classes": classes})
    generator = registry.network_module("transgan").build(config)[0]
    with torch.no_grad():
        for parameter in generator.to_rgb.parameters():
            parameter.mul_(0.1).sub_(0.03)
    path = Path("run/weights-000001.safetensors")
    path.parent.mkdir()
    (path.parent / "recipe.toml").write_text(to_toml(recipe), encoding="utf-8")
    save_weights(path, generator.state_dict(), weights_meta(recipe, config, 1000))
    return path


def test_the_class_that_images_are_nothing_like_is_the_worst(pets, capsys):
    weights = save_generator(pets, ("dogs", "cats"))  # numbers of the model, not those of the folders
    found = ask(capsys, weights, "--per-class", "--num", 8)["per_class"]
    cats, dogs = sorted(found["classes"], key=lambda one: one["class"])
    assert [one["class"] for one in found["classes"]] == ["dogs", "cats"]
    assert found["worst_ratio"] == dogs["ratio"] > cats["ratio"] > 0
    assert found["mean_ratio"] == pytest.approx(np.mean([cats["ratio"], dogs["ratio"]]))
    assert cats["num_fake"] == found["num_images"] == 8
    with Image.open(found["picture"]) as opened:
        assert opened.width > 800
    assert (
        run(["eval", str(weights), "--per-class", "--device", "cpu", "--max", "per_class.worst_ratio=0.1"])
        == 4
    )
    assert "times its floor" in capsys.readouterr().out


def test_a_prior_of_classes(pets, capsys):
    settings = (f"data.dataset={pets}", "data.resolution=16")
    weights = save_prior(
        Path("prior/weights-000002.safetensors"), *settings, condition="class", condition_size=2
    )
    found = ask(capsys, weights, "--per-class", "--num", 4)["per_class"]
    assert [one["class"] for one in found["classes"]] == ["cats", "dogs"]


def test_what_has_no_classes_is_refused_in_one_line(pets, capsys):
    weights = save_generator(pets, ("cats", "birds"))
    status, line = refuse(capsys, weights, "--per-class")
    assert (status, "its classes are not those" in line) == (1, True)
    status, line = refuse(capsys, weights, "--per-class", "--reference", str(pets / "cats"))
    assert (status, "needs the class of each image" in line) == (1, True)
    status, line = refuse(capsys, str(pets), "--reference", str(pets), "--per-class")
    assert (status, "needs a model" in line) == (2, True)
    status, line = refuse(capsys, save_prior(Path("p/weights-000002.safetensors")), "--per-class")
    assert (status, "trained without classes" in line) == (2, True)
