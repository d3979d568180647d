"""`score_images`: folders, arrays and runs scored from Python."""

from __future__ import annotations

import pytest
import torch

from gtool.errors import GToolError
from gtool.eval.api import score_images
from tests.eval.commands import save
from tests.helpers import pictures


def test_arrays_tensors_and_folders_of_the_same_images_have_the_same_scores(tmp_path):
    fake, real = pictures.draw(24, seed=1), pictures.draw(24, seed=2)
    of_folders = score_images(save(tmp_path / "fake", fake), save(tmp_path / "real", real), device="cpu")
    of_arrays = score_images(fake, real, device="cpu")
    of_tensors = score_images(torch.from_numpy(fake), torch.from_numpy(real), device="cpu")
    assert list(of_folders) == ["rfd", "swd_32", "swd_16"]
    for name, found in of_folders.items():
        assert found["value"] == of_arrays[name]["value"] == of_tensors[name]["value"]
    assert of_folders["rfd"]["protocol"] == "rfd-v1/n12/ref-real-n12"


def test_a_run_is_scored_against_its_own_data(tiny_run):
    found = score_images(tiny_run, metrics=["rfd"], num=12, device="cpu")
    assert found["rfd"]["protocol"] == "rfd-v1/n12/ref-scenes-train-n12"


def test_what_cannot_be_scored_is_one_line():
    images = pictures.draw(6, seed=1)
    for arguments in ({"metrics": ["fdi"]}, {"metrics": ["rfd"]}, {"reference": images[:, :1]}):
        with pytest.raises(GToolError) as refused:
            score_images(images, device="cpu", **arguments)
        assert "\n" not in str(refused.value)
