"""CLIP-FID: the encoder against another implementation, its files and its pixels, and what `gtool eval` makes of it."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gtool.cli import run
from gtool.errors import CheckpointError, NetworkError
from gtool.io.files import cache_dir
from gtool.metrics.features import resize_clip, weights
from gtool.metrics.features.clip import DEVIATION, MEAN, ClipExtractor, Encoder, load_clip
from gtool.metrics.features.weights import CLIP, digest_of
from tests.eval.commands import ask, save
from tests.helpers import clip_standin, pictures, small_inception
from tests.helpers.clip_standin import TINY


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
    got = load_clip(files["TorchScript"], shape=TINY)(pixels)
    assert got.shape == (3, TINY.size)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_every_layout_gives_the_same_weights(files):
    states = [load_clip(path, shape=TINY).state_dict() for path in files.values()]
    for other in states[1:]:
        assert all(torch.equal(tensor, other[name]) for name, tensor in states[0].items())
    assert {tensor.dtype for tensor in states[0].values()} == {torch.float32}  # the archive holds halves


def test_the_default_encoder_is_vit_b_32():
    """87,849,216 parameters: those of `visual.*` in OpenAI's file."""
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in Encoder().parameters()) == 87_849_216


WRONG = {
    "another network": (lambda state: {"fc.weight": torch.ones(2)}, "`visual.class_embedding`"),
    "a layer is missing": (
        lambda state: {k: v for k, v in state.items() if "visual.transformer.resblocks.1.mlp.c_fc" not in k},
        "visual.transformer.resblocks.1.mlp.c_fc.weight` is missing",
    ),
    "another size": (
        lambda state: state | {"visual.proj": torch.ones(2, 2)},
        "`visual.proj` is of the size (2, 2)",
    ),
    "another number of tokens": (
        lambda state: state | {"visual.positional_embedding": torch.ones([])},
        "`visual.positional_embedding` is of the size ()",
    ),
    "not finite": (
        lambda state: state | {"visual.proj": state["visual.proj"] * torch.nan},
        "`visual.proj`",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_another_file_is_refused_in_one_line_that_names_what_is_missing(name, network, tmp_path):
    change, said = WRONG[name]
    path = tmp_path / "other.pth"
    torch.save(change(clip_standin.openai_state(network)), path)
    with pytest.raises(CheckpointError, match=re.escape(said)) as raised:
        load_clip(path, shape=TINY)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_cut_short_is_refused(files, tmp_path):
    path = tmp_path / "ViT-B-32.pt"
    path.write_bytes(files["TorchScript"].read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        load_clip(path, shape=TINY)


# Pixels.


@pytest.mark.parametrize(("height", "width"), [(32, 32), (16, 17), (224, 224), (300, 451), (91, 37)])
def test_pixels_are_torchvisions_bit_for_bit_on_every_device(height, width):
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

    picture = np.random.RandomState(0).randint(0, 256, (height, width, 3), dtype=np.uint8)
    resize = Compose([Resize(224, interpolation=InterpolationMode.BICUBIC), CenterCrop(224)])
    expected = torch.from_numpy(np.array(resize(Image.fromarray(picture)))).permute(2, 0, 1).float()
    images = torch.from_numpy(picture).permute(2, 0, 1)[None]
    resized = tuple(int(224 * size / min(height, width)) for size in (height, width))
    assert torch.equal(resize_clip.to_square(images)[0], expected)
    assert torch.equal(resize_clip.by_matrices(images, resized, 224)[0], expected)


def test_the_extractor_normalises_as_clip_was_trained_and_takes_several_sizes(network, files):
    small, large = (torch.from_numpy(pictures.draw(1, seed=0, side=side))[0] for side in (24, 80))
    got = ClipExtractor(load_clip(files["Hugging Face"], shape=TINY))([small, large])
    pixels = torch.cat([resize_clip.to_square(image[None], TINY.side) for image in (small, large)]) / 255
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, DEVIATION))
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
    monkeypatch.setattr(weights, "cached", lambda *_: None)
    return tmp_path / "home" / ".cache" / "clip"


def test_offline_the_message_says_everything_in_one_line(nowhere):
    planted = nowhere / "ViT-B-32.pt"
    planted.parent.mkdir(parents=True)
    planted.write_bytes(b"cut short")
    with pytest.raises(NetworkError) as raised:
        weights.find_weights(CLIP)
    message = str(raised.value)
    wanted = [
        CLIP.variable,
        "--clip-weights",
        "ViT-B-32.pt",
        "--fid",
        "--rfd",
        "offline",
        "not the published bytes",
    ]
    wanted += [str(planted), str(cache_dir() / "weights"), "openai/clip-vit-base-patch32"]
    assert [part for part in wanted if part not in message] == []
    assert "\n" not in message


def test_published_weights_are_taken_from_clips_own_cache_and_from_the_hubs(nowhere, tmp_path, monkeypatch):
    openai, theirs, _ = CLIP.published
    digests = {"ViT-B-32.pt": openai.sha256, "pytorch_model.bin": theirs.sha256}
    monkeypatch.setattr(weights, "digest_of", lambda path: digests[path.name])
    hub = tmp_path / "pytorch_model.bin"
    hub.write_bytes(b"weights")
    monkeypatch.setattr(weights, "cached", lambda *_: hub)
    assert weights.find_weights(CLIP).path == hub
    nowhere.mkdir(parents=True)
    (nowhere / "ViT-B-32.pt").write_bytes(b"weights")
    found = weights.find_weights(CLIP)
    assert (found.path, found.label) == (nowhere / "ViT-B-32.pt", "clip-vit-b-32")


def test_doctor_says_what_there_is(nowhere, files, capsys, monkeypatch):
    assert run(["doctor"]) == 0
    assert "clip         not found; CLIP-FID needs them" in capsys.readouterr().out
    monkeypatch.setenv(CLIP.variable, str(files["Hugging Face"]))
    assert run(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["clip"]
    assert (found["path"], found["is_published"]) == (str(files["Hugging Face"]), False)


# `gtool eval`.


@pytest.fixture
def file(files, monkeypatch):
    """Let `gtool eval` read tiny encoders, and find one."""
    tiny = partial(load_clip, shape=TINY)
    monkeypatch.setattr("gtool.eval.scores.load_clip", tiny)
    monkeypatch.setenv(CLIP.variable, str(files["Hugging Face"]))
    return files["Hugging Face"]


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
    Path("stats.npz").write_bytes(b"")
    against = [] if "--reference" in arguments else ["--reference", folders[1]]
    assert run(["--quiet", "eval", folders[0], *against, *arguments]) == status
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert said in lines[0]
