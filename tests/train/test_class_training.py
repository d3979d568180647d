"""Class-conditional GANs: trained, resumed, sampled from and exported as a user does it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gtool.cli import run
from gtool.io.weights import load_weights
from gtool.models import registry
from gtool.models.generate import load_model
from gtool.runtime.device import make_compute
from gtool.train.options import TrainOptions
from gtool.train.resolve import resolve
from tests.helpers import runs
from tests.helpers.pictures import class_folders
from tests.helpers.tiny import tiny_gansformer, tiny_recipe
from tests.sample.commands import pixels, sample, text

RECIPES = {"transgan": tiny_recipe, "gansformer": tiny_gansformer}
SETTINGS = ("data.condition=class", "sample.num=8", "train.kimg=0.08", "train.snapshot_kimg=0.04")


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    """Dark cats and bright dogs, in folders."""
    return class_folders(tmp_path_factory.mktemp("data") / "pets")


def begin(model, pets, out, *more):
    recipe = RECIPES[model](*SETTINGS, f"data.dataset={pets}")
    return runs.train(model, runs.write_recipe(recipe), str(out), *more)


@pytest.fixture(scope="module", params=RECIPES)
def trained(request, pets, tmp_path_factory):
    """A finished run of each family."""
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("GTOOL_CACHE", str(folder / "cache"))
        assert begin(request.param, pets, folder / "run") == 0
    return request.param, folder / "run"


def test_a_resumed_run_ends_with_the_same_bits(trained, pets):
    model, whole = trained
    assert begin(model, pets, "half", "--kimg", "0.04") == 0
    assert run(["train", model, "--resume", "half", "--kimg", "0.08", "--device", "cpu"]) == 0
    runs.assert_same_state(whole, "half")


def test_both_networks_learn_of_classes_and_the_average_follows(trained):
    _, folder = trained
    tensors = runs.final_state(folder)
    vectors = [name for name in tensors if name.endswith("classes.weight")]
    assert {name.partition("/")[0] for name in vectors} == {"generator", "discriminator", "ema"}
    assert all(len(tensors[name]) == 2 and tensors[name].abs().min() > 0 for name in vectors)


def test_weights_name_their_classes_and_grids_have_a_row_for_each(trained):
    _, folder = trained
    weights = sorted(folder.glob("weights-*"))[-1]
    assert load_weights(weights).meta["config"]["classes"] == ["cats", "dogs"]
    real = pixels(folder / "samples/real.png")
    assert real[: len(real) // 2].mean() < real[len(real) // 2 :].mean() - 50


@pytest.mark.parametrize("model", RECIPES)
def test_the_discriminator_is_told_the_classes_of_the_images_it_sees(model, pets):
    settings = (*SETTINGS, f"data.dataset={pets}", "augment.policy=none", "train.micro_batch=4")
    runs_of = TrainOptions(model=model, recipe=runs.write_recipe(RECIPES[model](*settings)))
    _, recipe, config, *_ = resolve(runs_of)
    family = registry.trainer(model)
    trainer = family(recipe, config, family.open_inputs(recipe, None), make_compute("cpu", "fp32"))
    seen = []
    trainer.state.discriminator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    trainer.step(trainer.state)
    images, _, classes = seen[0]
    # Reals come first, and what is generated is of their classes.
    assert ((images[:4].mean(dim=(1, 2, 3)) > 0).long() == classes[:4]).all()
    assert all((inputs[2] < 2).all() for inputs in seen)


def test_classes_are_chosen_by_name_or_number(trained, capsys):
    _, weights = trained
    assert sample(weights, "--class", "dogs", "-n", 3, "-o", "dogs/") == 0
    assert sample(weights, "--class", "1, cats", "--seeds", "2,3", "-o", "both/") == 0
    assert sample(weights, "-n", 4, "-o", "all/") == 0
    assert sample(weights, "-o", "grid.png", "--scale", 1) == 0
    assert (pixels("dogs/000002.png") == pixels("both/000002.png")).all()
    assert (pixels("all/000002.png") != pixels("both/000002.png")).any()
    assert (pixels("all/000001.png") == pixels("dogs/000001.png")).all()
    assert [text(f"all/00000{number}.png")["class"] for number in range(2)] == ["cats", "dogs"]
    # A row a class: cats are the even images.
    assert (pixels("grid.png")[2:18, 20:36] == pixels("all/000002.png")).all()
    capsys.readouterr()
    assert sample(weights, "--class", "dog") == 2
    assert "no such class; the classes are cats, dogs" in capsys.readouterr().err


def test_an_interpolation_keeps_to_the_class_of_its_first_image(trained):
    name, weights = trained
    assert sample(weights, "--seeds", "1,2", "--interpolate", 2, "--scale", 1, "-o", "between.png") == 0
    assert sample(weights, "--class", "dogs", "-n", 3, "-o", "dogs/") == 0
    shown = pixels("between.png")
    assert np.abs(shown[2:18, 2:18] - pixels("dogs/000001.png")).max() <= 1
    if name == "transgan":  # the other keeps to the noise of the first image as well
        assert np.abs(shown[20:36, 2:18] - pixels("dogs/000002.png")).max() <= 1


def test_truncation_pulls_each_class_to_its_own_mean(trained):
    name, weights = trained
    if name != "gansformer":
        assert sample(weights, "--psi", 0.5) == 2
        return
    model = load_model(weights, "cpu", "fp32")
    z, classes = torch.randn(2, *model.network.z_shape), torch.tensor([0, 1])
    assert torch.equal(model.w(z, 0.0, classes), model.mean_w)
    assert not torch.equal(model.mean_w[0], model.mean_w[1])
    assert sample(weights, "--psi-sweep", "0,1", "-n", 2) == 0
    assert sample(weights, "--attention", "-n", 1) == 0
    assert sample(weights, "--mix", "0,1", "-o", "mix.png") == 0


@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_exported_files_take_a_class(trained, kind):
    onnxruntime = pytest.importorskip("onnxruntime")
    name, weights = trained
    if name == "gansformer":  # takes its classes in the same place, and ten times as long
        return
    assert run(["export", str(weights), "--format", kind, "-o", f"g.{kind}"]) == 0  # compares with torch
    model = load_model(weights, "cpu", "fp32").network
    z, classes = torch.randn(3, *model.z_shape), torch.tensor([1, 0, 1])
    if kind == "pt2":
        images = torch.export.load("g.pt2").module()(z, classes).detach()
    else:
        session = onnxruntime.InferenceSession("g.onnx", providers=["CPUExecutionProvider"])
        assert "0 cats, 1 dogs" in session.get_modelmeta().custom_metadata_map["input"]
        images = torch.from_numpy(session.run(None, {"z": z.numpy(), "classes": classes.numpy()})[0])
    torch.testing.assert_close(images, model(z, None, classes).clamp(-1, 1), rtol=0, atol=1e-4)


def test_what_cannot_be_conditioned_is_refused(pets, tiny_weights, capsys):
    assert sample(tiny_weights, "--class", 1) == 2
    assert "tiny.safetensors: transgan was trained without classes" in capsys.readouterr().err
    recipe = tiny_recipe("data.condition=class")
    assert runs.train("transgan", runs.write_recipe(recipe), "out") == 1
    assert "scenes: no class labels" in capsys.readouterr().err
    for settings, message in (
        (["data.condition=segmentation"], "transgan knows none but 'class'"),
        (["model.classes=['cats']"], "add data.condition = 'class'"),
        (
            ["data.condition=class", "model.classes=['cats']", f"data.dataset={pets}"],
            "model.classes says otherwise",
        ),
    ):
        assert runs.train("transgan", runs.write_recipe(tiny_recipe(*settings)), "out") in (1, 2)
        assert message in capsys.readouterr().err.splitlines()[-1]
