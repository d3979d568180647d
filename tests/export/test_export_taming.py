"""`gtool export` of tokenizers and priors: files of their parts that do what torch does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gtool.cli import run
from gtool.export import files
from gtool.models.generate import load_model
from tests.helpers.tiny import save_prior, save_tokenizer
from tests.helpers.vqgans import pictures


@pytest.fixture
def tokenizer(tmp_path):
    """Weights that stand alone."""
    path = save_tokenizer(tmp_path / "vq.safetensors")
    (tmp_path / "recipe.toml").unlink()
    return path


@pytest.fixture
def prior(tmp_path):
    return save_prior(tmp_path / "prior.safetensors", condition="segmentation", condition_size=9)


def export(*arguments) -> int:
    return run(["export", *map(str, arguments)])


def network(path):
    from gtool.models.trained import open_trained

    return open_trained(path).network().eval()


def test_a_tokenizer_becomes_an_encoder_and_a_decoder(tokenizer, capsys):
    assert export("vq.safetensors", "--format", "pt2", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["paths"] == {"encoder": "vq-encoder.pt2", "decoder": "vq-decoder.pt2"}
    assert record["bytes"] == sum(Path(path).stat().st_size for path in record["paths"].values())
    own, images = network(tokenizer), pictures(7)
    encode, decode = (torch.export.load(path).module() for path in record["paths"].values())
    codes = encode(images)
    assert torch.equal(codes, own.encode(images))
    assert torch.allclose(decode(codes), own.decode(codes).clamp(-1, 1), atol=1e-4)


@pytest.mark.parametrize("settings", [["model.quantizer.kind=codebook"], ["model.kind=palette"]])
def test_other_kinds_of_tokenizers_are_exported_too(tmp_path, settings):
    path = save_tokenizer(tmp_path / "vq.safetensors", *settings)
    assert export(path, "-o", "other.pt2") == 0
    images = pictures(4)
    codes = torch.export.load("other-encoder.pt2").module()(images)
    assert torch.equal(codes, network(path).encode(images))


def test_onnx_files_of_a_prior_make_pictures_without_torch(prior, capsys):
    onnxruntime = pytest.importorskip("onnxruntime")
    assert export(prior, "-o", "scenes.onnx") == 0
    shown = capsys.readouterr()
    assert shown.out.split() == ["scenes-prior.onnx", "scenes-encoder.onnx", "scenes-decoder.onnx"]
    assert "checked: largest error" in shown.err
    pipeline = load_model(prior, "cpu", "fp32").network
    sessions = {
        part: onnxruntime.InferenceSession(f"scenes-{part}.onnx", providers=["CPUExecutionProvider"])
        for part in ("prior", "decoder")
    }
    assert (
        "condition (N, 64) int64: segmentation, 0 to 8"
        in sessions["prior"].get_modelmeta().custom_metadata_map["input"]
    )
    generator = torch.Generator().manual_seed(0)
    condition = torch.randint(9, (3, 64), generator=generator)
    codes = torch.randint(32, (3, 8, 8), generator=generator)
    logits = sessions["prior"].run(None, {"condition": condition.numpy(), "codes": codes.numpy()})[0]
    assert logits.shape == (3, 64, 32)
    assert np.abs(logits - pipeline.prior(condition, codes).numpy()).max() <= 1e-4
    images = sessions["decoder"].run(None, {"codes": codes.numpy()})[0]
    assert np.abs(images - pipeline.tokenizer.decode(codes).clamp(-1, 1).numpy()).max() <= 1e-4


def test_shared_weights_of_a_prior_sample_the_same_anywhere(prior, capsys):
    assert export(prior, "-o", "shared.safetensors") == 0
    shown = capsys.readouterr()
    assert shown.out == "shared.safetensors\n"
    assert "`gtool sample shared.safetensors` needs nothing else" in shown.err
    assert Path("shared.safetensors").read_bytes() == prior.read_bytes()


def test_no_part_is_left_when_another_proves_wrong(tokenizer, monkeypatch, capsys):
    load = files.load_pt2

    def wrong(path):
        if "encoder" in str(path):
            return load(path)
        return lambda codes: (torch.zeros(len(codes[0]), 3, 16, 16),)

    monkeypatch.setattr(files, "load_pt2", wrong)
    assert export("vq.safetensors", "--format", "pt2") == 1
    assert "vq-decoder.pt2: not written: the exported file differs" in capsys.readouterr().err
    assert list(Path().glob("*.pt2")) == []


@pytest.mark.parametrize("condition", ["segmentation", "none"])
def test_a_prior_of_any_order_is_given_the_order(tmp_path, condition):
    size = {"condition": condition, "condition_size": 9} if condition != "none" else {}
    path = save_prior(tmp_path / "any.safetensors", orders="any", **size)
    assert export(path, "-o", "any.pt2") == 0
    own = load_model(path, "cpu", "fp32").network.prior
    ids = own.config.condition_ids
    condition, codes = torch.zeros(2, ids, dtype=torch.int64), torch.randint(32, (2, 8, 8))
    order = torch.rand(2, 64).argsort(dim=1)
    logits = torch.export.load("any-prior.pt2").module()(condition, codes, order)
    assert torch.allclose(logits, own(condition, codes, order), atol=1e-4)
