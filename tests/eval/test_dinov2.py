"""FD-DINOv2: the network against another implementation, its files, and what `gtool eval` makes of it."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from gtool.cli import run
from gtool.errors import CheckpointError
from gtool.metrics.features.dinov2 import Dinov2Extractor, load_dinov2
from gtool.metrics.features.weights import DINOV2
from tests.eval.commands import ask, refuse, save
from tests.helpers import dinov2_standin, pictures

WIDTH, LAYERS = 128, 2


@pytest.fixture(scope="module")
def network():
    return dinov2_standin.build(WIDTH, LAYERS)


@pytest.fixture
def file(network, tmp_path, monkeypatch):
    """Take the network for the smallest of DINOv2's."""
    monkeypatch.setattr("gtool.metrics.features.dinov2.SHAPES", {"vit-s-14": (WIDTH, LAYERS)})
    path = dinov2_standin.save(network, tmp_path / "model.safetensors")
    monkeypatch.setenv(DINOV2["vit-s-14"].variable, str(path))
    return path


def test_features_equal_those_of_an_independent_network(network, file):
    """With positions interpolated as in the authors' repository; transformers alone is 1.5 % off."""
    images = torch.from_numpy(pictures.draw(2, 1, 224))
    extractor = Dinov2Extractor(load_dinov2(file, "vit-s-14"))
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (extractor.mean, extractor.deviation))
    expected = network((images / 255 - mean) / deviation)
    got = extractor(images)
    assert got.shape == (2, WIDTH)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_another_file_is_refused_in_one_line(file, tmp_path):
    name = "encoder.layer.1.mlp.fc1.weight"
    other = tmp_path / "other.safetensors"
    save_file({key: tensor for key, tensor in load_file(file).items() if key != name}, other)
    with pytest.raises(CheckpointError, match=r"not DINOv2's vit-s-14 \(--dinov2\)") as raised:
        load_dinov2(other, "vit-s-14")
    assert name in str(raised.value)


def test_the_record_says_which_network(file, tmp_path, capsys):
    fake, real = (save(tmp_path / name, pictures.draw(8, seed)) for name, seed in (("fake", 1), ("real", 2)))
    found = ask(capsys, fake, real, "--fd-dinov2", "--dinov2", "vit-s-14")["metrics"]["fd_dinov2"]
    assert found["protocol"].startswith("fd_dinov2/clean/dinov2-s-")
    assert found["protocol"].endswith("/n8/ref-real-n8")
    assert found["value"] > 0


def test_an_unknown_network_is_refused_before_anything_is_read(capsys):
    assert refuse(capsys, "a", "b", "--fd-dinov2", "--dinov2", "vit-b-16") == (
        2,
        "error: --dinov2 vit-b-16: unknown; did you mean `vit-b-14`?",
    )


def test_without_weights_the_line_names_the_ways_to_have_them(tmp_path, monkeypatch, capsys):
    for name in ("HF_HUB_OFFLINE", "HF_HUB_CACHE"):
        monkeypatch.setenv(name, "1" if name == "HF_HUB_OFFLINE" else str(tmp_path))
    monkeypatch.setattr("gtool.metrics.features.weights.hub.cached", lambda *_: None)
    folder = save(tmp_path / "fake", pictures.draw(4, 1))
    assert run(["--quiet", "eval", str(folder), str(folder), "--fd-dinov2"]) == 1
    line = capsys.readouterr().err
    assert [part for part in ("facebook/dinov2-base", "--dinov2-weights", "--rfd") if part not in line] == []
