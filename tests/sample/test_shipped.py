"""Weights that come with the package: pictures in the first second, without a run and without a network."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from gtool.cli import run


@pytest.mark.parametrize("model", ["transgan", "prior"])
def test_a_model_is_named_for_its_weights_in_the_package(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["sample", model, "--num", "4", "-o", "grid.png"]) == 0
    assert f"weights/{model}.safetensors: {model} at 32 px" in capsys.readouterr().err
    pixels = np.asarray(Image.open("grid.png").convert("RGB"), np.float32)
    assert pixels.std() > 20  # neither grey nor one colour


def test_a_run_or_folder_of_that_name_comes_first(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "transgan").mkdir()
    assert run(["sample", "transgan"]) == 1
    assert "transgan: holds no weights-*.safetensors" in capsys.readouterr().err


def test_without_a_run_the_weights_of_the_package_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["sample"]) == 1
    assert "use those that come with gtool: `transgan` or `prior`" in capsys.readouterr().err
