"""CLIP-FID: the encoder against another implementation, its files and its pixels, and what `gtool eval` makes of it."""

from __future__ import annotations

import json
import re
import sys
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from gtool.cli import run
from gtool.errors import CheckpointError, GToolError, NetworkError
from gtool.io.files import digest_of
from gtool.metrics.features import weights
from gtool.metrics.features.clip import ClipExtractor, load_clip, to_square
from gtool.metrics.features.weights import CLIP
from tests.eval.commands import ask, save
from tests.helpers import clip_standin, pictures, small_inception
from tests.helpers.clip_standin import TINY, VIT_B_32


@pytest.fixture(scope="module")
def network():
    return clip_standin.build()


@pytest.fixture(scope="module")
def files(network, tmp_path_factory):
    """The same weights in every layout."""
    return clip_standin.save_all(network, tmp_path_factory.mktemp("clip"))


# The encoder and its files.


def test_features_equal_those_of_an_independent_encoder(network, files):
    pixels = torch.randn(3, 3, TINY.side, TINY.side)
    with torch.no_grad():
        expected = network(pixels)
    for path in files.values():
        got = load_clip(path, config=TINY.config)(pixels).image_embeds
        assert got.shape == (3, TINY.size)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_the_default_encoder_is_vit_b_32():
    """87,849,216 parameters: those of `visual.*` in OpenAI's file."""
    from transformers import CLIPVisionConfig

    assert CLIPVisionConfig(projection_dim=512).to_diff_dict() == VIT_B_32.config.to_diff_dict()
    assert sum(parameter.numel() for parameter in clip_standin.build(VIT_B_32).parameters()) == 87_849_216


