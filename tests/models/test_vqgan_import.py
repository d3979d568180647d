"""Files of the released tokenizers: read as data, whatever else they hold, and equal to the release in what they do."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gtool.cli import run
from gtool.io.weights import load_weights
from gtool.models.vqgan.network import Tokenizer
from gtool.models.vqgan.released import (
    is_of_this_model,
    read_file,
    rename_released,
    tokenizer_from,
)
from tests.helpers import lightning_files
from tests.helpers.gansformer_formula import chirp
from tests.helpers.released_discriminators import rename_patch_discriminator
from tests.helpers.transgan_formula import summary
from tests.helpers.vqgans import formula_state, networks, tiny
from tests.io.test_pickles import Call

GOLDEN = json.loads((Path(__file__).parent / "golden" / "vqgan.json").read_text(encoding="utf-8"))
KINDS = {"image": 3, "map": 5}
BESIDE = {"loss.perceptual_loss.lin0.model.1.weight": (1, 64, 1, 1), "colorize": (3, 5, 1, 1)}


def released(kind: str = "image") -> dict[str, Tensor]:
    """Return the tensors of a released tokenizer, with what else is in its file."""
    return formula_state(GOLDEN["tokenizers"][kind]["shapes"]) | formula_state(BESIDE)


def judge(layers: int = 3) -> dict[str, Tensor]:
    """Return the tensors of a released discriminator under its names, from ours."""
    _, discriminator = networks(tiny(discriminator={"channels": 8, "layers": layers}))
    places = {"first": 0, "last": 2 + 3 * layers}
    for layer in range(layers):
        places |= {f"convs.{layer}": 2 + 3 * layer, f"norms.{layer}": 3 + 3 * layer}
    return {
        f"loss.discriminator.main.{places[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": value
        for name, value in discriminator.state_dict().items()
    }


@pytest.fixture
def small(monkeypatch):
    """Take files for tokenizers of a quarter of the released side: checked by use, these attend at half their side."""
    monkeypatch.setattr("gtool.models.vqgan.released.RESOLUTION", 64)


def export(*arguments: str) -> int:
    return run(["export", *arguments])


def load(path: str) -> Tokenizer:
    weights = load_weights(Path(path))
    from gtool.models.registry import config_class

    tokenizer = Tokenizer(config_class(weights.meta["model"]).model_validate(weights.meta["config"])).eval()
    tokenizer.load_state_dict(weights.tensors)
    return tokenizer


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("source", ["vqgan", "taming"])
def test_a_released_file_becomes_weights_that_make_its_codes_and_images(kind, source, request, capsys):
    known = GOLDEN["tokenizers"][kind]
    if kind == "image":
        request.getfixturevalue("small")
    lightning_files.write("last.ckpt", released(kind))
    assert export("last.ckpt", "--from", source, "-o", "ours.safetensors") == 0
    shown = capsys.readouterr()
    assert shown.out == "ours.safetensors\n"
    assert f"read `state_dict`: vqgan at {64 if kind == 'image' else 256} px" in shown.err
    assert "gtool train prior --tokenizer ours.safetensors" in shown.err
    tokenizer = load("ours.safetensors")
    with torch.no_grad():
        out = tokenizer(chirp((2, KINDS[kind], 16, 16), 1, 0.5))
    assert out.codes.flatten().tolist() == known["codes"]
    assert out.quantizer_loss.item() == pytest.approx(known["loss"], rel=1e-4)
    tolerance = 1e-4 * max(map(abs, known["images"]["values"]))
    assert summary(out.reconstruction)["values"] == pytest.approx(
        known["images"]["values"], rel=1e-4, abs=tolerance
    )


def test_the_config_is_that_of_the_shapes():
    chosen, config, _ = read_file(lightning_files.write("last.ckpt", released() | judge()))
    assert chosen == "state_dict"
    assert (config.channels, config.multipliers, config.blocks, config.blocks_up) == (32, (1, 2), 1, 2)
    assert (config.attention_sides, config.z_channels, config.image_channels) == ((128,), 8, 3)
    assert (config.quantizer.size, config.quantizer.dim, config.quantizer.legacy) == (16, 4, True)
    assert rename_released(released("map"))[0].image_channels == 5


@pytest.mark.usefixtures("small")
def test_a_released_tokenizer_with_gumbel_codes_takes_the_entry_of_the_largest_logit():
    """GumbelQuantize of the release, without the noise that it adds in encoding, too."""
    tensors = renamed("quantize.embedding.", "quantize.embed.")
    tensors |= {
        "quantize.proj.weight": chirp((16, 4, 1, 1), 3, 2.0),
        "quantize.proj.bias": chirp((16,), 4, 0.1),
    }
    lightning_files.write("last.ckpt", tensors)
    assert export("last.ckpt", "--from", "taming", "-o", "ours.safetensors") == 0
    tokenizer = load("ours.safetensors")
    with torch.no_grad():
        out = tokenizer(chirp((2, 3, 16, 16), 1, 0.5))
        logits = torch.einsum("kd,ndhw->nkhw", tensors["quantize.proj.weight"][..., 0, 0], out.vectors)
        logits += tensors["quantize.proj.bias"][:, None, None]
        assert torch.equal(out.codes, logits.argmax(dim=1))
        assert len(out.codes.unique()) > 2
        entries = tensors["quantize.embed.weight"][out.codes].movedim(-1, 1)
        made = tokenizer.decoder(tokenizer.from_codes(entries))
    torch.testing.assert_close(out.reconstruction, made)
    torch.testing.assert_close(tokenizer.decode(out.codes), made)


def test_a_file_of_tensors_alone_is_read():
    torch.save(released(), "state.pth")
    assert read_file(Path("state.pth"))[0] == "the whole file"


def test_a_tokenizer_inside_another_file_is_found_by_its_prefix():
    tensors = {f"first_stage_model.{name}": value for name, value in released().items()}
    whole = tensors | {"transformer.tok_emb.weight": torch.zeros(2, 2)}
    assert not is_of_this_model(whole)
    assert is_of_this_model(released())
    config, renamed = tokenizer_from(whole, "first_stage_model.")
    expected, others = rename_released(released())
    assert config == expected
    assert all(torch.equal(renamed[name], others[name]) for name in others)


def test_the_discriminator_of_a_file_judges_as_ours():
    config = tiny(discriminator={"channels": 8, "layers": 2})
    _, discriminator = networks(config)
    renamed = rename_patch_discriminator(judge(2) | released())
    assert renamed.keys() == discriminator.state_dict().keys()
    assert all(torch.equal(renamed[name], value) for name, value in discriminator.state_dict().items())


# Refused.


def without(name: str) -> dict[str, Tensor]:
    return {key: value for key, value in released().items() if key != name}


def renamed(before: str, after: str) -> dict[str, Tensor]:
    return {key.replace(before, after): value for key, value in released().items()}


Q = "encoder.mid.attn_1.q.weight"
DAMAGES: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "nothing": (dict, "holds no named tensors; looked for `state_dict`"),
    "code for a tensor": (lambda: released() | {"x": Call(os.mkdir, "executed")}, "holds no named tensors"),
    "number": (lambda: released() | {"x": 3}, "holds no named tensors"),
    "odd name": (lambda: released() | {"a\nb": torch.zeros(1)}, "names in it are no names"),
    "long name": (lambda: released() | {"a" * 300: torch.zeros(1)}, "names in it are no names"),
    "other network": (lambda: {"weight": torch.zeros(2)}, "'encoder.conv_in.weight' is missing"),
    "no codebook": (lambda: without("quantize.embedding.weight"), "'quantize.embedding.weight' is missing"),
    "no convolution": (lambda: without("decoder.conv_out.weight"), "1 tensors missing"),
    "no keys": (lambda: without("encoder.mid.attn_1.k.weight"), "lacks keys or values"),
    "no level": (lambda: renamed("down.0.", "down.7."), "blocks or levels in it are left out"),
    "unknown part": (
        lambda: released() | {"encoder.mid.gate.weight": torch.zeros(1)},
        "`encoder.mid.gate.weight`",
    ),
    "unknown layer": (lambda: released() | {"head.weight": torch.zeros(1)}, "`head.weight` is unknown"),
    "flat": (lambda: released() | {"encoder.conv_in.weight": torch.zeros(())}, "no released tokenizer"),
    "flat codebook": (
        lambda: released() | {"quantize.embedding.weight": torch.zeros(3)},
        "no released tokenizer",
    ),
    "odd attention": (lambda: released() | {Q: torch.zeros(3, 4)}, "queries, keys and values differ"),
    "other shape": (lambda: released() | {"quant_conv.bias": torch.zeros(3)}, "this model has"),
    "odd width": (
        lambda: released() | {"encoder.conv_in.weight": torch.zeros(7, 3, 3, 3)},
        "does not divide",
    ),
    "no width": (
        lambda: released() | {"encoder.conv_in.weight": torch.zeros(0, 3, 3, 3)},
        "no released tokenizer",
    ),
    "not finite": (lambda: released() | {"decoder.conv_out.bias": torch.full((3,), torch.nan)}, "not finite"),
    "Gumbel without logits": (
        lambda: renamed("quantize.embedding.", "quantize.embed."),
        "quantizer.proj.bias",
    ),
    "remapped": (lambda: released() | {"quantize.used": torch.arange(3)}, "renumbered codes"),
}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused_in_one_line_and_executes_nothing(damage, capsys):
    make, message = DAMAGES[damage]
    lightning_files.write("last.ckpt", make())
    assert export("last.ckpt", "--from", "vqgan") == 1
    shown = capsys.readouterr()
    assert message in shown.err
    assert len(shown.err.splitlines()) == 1
    assert os.listdir() == ["last.ckpt"]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "beside",
    [
        {"callbacks": Call(os.mkdir, "executed")},
        {"hyper_parameters": {"a": [Call(os.system, "touch executed")]}},
        {"callbacks": {"x": Call(eval, "__import__('os').mkdir('executed')")}},
    ],
)
def test_hostile_settings_beside_the_tensors_are_never_executed(beside):
    """They are what torch would run when it reads the file; the tensors are good and become weights."""
    lightning_files.write("last.ckpt", released(), **beside)
    assert export("last.ckpt", "--from", "taming", "-o", "ours.safetensors") == 0
    assert sorted(os.listdir()) == ["last.ckpt", "ours.safetensors"]


def test_foreign_classes_are_not_imported():
    import sys

    lightning_files.write("last.ckpt", released())
    read_file(Path("last.ckpt"))
    assert not any(name.startswith(("omegaconf", "pytorch_lightning")) for name in sys.modules)


def test_a_prior_is_not_taken_for_a_tokenizer(capsys):
    prior = {f"first_stage_model.{name}": value for name, value in released().items()}
    prior["transformer.tok_emb.weight"] = torch.zeros(4, 4)
    lightning_files.write("prior.ckpt", prior)
    assert export("prior.ckpt", "--from", "vqgan") == 1
    assert "a prior (Net2Net), and a tokenizer was asked for" in capsys.readouterr().err


def test_lightning_files_lead_to_the_importer_where_weights_are_asked_for(capsys):
    lightning_files.write("last.ckpt", released())
    assert run(["sample", "last.ckpt"]) == 1
    assert "convert it once with `gtool export last.ckpt --from MODEL`" in capsys.readouterr().err
