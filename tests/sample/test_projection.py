"""Photos to latents and back: `gtool sample --project` and `--latents`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gtool.io.files import digest_of
from gtool.io.weights import load_weights, save_weights
from gtool.models import registry
from gtool.models.generate import batches, load_model, noise_inputs, weights_meta
from gtool.runtime.device import make_compute
from gtool.sample import projection
from gtool.sample.projection import Round, correlation, project, short_search
from tests.helpers.tiny import tiny_recipe
from tests.sample.commands import pixels, sample, text
from tests.sample.test_sample_components import make_weights

LAYERS = 7  # of the tiny GANsformer


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Searches of seconds."""
    rounds = (Round(4, 12, 0.1, 0.05), Round(2, 6, 0.05, 0.02, perceptual=True))
    settings = {"ROUNDS": rounds, "SHORT": Round(2, 8, 0.1, 0.05), "FINALISTS": 1, "EVALUATIONS": 12}
    for name, value in settings.items():
        monkeypatch.setattr(projection, name, value)
    monkeypatch.setattr(projection, "POOL", 64)


@pytest.fixture(scope="module")
def gansformer(tmp_path_factory) -> Path:
    return make_weights(tmp_path_factory.mktemp("parts") / "parts.safetensors")


def image_of(model, number: int) -> torch.Tensor:
    """What the model makes of an image number, (3, R, R)."""
    return next(batches(model.network, 5, torch.tensor([number]), model.compute))[0][0].clamp(-1, 1)


def test_an_image_of_the_model_is_found_again(tiny_weights, monkeypatch):
    monkeypatch.setattr(projection, "EVALUATIONS", 80)
    model = load_model(tiny_weights, compute=make_compute("cpu", "fp32"))
    wanted, losses = image_of(model, 3), {}
    found = project(model, wanted, seed=1, watch=lambda _, loss, of: losses.setdefault(of, []).append(loss))
    assert found.psnr > 40
    assert found.distance < 0.01
    again = model.network(found.tensors["z"][None])[0]
    torch.testing.assert_close(again.clamp(-1, 1), found.image)
    assert list(losses) == ["pixels", "with features", "finalist 1"]
    assert len(losses["pixels"]) == 12
    assert min(losses["finalist 1"]) < min(losses["with features"]) < losses["with features"][0]
    assert torch.equal(project(model, wanted, seed=1).tensors["z"], found.tensors["z"])  # bit for bit


def test_a_latent_keeps_the_class_that_it_was_found_with(tiny_weights):
    recipe = tiny_recipe('model.classes=["a","b","c"]', "data.condition=class")
    config = registry.config_class("transgan").model_validate(recipe.model)
    torch.manual_seed(0)
    generator = registry.network_module("transgan").Generator(config)
    save_weights(tiny_weights, generator.state_dict(), weights_meta(recipe, config, 12_000))
    assert sample("tiny.safetensors", "--seeds", 5, "-o", "all/") == 0
    assert (
        sample("tiny.safetensors", "--project", "all/000005.png", "--class", "c,b", "-o", "a.safetensors")
        == 0
    )
    found = load_weights(Path("a.safetensors")).tensors
    assert found["class"] in (1, 2)
    assert sample("tiny.safetensors", "--latents", "a.safetensors", "-o", "again/") == 0
    image = generator(found["z"][None], None, found["class"][None])[0].detach()
    shown = (image.clamp(-1, 1) + 1).mul(127.5).round().permute(1, 2, 0).numpy()
    assert np.abs(pixels("again/000000.png") - shown).max() <= 2


def test_what_the_model_has_not_learned_is_farther_than_what_it_makes(tiny_weights):
    model = load_model(tiny_weights, compute=make_compute("cpu", "fp32"))
    photos = torch.stack([image_of(model, 3), torch.rand(3, 16, 16, generator=torch.manual_seed(0)) * 2 - 1])
    own, foreign = short_search(model, photos)
    assert own > foreign + 10


def test_noise_inputs_hold_none_of_the_photo(gansformer):
    model = load_model(gansformer, compute=make_compute("cpu", "fp32"))
    white = noise_inputs(model.network, 0, torch.arange(4))[-1]
    smooth = torch.nn.functional.avg_pool2d(white, 5, 1, 2) * 5
    assert correlation(smooth).min() > 10 * correlation(white).max()
    found = project(model, image_of(model, 3))
    assert found.tensors["ws"].shape == (LAYERS, *model.network.z_shape)
    for layer, shape in enumerate(model.network.noise_shapes):
        noise = found.tensors[f"noise.{layer}"]
        assert noise.shape == shape
        assert abs(noise.mean()) < 1e-4
        assert noise.square().mean().item() == pytest.approx(1, abs=1e-3)
        assert correlation(noise[None]) < 0.05


