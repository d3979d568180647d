"""Images of trained models from Python: the same as from the command line, of latents and of codes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gtool.errors import CheckpointError, RecipeError
from gtool.io.weights import load_weights, save_weights
from gtool.models.generate import load_model
from gtool.models.prior.config import SamplingParams
from tests.helpers.tiny import save_prior, save_tokenizer
from tests.sample.commands import pixels, sample


def test_images_are_those_of_the_command_line(tiny_run):
    model = load_model("transgan-scenes-000", "cpu", "fp32")
    images = model.sample(num=3, seed=2)
    assert (images.shape, images.dtype) == ((3, 16, 16, 3), np.uint8)
    assert sample("--num", 3, "--seed", 2, "--precision", "fp32", "-o", "files/") == 0
    for number, image in enumerate(images):
        assert (pixels(f"files/{number:06d}.png") == image).all()


def test_batches_are_of_any_images(tiny_weights):
    model = load_model(tiny_weights, "cpu", "fp32", batch_size=2)
    made = list(model.batches(torch.tensor([5, 1, 7])))
    assert [len(batch) for batch in made] == [2, 1]
    assert (made[1][0].permute(1, 2, 0).numpy() == model.sample(8)[7]).all()


def test_a_prior_samples_codes_of_a_class(tmp_path):
    path = save_prior(tmp_path / "w.safetensors", condition="class", condition_size=4)
    model = load_model(path, "cpu", "fp32")
    images = model.sample(num=2, seed=1, condition=2)
    assert images.shape == (2, 16, 16, 3)
    own = list(model.batches(torch.arange(2), 1, condition=lambda numbers: torch.full((len(numbers), 1), 2)))
    assert (torch.cat(own).permute(0, 2, 3, 1).numpy() == images).all()
    greedy = model.sample(num=2, condition=2, params=SamplingParams(temperature=0))
    assert (greedy[0] == greedy[1]).all()
    with pytest.raises(RecipeError, match="needs a condition: class"):
        model.sample()


def test_options_of_the_other_family_are_refused(tiny_weights, tmp_path):
    with pytest.raises(RecipeError, match="transgan samples from latents"):
        load_model(tiny_weights, "cpu").sample(condition=1)
    path = save_prior(tmp_path / "prior" / "w.safetensors")
    with pytest.raises(RecipeError, match="prior samples from codes: no psi"):
        load_model(path, "cpu").sample(psi=0.5)


def test_models_that_make_no_images_are_refused(tmp_path):
    path = save_tokenizer(tmp_path / "w.safetensors")
    with pytest.raises(
        CheckpointError, match="vqgan, which makes no images by itself; use `gtool train prior"
    ):
        load_model(path, "cpu")


def test_values_that_are_not_finite_are_no_grey(tiny_weights):
    weights = load_weights(tiny_weights)
    name = next(name for name in weights.tensors if name.endswith("weight"))
    tensors = weights.tensors | {name: weights.tensors[name] * 1e38}
    save_weights(tiny_weights, tensors, weights.meta)
    with pytest.raises(CheckpointError, match=r"not finite \(images 0 to 1\)"):
        load_model(tiny_weights, "cpu", "fp32").sample(2)
