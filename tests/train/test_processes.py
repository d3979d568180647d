"""Two processes take the steps that one takes: all families, launched once."""

from __future__ import annotations

import socket

import pytest
import torch

from gtool.config.recipe import to_toml
from gtool.models import registry
from gtool.runtime.device import make_compute
from tests.helpers import components, in_processes
from tests.helpers.forked import Process, places
from tests.helpers.pictures import class_folders
from tests.helpers.tiny import save_tokenizer, tiny_prior, tiny_recipe, tiny_strokes, tiny_tokenizer

RECIPES = {
    "transgan": tiny_recipe("train.micro_batch=2", "optim.eps=1e-3"),
    "classes": tiny_recipe("train.micro_batch=2", "optim.eps=1e-3", "data.condition=class"),
    "energy distance": tiny_recipe("optim.eps=1e-3", "loss.energy_distance=1", "train.batch_size=8"),
    "resting heads": tiny_recipe(
        "train.micro_batch=2", "optim.eps=1e-3", "loss.projected=1", "loss.projected_until=0"
    ),
    "vqgan": tiny_tokenizer(
        "reconstruction.discriminator_start=0.0", "reconstruction.adversarial_start=0.2", "optim.eps=1e-3"
    ),
    "prior": tiny_prior("prior.token_keep_prob=0.9"),
    "dense": tiny_strokes(),
    "released": tiny_strokes("model.architecture=released"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Recipes of all families, and what two processes made of them."""
    folder = tmp_path_factory.mktemp("processes")
    tokenizer = save_tokenizer(folder / "tokenizer/weights-000001.safetensors")
    for name, recipe in RECIPES.items():
        if name == "prior":
            prior = recipe.prior.model_copy(update={"tokenizer": str(tokenizer)})
            recipe = recipe.model_copy(update={"prior": prior})
        if name == "classes":
            data = recipe.data.model_copy(update={"dataset": str(class_folders(folder / "pets"))})
            recipe = recipe.model_copy(update={"data": data})
        (folder / f"{name}.toml").write_text(to_toml(recipe), encoding="utf-8")
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
    here = {"MASTER_PORT": str(port), "GTOOL_CACHE": str(folder / "cache")}
    arguments = ["two.pt", *(f"{name}.toml" for name in RECIPES)]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        started = [
            Process(arguments, places(rank) | here, module="tests.helpers.in_processes") for rank in range(2)
        ]
    for process in started:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    return folder


@pytest.mark.parametrize(
    ("name", "rtol", "atol"),
    [
        ("transgan", 1e-4, 2e-5),
        ("classes", 1e-4, 2e-5),
        ("resting heads", 1e-4, 2e-5),
        ("vqgan", 1e-3, 1e-4),
        ("prior", 1e-3, 1e-4),
    ],
)
def test_two_processes_train_as_one(folder, name, rtol, atol):
    # Adam makes full steps of gradients that are zero but for rounding, as those of biases before a norm.
    two = torch.load(folder / "two.pt", weights_only=True)
    one = in_processes.train(folder / f"{name}.toml", make_compute("cpu", "fp32"))
    assert len(one) == len([key for key in two if key.startswith(f"{name}/")]) >= 2
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=rtol, atol=atol)


def test_two_processes_regularize_and_augment_as_one(folder, monkeypatch):
    two = torch.load(folder / "two.pt", weights_only=True)
    monkeypatch.setattr(registry, "network_module", lambda _name: components.NETWORKS)
    for key, value in in_processes.train_components(make_compute("cpu", "fp32")).items():
        torch.testing.assert_close(two[key], value, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("name", ["dense", "released"])
def test_two_processes_train_strokes_of_their_own(folder, name):
    """BatchNorm of the released network sees the patches of its own process; its averages are the main one's."""
    two = torch.load(folder / "two.pt", weights_only=True)
    assert all(two[f"{name}/{network}"].isfinite().all() for network in ("predictor", "ema"))
    assert not torch.equal(two[f"{name}/predictor"], two[f"{name}/ema"])