@pytest.fixture
def weights(request, tiny_weights, gansformer) -> Path:
    return tiny_weights if request.param == "transgan" else gansformer


@pytest.mark.parametrize("weights", ["transgan", "gansformer"], indirect=True)
def test_from_photos_to_a_morph(weights, capsys):
    for name, number in (("a", 2), ("b", 9)):
        assert sample(weights, "--seeds", number, "-o", f"{name}/") == 0
        more = ["--animate", "search.webp"] if name == "a" else []
        photo = f"{name}/{number:06d}.png"
        assert sample(weights, "--project", photo, "-o", f"{name}.safetensors", "--json", *more) == 0
    shown = capsys.readouterr()
    record = json.loads(shown.out[shown.out.rindex("{\n") :])
    scores = {"psnr", "distance", "short_psnr", "training_short_psnr"}
    assert {"latent", "picture", "curve", *scores} <= record.keys()
    assert "for the median of 8 images that the model was trained on (scenes)" in shown.err
    assert all(Path(name).is_file() for name in ("a-projected.png", "a-loss.png", "search.webp"))
    assert load_weights(Path("a.safetensors")).meta["photo"] == "000002.png"
    # An interpolation begins with what was found.
    both = ["--latents", "a.safetensors, b.safetensors"]
    assert sample(weights, *both, "-o", "all/") == 0
    morph = ["--latents", "b.safetensors,a.safetensors", "--interpolate", 3, "--animate", "morph.webp"]
    assert sample(weights, *morph, "--scale", 1, "-o", "row.png") == 0
    assert np.abs(pixels("row.png")[2:18, 2:18] - pixels("all/000001.png")).max() <= 2
    assert text("row.png")["latents"] == "b.safetensors, a.safetensors"
    with Image.open("morph.webp") as opened:
        assert opened.n_frames == 6
    if weights.stem == "parts":
        for more in (["--mix", "0,1", "--components", "0-1"], ["--psi", "0.5"], ["--attention"]):
            assert sample(weights, *both, *more, "-o", "other.png") == 0
        assert sample(weights, *both, "--interpolate", 4, "--component", "1", "-o", "other.png") == 0


def test_a_photo_of_another_shape_is_cropped_and_said_so(tiny_weights, capsys):
    Image.new("RGB", (40, 20), "red").save("wide.png")
    assert sample(tiny_weights, "--project", "wide.png", "-o", "wide.safetensors") == 0
    assert "wide.png: 40x20 pixels, of another shape: its middle 20x20 is used" in capsys.readouterr().err


REFUSED = {
    "no photo": (["--project", "none.png"], "--project none.png: no such file"),
    "no image": (["--project", "words.png"], "words.png"),
    "a picture": (["--project", "photo.png", "-o", "latent.png"], "name a .safetensors file"),
    "the weights themselves": (
        ["--project", "photo.png", "-o", "tiny.safetensors"],
        "exists and holds no latent",
    ),
    "the photo": (["--project", "x-projected.png", "-o", "x.safetensors"], "is the photo itself"),
    "no folder": (["--project", "photo.png", "-o", "words.png/a.safetensors"], "words.png is not a folder"),
    "two things": (["--project", "photo.png", "--interpolate", "3"], "exclude each other"),
    "a number": (["--project", "photo.png", "--num", "3"], "--num and --seeds are for images of a seed"),
    "both": (
        ["--project", "photo.png", "--latents", "a.safetensors"],
        "goes with neither --latents nor --psi",
    ),
    "no latent": (["--latents", "tiny.safetensors"], "tiny.safetensors: holds no latent"),
    "of other weights": (["--latents", "foreign.safetensors"], "is of other weights (other.safetensors)"),
    "other shapes": (["--latents", "forged.safetensors"], "its latents have other shapes"),
    "one of one": (["--latents", "forged.safetensors", "--interpolate", "3"], "at least two images"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_done_is_one_line(name, tiny_weights, capsys):
    Path("words.png").write_text("words")
    for photo in ("photo.png", "x-projected.png"):
        Image.new("RGB", (16, 16)).save(photo)
    about = {"model": "latent", "weights": "other.safetensors", "weights_sha256": "0"}
    save_weights(Path("foreign.safetensors"), {"z": torch.zeros(8)}, about)
    about["weights_sha256"] = digest_of(tiny_weights)
    save_weights(Path("forged.safetensors"), {"z": torch.zeros(9)}, about)
    before = sorted(Path().rglob("*"))
    arguments, said = REFUSED[name]
    assert sample("tiny.safetensors", *arguments) in (1, 2)
    message = capsys.readouterr().err.splitlines()[-1]
    assert said in message
    assert message.startswith("error: ")
    assert sorted(path for path in Path().rglob("*") if path.name != "cache") == before