def test_without_transformers_the_message_names_the_extra(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(GToolError, match=r"pip install 'gtool\[features\]'"):
        load_clip(files["safetensors"])


CLASS = "vision_model.embeddings.class_embedding"
WRONG = {
    "another network": (lambda state: {"fc.weight": torch.ones(2)}, f"`{CLASS}` is missing"),
    "a layer is missing": (
        lambda state: {k: v for k, v in state.items() if "layers.1.mlp.fc1" not in k},
        "vision_model.encoder.layers.1.mlp.fc1.weight` is missing",
    ),
    "another size": (lambda state: state | {CLASS: torch.ones(2, 2)}, f"`{CLASS}` is missing or wrong"),
    "not finite": (lambda state: state | {CLASS: state[CLASS] * torch.nan}, f"`{CLASS}`"),
}


@pytest.mark.parametrize("name", WRONG)
def test_another_file_is_refused_in_one_line_that_names_what_is_missing(name, network, tmp_path):
    change, said = WRONG[name]
    path = tmp_path / "other.pth"
    torch.save(change(clip_standin.hugging_face_state(network)), path)
    with pytest.raises(CheckpointError, match=re.escape(said)) as raised:
        load_clip(path, config=TINY.config)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_cut_short_is_refused(files, tmp_path):
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(files["pickled"].read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        load_clip(path, config=TINY.config)


# Pixels.


@pytest.mark.parametrize(("height", "width"), [(32, 32), (16, 17), (224, 224), (300, 451), (91, 37)])
def test_pixels_are_torchvisions_bit_for_bit(height, width):
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

    picture = np.random.RandomState(0).randint(0, 256, (height, width, 3), dtype=np.uint8)
    resize = Compose([Resize(224, interpolation=InterpolationMode.BICUBIC), CenterCrop(224)])
    expected = torch.from_numpy(np.array(resize(Image.fromarray(picture)))).permute(2, 0, 1).float()
    assert torch.equal(to_square(torch.from_numpy(picture).permute(2, 0, 1)), expected)


def test_the_extractor_normalises_as_clip_was_trained_and_takes_several_sizes(network, files):
    small, large = (torch.from_numpy(pictures.draw(1, seed=0, side=side))[0] for side in (24, 80))
    got = ClipExtractor(load_clip(files["safetensors"], config=TINY.config))([small, large])
    pixels = torch.stack([to_square(image, TINY.side) for image in (small, large)]) / 255
    mean, deviation = (
        torch.tensor(values).view(3, 1, 1) for values in (ClipExtractor.mean, ClipExtractor.deviation)
    )
    with torch.no_grad():
        expected = network((pixels - mean) / deviation)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


# Where the weights are.


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """No weights in any of the places."""
    monkeypatch.delenv(CLIP.variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(weights.hub, "cached", lambda *_: None)


def test_offline_the_message_says_everything_in_one_line(nowhere, tmp_path, monkeypatch):
    planted = tmp_path / "pytorch_model.bin"
    planted.write_bytes(b"cut short")
    monkeypatch.setattr(weights.hub, "cached", lambda *_: planted)
    with pytest.raises(NetworkError) as raised:
        weights.find_weights(CLIP)
    message = str(raised.value)
    wanted = [CLIP.variable, "--clip-weights", "--fid", "--rfd", "not downloaded", "not the published bytes"]
    wanted += [str(planted), "openai/clip-vit-base-patch32"]
    assert [part for part in wanted if part not in message] == []
    assert "\n" not in message


def test_published_weights_are_taken_from_the_hubs_cache(nowhere, tmp_path, monkeypatch):
    hub = tmp_path / "pytorch_model.bin"
    hub.write_bytes(b"weights")
    monkeypatch.setattr(weights, "digest_of", lambda _: CLIP.files["pytorch_model.bin"])
    monkeypatch.setattr(weights.hub, "cached", lambda *_: hub)
    found = weights.find_weights(CLIP)
    assert (found.path, found.label) == (hub, "clip-vit-b-32")


def test_doctor_says_what_there_is(nowhere, files, capsys, monkeypatch):
    assert run(["doctor"]) == 0
    assert "clip         not found; CLIP-FID needs them" in capsys.readouterr().out
    monkeypatch.setenv(CLIP.variable, str(files["safetensors"]))
    assert run(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["clip"]
    assert (found["path"], found["is_published"]) == (str(files["safetensors"]), False)


# `gtool eval`.


@pytest.fixture
def file(files, monkeypatch):
    """Let `gtool eval` read tiny encoders, and find one."""
    tiny = partial(load_clip, config=TINY.config)
    monkeypatch.setattr("gtool.eval.scores.load_clip", tiny)
    monkeypatch.setenv(CLIP.variable, str(files["safetensors"]))
    return files["safetensors"]


@pytest.fixture
def folders(tmp_path):
    return [str(save(tmp_path / name, pictures.draw(14, seed))) for name, seed in (("fake", 1), ("real", 2))]


def test_the_record_says_what_it_was_made_with(file, folders, capsys):
    record = ask(capsys, *folders, "--clip-fid", "--clip-weights", file, "--seed", 3)
    found = record["metrics"]["clip_fid"]
    digest = digest_of(file)
    assert found["protocol"] == f"clip_fid/clean/clip-{digest[:8]}/n14/ref-real-n14"
    assert (found["num_fake"], found["num_real"], found["dtype"], found["seed"]) == (14, 14, "fp32", 3)
    assert (found["weights"], found["reference"]) == (digest, record["reference"]["fingerprint"])
    assert found["comparable"] is False
    assert found["value"] > 0


def test_identical_images_give_zero(file, folders, capsys):
    assert ask(capsys, folders[0], folders[0], "--clip-fid")["metrics"]["clip_fid"]["value"] < 1e-6


@pytest.fixture
def read(monkeypatch):
    """The names of the sets whose images are read, as they are read."""
    from gtool.eval.image_sets import StoredImages

    names: list[str] = []
    plain = StoredImages.batches
    monkeypatch.setattr(
        StoredImages, "batches", lambda self, *which: names.append(self.name) or plain(self, *which)
    )
    return names


def test_inception_and_clip_look_at_images_once(file, folders, tmp_path, capsys, monkeypatch, read):
    small_inception.install(tmp_path, monkeypatch)
    together = ask(capsys, *folders, "--fid", "--clip-fid")["metrics"]
    assert read == ["real", "real", "fake"]  # what is kept of the reference is kept for each network
    alone = [ask(capsys, *folders, flag)["metrics"] for flag in ("--fid", "--clip-fid")]
    assert together == alone[0] | alone[1]


def test_features_of_the_reference_are_kept(file, folders, capsys, read):
    first, again = (ask(capsys, *folders, "--clip-fid")["metrics"] for _ in range(2))
    assert first == again
    assert read == ["real", "fake", "fake"]


def test_a_gate_asks_for_the_metric_by_itself(file, folders, capsys):
    assert run(["eval", *folders, "--max", "clip_fid=0.0001", "--json"]) == 4
    assert list(json.loads(capsys.readouterr().out)["metrics"]) == ["clip_fid"]
    assert run(["eval", *folders, "--max", "clip-fid=100000"]) == 0


REFUSED = {
    "no such file": (
        ["--clip-fid", "--clip-weights", "none.pt"],
        1,
        "none.pt: no such file (--clip-weights)",
    ),
    "statistics": (
        ["--clip-fid", "--reference", "stats.npz"],
        2,
        "--clip-fid: needs the images of the reference",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_work_is_one_line(name, file, folders, capsys):
    arguments, status, said = REFUSED[name]
    np.savez("stats.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    against = [] if "--reference" in arguments else ["--reference", folders[1]]
    assert run(["--quiet", "eval", folders[0], *against, *arguments]) == status
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert said in lines[0]
