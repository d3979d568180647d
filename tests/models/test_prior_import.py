"""Released priors: the importer's config and tensors, and logits equal to the released formulas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from gtool.cli import run
from gtool.errors import CheckpointError
from gtool.models.prior import released as prior_import
from gtool.models.prior.network import Prior, cells_in_order
from gtool.models.prior.released import read_file, split_released
from gtool.models.trained import open_trained
from gtool.models.vqgan import released as vqgan_import
from tests.helpers import lightning_files, released_priors
from tests.helpers.vqgans import formula_state

HEADS = 2
GOLDEN = json.loads((Path(__file__).parent / "golden" / "vqgan.json").read_text(encoding="utf-8"))


@pytest.fixture
def tokenizers(monkeypatch):
    """Let any tensors behind a tokenizer's prefix be those of a tiny one: its input has as many channels."""

    def stand_in(tensors, prefix):
        return released_priors.tokenizer(
            len(tensors[f"{prefix}weight"]), len(tensors["transformer.tok_emb.weight"])
        )

    monkeypatch.setattr(vqgan_import, "tokenizer_from", stand_in)


def file(condition: int | None = None, order: str | None = None, **sizes: Any) -> dict[str, torch.Tensor]:
    """Return the tensors of a file; condition: channels of its tokenizer's input."""
    tensors = released_priors.state(**{"block": 16 if condition is None else 32} | sizes)
    tensors["first_stage_model.weight"] = torch.ones(3)
    if condition is not None:
        tensors["cond_stage_model.weight"] = torch.ones(condition)
    if order is not None:
        tensors["permuter.forward_shuffle_idx"] = torch.tensor(cells_in_order(order, 4, 4))
    return tensors


def built(tensors, **options) -> Prior:
    config, renamed = split_released(tensors, heads=HEADS, **options)["prior"]
    prior = Prior(config).eval()
    prior.load_state_dict(renamed)
    return prior.requires_grad_(False)


CASES = {
    "map": {"condition": 5},
    "map that sees itself": {"condition": 5, "unmasked": 16},
    "depth in a spiral": {"condition": 1, "order": "spiral-out"},
    "nothing": {},
}


