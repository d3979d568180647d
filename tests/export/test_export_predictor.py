"""`gtool export` of stroke predictors: files that other programs run, and the released weights."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from gtool.cli import run
from gtool.export.parts import without_turns
from gtool.io.photo import read_photo
from gtool.models.paint_transformer.config import PaintTransformerConfig
from gtool.models.paint_transformer.network import ReleasedPredictor
from gtool.models.paint_transformer.proposals import predictor_of
from gtool.models.trained import open_trained
from gtool.paint.painter import Painter, open_brush
from gtool.runtime.device import make_compute
from gtool.strokes.settings import PaintSettings
from gtool.strokes.stroke_file import load_strokes
from tests.helpers.painted import draw_photo
from tests.models.test_paint_transformer import patches, released_weights
from tests.paint.test_paint import predictor


def export(*arguments) -> int:
    return run(["export", *map(str, arguments)])


def expected(path="mine.safetensors", count=3) -> list[np.ndarray]:
    from gtool.models.trained import open_trained

    with torch.no_grad():
        return [x.numpy() for x in open_trained(Path(path)).network().eval()(*patches(count))]


# For other programs.


def test_onnx_proposes_the_strokes_of_torch_at_any_batch(capsys):
    onnxruntime = pytest.importorskip("onnxruntime")
    predictor()
    assert export("mine.safetensors", "-o", "mine.onnx") == 0
    assert "checked: largest error" in capsys.readouterr().err
    session = onnxruntime.InferenceSession("mine.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 4, 9):
        target, canvas = (x.numpy() for x in patches(count))
        found = session.run(["shape_params", "logits"], {"target": target, "canvas": canvas})
        for ours, theirs in zip(expected(count=count), found, strict=True):
            assert np.abs(ours - theirs).max() <= 1e-4
    text = session.get_modelmeta().custom_metadata_map
    assert text["model"] == "paint-transformer"
    assert text["input"].startswith("target, canvas (N, 3, 32, 32) float32")


@pytest.mark.parametrize("architecture", ["dense", "released"])
def test_pt2_proposes_the_strokes_of_torch_at_any_batch(architecture):
    if architecture == "dense":
        predictor()
    else:
        torch.save(original(), "mine.pth")
        assert export("mine.pth", "--from", "paint-transformer") == 0
    assert export("mine.safetensors", "--format", "pt2") == 0
    module = torch.export.load("mine.pt2").module()
    for count in (1, 4):
        for ours, theirs in zip(expected(count=count), module(*patches(count)), strict=True):
            assert np.abs(ours - theirs.detach().numpy()).max() <= 1e-4


def test_a_copy_paints_the_same(capsys):
    draw_photo("photo.png")
    Path("runs/mine").mkdir(parents=True)
    Path("runs/mine/recipe.toml").touch()
    predictor("runs/mine/weights-000001.safetensors")
    assert export() == 0
    shown = capsys.readouterr()
    assert shown.out == "mine-000001.safetensors\n"
    assert "gtool paint photo.jpg --weights mine-000001.safetensors" in shown.err
    for weights, name in (("runs/mine", "a.png"), ("mine-000001.safetensors", "b.png")):
        assert run(["paint", "photo.png", "-o", name, "--weights", weights, "--device", "cpu"]) == 0
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()


def test_a_turn_that_is_rounded_the_other_way_is_no_error():
    just_below, zero = (torch.tensor([[[0.5, 0.5, 0.2, 0.2, theta]]]) for theta in (1 - 1e-7, 0.0))
    one, other = (without_turns((x, torch.zeros(1, 1))) for x in (just_below, zero))
    assert max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True)) < 1e-5


# The released weights.


def original() -> dict[str, torch.Tensor]:
    """A stand-in for the released file: its names and shapes, weights by a hash of their names."""
    with torch.random.fork_rng():
        weights = released_weights(ReleasedPredictor(PaintTransformerConfig(architecture="released")))
    # Strokes of a plausible size, most of them decided on, so that paintings have many.
    weights["linear_param.4.bias"] = torch.tensor([0.5, 0.5, 0.4, 0.4, 0.5])
    return weights


@pytest.mark.parametrize("select", ["gain", "decision"])
def test_released_weights_paint_as_their_network_does(select, capsys):
    draw_photo("photo.png", size=(96, 64))
    weights = original()
    torch.save(weights, "model.pth")
    assert export("model.pth", "--from", "paint-transformer") == 0
    shown = capsys.readouterr()
    assert shown.out == "model.safetensors\n"
    assert "9.1M parameters" in shown.err
    assert "gtool paint photo.jpg --weights model.safetensors" in shown.err
    arguments = ["--weights", "model.safetensors", "--select", select, "--precision", "fp32"]
    assert run(["paint", "photo.png", "--strokes", "ours.json", "--device", "cpu", *arguments]) == 0

    network = ReleasedPredictor(PaintTransformerConfig(architecture="released"))
    network.load_state_dict(weights)
    loaded = open_trained(Path("model.safetensors")).network()
    assert all(torch.equal(value, weights[name]) for name, value in loaded.state_dict().items())
    compute = make_compute("cpu", "fp32")
    settings = PaintSettings(select=select)
    predictor = predictor_of(network.eval(), compute)
    painter = Painter(settings, 0.5, open_brush("flat"), predictor)
    wanted, made = painter.paint(read_photo(Path("photo.png"), 2048)), load_strokes(Path("ours.json"))
    assert len(made) > 50
    assert len(made) == len(wanted)
    assert torch.equal(made.render(64, 96), wanted.render(64, 96))


def test_a_network_saved_from_several_gpus_is_read():
    torch.save({f"module.{name}": value for name, value in original().items()}, "model.pth")
    assert export("model.pth", "--from", "paint-transformer") == 0
    assert np.isfinite(expected("model.safetensors")[0]).all()


def test_weights_saved_on_a_gpu_are_read_without_one(monkeypatch):
    """The reference needs the device that wrote the file (sheet 4.5, 9)."""
    with monkeypatch.context() as patched:
        patched.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        torch.save(original(), "model.pth")
    with pytest.raises(RuntimeError, match="CUDA"):
        torch.load("model.pth", weights_only=True)
    assert export("model.pth", "--from", "paint-transformer", "-o", "mine.safetensors") == 0


class Bomb:
    """Makes a folder when it is unpickled."""

    def __reduce__(self):
        return (os.mkdir, ("executed",))


def changed(name: str, value) -> dict:
    weights = original()
    if value is None:
        del weights[name]
    else:
        weights[name] = value
    return weights


DAMAGES = {
    "code": (lambda: original() | {"extra": Bomb()}, "refused: the file wants to build"),
    "code alone": (Bomb, "refused: the file wants to build"),
    "no names": (lambda: list(original().values()), "holds a list, not named tensors"),
    "text for tensors": (lambda: changed("conv.weight", "none"), "holds no network"),
    "a part missing": (lambda: changed("query_pos", None), "`query_pos` is missing"),
    "a tensor missing": (lambda: changed("conv.bias", None), "1 tensors missing"),
    "a tensor too many": (lambda: changed("conv.more", torch.zeros(1)), "conv.more"),
    "wrong shape": (lambda: changed("conv.weight", torch.zeros(256, 128, 1, 1)), "conv.weight"),
    "wrong kind": (lambda: changed("conv.bias", torch.zeros(256, dtype=torch.long)), "conv.bias"),
    "another network": (lambda: {"l1.weight": torch.zeros(3)}, "`enc_img` is missing"),
    "not a number": (lambda: changed("conv.bias", torch.full((256,), torch.nan)), "not finite"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_refused_in_one_line(damage, capsys):
    make, message = DAMAGES[damage]
    torch.save(make(), "model.pth")
    assert export("model.pth", "--from", "paint-transformer") == 1
    shown = capsys.readouterr()
    assert message in shown.err
    assert len(shown.err.splitlines()) == 1
    assert shown.out == ""
    assert os.listdir() == ["model.pth"]


def test_a_cut_off_checkpoint_is_refused_in_one_line(capsys):
    torch.save(original(), "model.pth")
    Path("model.pth").write_bytes(Path("model.pth").read_bytes()[:100_000])
    assert export("model.pth", "--from", "paint-transformer") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "model.pth: not a readable pickle" in line
