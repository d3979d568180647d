"""`gtool export`: files that other programs run, files to share, and checkpoints of the original code."""

from __future__ import annotations

import json
import os
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from gtool.cli import run
from gtool.export import checks, files
from gtool.models.generate import load_model
from gtool.runtime.torch_random import hashed_normal


def export(*arguments) -> int:
    return run(["export", *map(str, arguments)])


def expected(weights, z: torch.Tensor) -> np.ndarray:
    generator = load_model(weights, "cpu", "fp32").network
    return generator(z).clamp(-1, 1).numpy()


def latents(batch: int) -> torch.Tensor:
    return hashed_normal(7, torch.arange(batch), 8, "test")


# To share.


def test_half_stores_the_same_weights_in_half_the_room(tiny_weights):
    assert export(tiny_weights, "--half", "-o", "half.safetensors") == 0
    assert os.path.getsize("half.safetensors") < 0.7 * os.path.getsize(
        tiny_weights
    )  # the description stays as long
    whole, half = (
        load_model(path, "cpu", "fp32").sample(4).astype(int) for path in (tiny_weights, "half.safetensors")
    )
    assert np.abs(whole - half).max() <= 2


@pytest.mark.parametrize("other", [["--format", "onnx"], ["--from", "transgan"]])
def test_half_goes_with_no_other_format(tiny_weights, other, capsys):
    assert export(tiny_weights, "--half", *other) == 2
    assert capsys.readouterr().err.startswith("error: --half stores weights of gtool as safetensors")


# For other programs.