@pytest.mark.usefixtures("tokenizers")
@pytest.mark.parametrize("case", CASES)
def test_logits_are_the_released_ones(case):
    tensors = file(**CASES[case])
    prior = built(tensors)
    length = prior.config.condition_length
    condition, codes = torch.randint(1, (2, length)), torch.randint(32, (2, 4, 4))
    if length > 1:
        condition = torch.randint(32, (2, length))
    tokens = torch.cat([condition, prior.in_order(codes)], dim=1)[:, :-1]
    expected = released_priors.logits(tensors, tokens, HEADS)[:, length - 1 :]
    torch.testing.assert_close(prior(condition, codes), expected, rtol=1e-4, atol=1e-5)
    cache, first = prior.start(condition, prior.in_order(codes)[:, :3])
    torch.testing.assert_close(first[:, 0], expected[:, 3], rtol=1e-4, atol=1e-5)
    second = prior.extend(cache, prior.in_order(codes)[:, 3:4])
    torch.testing.assert_close(second[:, 0], expected[:, 4], rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("tokenizers")
def test_the_config_is_what_names_and_shapes_say():
    config = built(file(condition=5, unmasked=16, order="z-curve")).config
    assert (config.layers, config.width, config.codebook_size, config.grid) == (2, 16, 32, (4, 4))
    assert (config.condition, config.condition_size, config.condition_length) == ("segmentation", 32, 16)
    assert (config.order, config.unmasked_prefix, config.positions) == ("z-curve", 16, 32)
    assert config.shared_embedding
    assert built(file(condition=1)).config.condition == "depth"
    assert built(file()).config.condition == "none"


@pytest.mark.usefixtures("tokenizers")
def test_classes_share_the_rows_of_codes():
    """Class 3 of a released prior is code 3, which stands at the first position."""
    tensors = file()
    prior = built(tensors, classes=10)
    codes = torch.randint(32, (1, 4, 4))
    tokens = torch.cat([torch.tensor([[3]]), codes.flatten(1)], dim=1)[:, :-1]
    logits = prior(torch.tensor([[3]]), codes)
    torch.testing.assert_close(logits, released_priors.logits(tensors, tokens, HEADS), rtol=1e-4, atol=1e-5)


def whole_file(monkeypatch) -> dict[str, torch.Tensor]:
    """Return the tensors of a file with small tokenizers, for maps and for images, of 16 codes, 8 x 8 an image."""
    monkeypatch.setitem(prior_import.HEADS, (2, 16), HEADS)
    monkeypatch.setattr(vqgan_import, "RESOLUTION", 16)
    tensors = released_priors.state(vocabulary=16, block=128)
    for prefix, kind in (("first_stage_model.", "image"), ("cond_stage_model.", "map")):
        state = formula_state(GOLDEN["tokenizers"][kind]["shapes"])
        tensors |= {f"{prefix}{name}": value for name, value in state.items()}
    return tensors


def test_a_file_becomes_weights_of_a_prior_with_its_tokenizers(monkeypatch, capsys):
    tensors = whole_file(monkeypatch)
    lightning_files.write("last.ckpt", tensors)
    assert run(["export", "last.ckpt", "--from", "taming", "-o", "ours.safetensors"]) == 0
    assert "prior at 16 px" in capsys.readouterr().err
    pipeline: Any = open_trained(Path("ours.safetensors")).network()
    assert pipeline.config.prior.condition == "segmentation"
    image = torch.linspace(-1, 1, 3 * 256).view(1, 3, 16, 16)
    maps = torch.eye(5)[torch.arange(256).view(1, 16, 16) % 5].permute(0, 3, 1, 2)
    with torch.no_grad():
        codes, condition = pipeline.tokenizer.encode(image), pipeline.condition_tokenizer.encode(maps)
        logits = pipeline.eval().prior(condition, codes)
    tokens = torch.cat([condition.flatten(1), codes.flatten(1)], dim=1)[:, :-1]
    expected = released_priors.logits(tensors, tokens, HEADS)[:, 63:]
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    assert pipeline.config.prior == read_file(Path("last.ckpt"))[1].prior


def test_a_prior_that_does_not_fit_its_tokenizer_is_refused(monkeypatch, capsys):
    tensors = whole_file(monkeypatch) | released_priors.state(vocabulary=17, block=128)
    lightning_files.write("last.ckpt", tensors)
    assert run(["export", "last.ckpt", "--from", "taming", "-o", "ours.safetensors"]) == 1
    assert "last.ckpt: the prior knows 17 codes and its tokenizer 16" in capsys.readouterr().err
    assert not Path("ours.safetensors").exists()


def without(name: str) -> dict[str, torch.Tensor]:
    return {key: value for key, value in file(condition=5).items() if key != name}


DAMAGED = {
    "a tokenizer's file": {"encoder.conv_in.weight": torch.ones(1)},
    "no released prior's file": {"weight": torch.ones(1)},
    "`?.pos_emb.? is missing": without("transformer.pos_emb"),
    "blocks.1.mlp.0.bias. is missing": without("transformer.blocks.1.mlp.0.bias"),
    "coordinates": without("cond_stage_model.weight"),
    "conditioned on pictures": file(condition=3),
    "none of the released orders": file() | {"permuter.forward_shuffle_idx": torch.arange(16).roll(1)},
    "numbered": file() | {"transformer.blocks.7.ln1.weight": torch.ones(16)},
    "fewer than the 16 tokens": file(block=12),
}


@pytest.mark.usefixtures("tokenizers")
@pytest.mark.parametrize("message", DAMAGED)
def test_a_file_that_is_none_is_refused_in_one_line(message):
    with pytest.raises(CheckpointError, match=message) as refused:
        split_released(DAMAGED[message], heads=HEADS)
    assert "\n" not in str(refused.value)


@pytest.mark.usefixtures("tokenizers")
def test_a_size_whose_heads_are_unknown_is_refused():
    with pytest.raises(CheckpointError, match="2 layers of width 16 are none of the released sizes"):
        split_released(file())
