"""Weights that come with the package: pictures in the first second, without a run and without a network."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from gtool.cli import run
from gtool.io.run_folder import GENERATORS


@pytest.mark.parametrize("name", GENERATORS)
def test_the_weights_in_the_package_are_sampled_by_name(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["sample", name, "--num", "4", "-o", "grid.png"]) == 0
    assert f"weights/{name}.safetensors: " in capsys.readouterr().err
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
    assert "use those that come with gtool: transgan, " in capsys.readouterr().err


def test_a_name_that_is_nearly_one_of_them_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["sample", "imag-gpt"]) == 1
    assert "no such run or file; did you mean `image-gpt`?" in capsys.readouterr().err