def test_onnx_makes_the_images_of_torch_at_any_batch_and_says_how_it_is_used(tiny_run, tiny_weights, capsys):
    onnxruntime = pytest.importorskip("onnxruntime")
    assert export("--format", "onnx", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    path = tiny_run / "weights-000012.onnx"
    assert record["path"] == "runs/transgan-scenes-000/weights-000012.onnx"
    assert record["bytes"] == path.stat().st_size
    assert 0 <= record["max_error"] <= 1e-4
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch in (1, 5, 32):
        images = session.run(["images"], {"z": latents(batch).numpy()})[0]
        assert images.shape == (batch, 3, 16, 16)
        assert np.abs(images - expected(tiny_weights, latents(batch))).max() <= 1e-4
    text = session.get_modelmeta().custom_metadata_map
    assert (text["model"], text["kimg"]) == ("transgan", "12")
    assert text["input"].startswith("z (N, 8) float32")
    assert text["output"] == "images (N, 3, 16, 16) float32: RGB in [-1, 1]"
    assert [(i.name, i.shape) for i in session.get_inputs()] == [("z", ["batch", 8])]


def test_pt2_makes_the_images_of_torch_at_any_batch(tiny_weights, capsys):
    assert export(tiny_weights, "-o", "tiny.pt2") == 0
    shown = capsys.readouterr()
    assert shown.out == "tiny.pt2\n"
    assert "checked: largest error" in shown.err
    texts = {"gtool.json": ""}
    module = torch.export.load("tiny.pt2", extra_files=texts).module()
    assert json.loads(texts["gtool.json"])["model"] == "transgan"
    for batch in (1, 7):
        images = module(latents(batch)).detach().numpy()
        assert np.abs(images - expected(tiny_weights, latents(batch))).max() <= 1e-5


@pytest.mark.parametrize("name", ["tiny.pt2", "tiny.onnx"])
def test_a_file_that_finds_no_room_is_one_line(name, tiny_weights, tmp_path, capsys):
    if name.endswith("onnx"):
        pytest.importorskip("onnxscript")
    (tmp_path / "out").mkdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # bytes a file, as on a disk that fills up
    try:
        status = export(tiny_weights, "-o", f"out/{name}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert status == 1
    assert f"out/{name}: cannot be written: File too large" in capsys.readouterr().err
    assert os.listdir("out") == []


def test_a_file_that_differs_from_torch_is_not_left_behind(tiny_weights, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(files, "load_pt2", lambda path: lambda z: (torch.zeros(len(z[0]), 3, 16, 16),))
    (tmp_path / "out").mkdir()
    assert export(tiny_weights, "-o", "out/tiny.pt2") == 1
    assert "not written: the exported file differs from torch by" in capsys.readouterr().err
    assert os.listdir("out") == []


def test_missing_onnx_packages_are_answered_with_their_command(tiny_weights, monkeypatch, capsys):
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    assert export(tiny_weights, "--format", "onnx") == 1
    message = 'error: --format onnx needs onnx, onnxscript, onnxruntime; run `pip install "gtool[onnx]"`\n'
    assert capsys.readouterr().err == message


# To share.


def test_shared_weights_sample_the_same_anywhere(tiny_run, tmp_path, monkeypatch, capsys):
    assert export("--format", "safetensors") == 0
    assert capsys.readouterr().out == "transgan-scenes-000-000012.safetensors\n"
    assert run(["sample", "--num", "4", "-o", "here.png"]) == 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.move("transgan-scenes-000-000012.safetensors", elsewhere / "shared.safetensors")
    monkeypatch.chdir(elsewhere)
    assert run(["sample", "shared.safetensors", "--num", "4", "-o", "there.png"]) == 0
    assert image("there.png") == image("../here.png")


def image(path) -> bytes:
    from PIL import Image

    with Image.open(path) as opened:
        return opened.tobytes()


def test_weights_are_never_copied_onto_themselves(tiny_weights, capsys):
    assert export("tiny.safetensors") == 1
    assert "is the weights file itself" in capsys.readouterr().err


def test_damaged_weights_are_not_exported(tiny_weights, capsys):
    tiny_weights.write_bytes(tiny_weights.read_bytes()[:-8])
    assert export(tiny_weights, "-o", "copy.safetensors") == 1
    assert not Path("copy.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "onxx"], "did you mean `onnx`?"),
        (["--format", "onnx", "-o", "a.pt2"], "ends in .onnx"),
        (["-o", "a.bin"], "ends in .safetensors"),
        (["--from", "transgan", "--format", "onnx"], "makes a .safetensors file"),
        (["--from", "transgun"], "did you mean `transgan`?"),
        (["--from", "transgan"], "name the checkpoint to read"),
    ],
)
def test_flags_that_mean_nothing_are_named_in_one_line(capsys, arguments, message):
    assert export(*arguments) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert len(shown.splitlines()) == 1


# Checkpoints of the original code.

NAMES = {
    "input.": "l1.",
    "to_rgb.": "deconv.0.",
    "norm1.": "norm1.norm.",
    "norm2.": "norm2.norm.",
    "attention.qkv": "attn.qkv",
    "attention.out": "attn.proj",
    "attention.relative.table": "attn.relative_position_bias_table",
    "mlp.expand": "mlp.fc1",
    "mlp.contract": "mlp.fc2",
    "stages.0.blocks.": "blocks.block.",
    "stages.1.blocks.": "upsample_blocks.0.block.",
    "stages.2.blocks.": "upsample_blocks.1.block.",
    "stages.0.position": "pos_embed_1",
    "stages.1.position": "pos_embed_2",
    "stages.2.position": "pos_embed_3",
}
SMALL = {
    "resolution": 16,
    "z_dim": 8,
    "generator": {
        "stages": [
            {"side": 4, "channels": 64, "depth": 1},
            {"side": 8, "channels": 16, "depth": 1},
            {"side": 16, "channels": 4, "depth": 1},
        ]
    },
    "discriminator": {"stages": [{"side": 8, "channels": 8, "depth": 1}]},
}


@pytest.fixture
def original():
    """A small generator of the released kind, and a function that names its tensors as the release does."""
    from gtool.models.transgan.config import TransGANConfig
    from gtool.models.transgan.network import Generator

    torch.manual_seed(1)
    return Generator(TransGANConfig.model_validate(SMALL)).requires_grad_(False).eval()


def as_released(generator) -> dict[str, torch.Tensor]:
    renamed = {}
    for name, tensor in generator.state_dict().items():
        for ours, theirs in NAMES.items():
            name = name.replace(ours, theirs)
        if name.startswith("pos_embed"):
            tensor = tensor.unsqueeze(0)
        if name.endswith("bias_table"):
            tensor = tensor.t()
        renamed[f"module.{name}"] = tensor[..., None, None] if name == "deconv.0.weight" else tensor
    return renamed


def as_saved(generator, **more) -> dict:
    """A checkpoint as the original training script writes it."""
    return {
        "epoch": 7,
        "gen_model": "ViT_custom_rp",
        "gen_state_dict": {name: torch.zeros_like(t) for name, t in as_released(generator).items()},
        "avg_gen_state_dict": as_released(generator),
        "best_fid": np.float64(9.26),
        "path_helper": {"prefix": "logs/cifar"},
        "fixed_z": torch.zeros(2, 8),
        **more,
    }


def test_a_released_checkpoint_becomes_weights_that_make_its_images(original, capsys):
    torch.save(as_saved(original), "released.pth")
    assert export("released.pth", "--from", "transgan", "-o", "transgan.safetensors") == 0
    shown = capsys.readouterr()
    assert shown.out == "transgan.safetensors\n"
    assert "read `avg_gen_state_dict`: transgan at 16 px" in shown.err
    model = load_model("transgan.safetensors", "cpu", "fp32")
    imported, meta = model.network, model.meta
    assert torch.equal(imported(latents(3)), original(latents(3)))
    assert meta["source"] == "released.pth"
    assert run(["sample", "transgan.safetensors", "--num", "2", "-o", "grid.png"]) == 0


def test_a_released_generator_alone_is_read_as_well(original):
    torch.save(as_released(original), "generator.pth")
    assert export("generator.pth", "--from", "transgan") == 0
    assert Path("generator.safetensors").is_file()


class Bomb:
    """Makes a folder when it is unpickled."""

    def __reduce__(self):
        return (os.mkdir, ("executed",))


DAMAGES = {
    "code": (lambda saved: saved | {"epoch": Bomb()}, "refused: the file wants to build"),
    "no generator": (lambda saved: {"weights": 3}, "holds no network"),
    "text for tensors": (lambda saved: {"avg_gen_state_dict": "none"}, "holds no network"),
    "unknown names": (lambda saved: {"avg_gen_state_dict": {"a": torch.zeros(2)}}, "l1.weight"),
    "flat input": (lambda saved: with_tensor(saved, "l1.weight", torch.zeros(3)), "released.pth"),
    "flat position": (lambda saved: with_tensor(saved, "pos_embed_1", torch.zeros(3)), "released.pth"),
    "missing tensor": (lambda saved: with_tensor(saved, "l1.bias", None), "1 tensors missing"),
    "unknown tensor": (lambda saved: with_tensor(saved, "l9.bias", torch.zeros(1)), "l9.bias"),
    "not a number": (
        lambda saved: with_tensor(saved, "l1.bias", torch.full((1024,), float("nan"))),
        "not finite",
    ),
}


def with_tensor(saved: dict, name: str, tensor: torch.Tensor | None) -> dict:
    """Replace a tensor of the averaged generator, or leave it out."""
    tensors = {key: value for key, value in saved["avg_gen_state_dict"].items() if key != f"module.{name}"}
    return saved | {"avg_gen_state_dict": tensors if tensor is None else tensors | {f"module.{name}": tensor}}


def test_an_interrupted_export_is_an_interruption_however_the_exporter_wraps_it(
    original, monkeypatch, capsys
):
    def interrupted(*_arguments, **_options):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise RuntimeError("module has no attribute")  # noqa: B904 - as torch does it

    monkeypatch.setattr(torch.onnx, "export", interrupted)
    torch.save(as_saved(original), "released.pth")
    assert export("released.pth", "--from", "transgan") == 0
    assert export("released.safetensors", "--format", "onnx") == 130
    assert capsys.readouterr().err.splitlines()[-1] == "error: interrupted"


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_refused_in_one_line(original, capsys, damage):
    change, message = DAMAGES[damage]
    torch.save(change(as_saved(original)), "released.pth")
    assert export("released.pth", "--from", "transgan") == 1
    shown = capsys.readouterr()
    assert message in shown.err
    assert len(shown.err.splitlines()) == 1
    assert shown.out == ""
    assert sorted(os.listdir()) == ["released.pth"]
