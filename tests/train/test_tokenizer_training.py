"""Training of tokenizers: what is learned, when the discriminator comes in, codes that are not used, runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gtool.cli import run
from gtool.data.loader import Batches
from gtool.data.pixel_cache import ImageArrays
from gtool.data.synthetic.scenes import draw_scenes
from gtool.errors import RecipeError
from gtool.losses import reconstruction as losses
from gtool.models import registry
from gtool.nn.ranges import to_pm1
from gtool.runtime.device import make_compute
from gtool.train import tokenizer as engine
from tests.helpers import runs
from tests.helpers.runs import flat, write_recipe
from tests.helpers.tiny import tiny_tokenizer


def make_state(*settings, count=16):
    recipe = tiny_tokenizer("train.kimg=1.0", *settings)
    config = registry.config_class("vqgan").model_validate(recipe.model)
    images = ImageArrays(draw_scenes(np.arange(count), 16).images, None, "test")
    return engine.init_state(recipe, config, Batches(images, seed=0, flip=False), make_compute("cpu", "fp32"))


def test_training_brings_reconstructions_nearer_and_uses_the_codebook():
    state = make_state(count=8)
    images = torch.from_numpy(draw_scenes(np.arange(8), 16).images)
    before = engine.measure(state.ema, images, state.compute)
    for _ in range(60):
        engine.step(state)
    after = engine.measure(state.ema, images, state.compute)
    assert after["psnr"] > before["psnr"] + 5
    assert after["codes_used"] > 0.6
    assert 1 <= after["perplexity"] <= 32


def test_features_can_take_the_place_of_gradients():
    state = make_state("reconstruction.perceptual_kind=efficientnet", "reconstruction.perceptual=0.25")
    stats = engine.step(state)
    assert 0 < stats["efficientnet"] < 4
    assert "gradients" not in stats


def test_a_perfect_reconstruction_scores_as_high_as_eight_bits_can(monkeypatch):
    state = make_state()
    images = torch.from_numpy(draw_scenes(np.arange(4), 16).images)
    codes = torch.zeros(4, 8, 8, dtype=torch.int64)
    monkeypatch.setattr(engine, "reconstruct", lambda _tokenizer, given, _compute: (given + 1, codes))
    scores = engine.measure(state.ema, torch.where(images == 255, 254, images), state.compute)
    assert scores["mse"] == 1
    assert scores["psnr"] == pytest.approx(48.1308, abs=1e-4)  # 20 log10(255)
    assert (scores["codes_used"], scores["perplexity"]) == (1 / 32, 1)


def test_the_discriminator_learns_alone_before_the_decoder_listens():
    settings = ("reconstruction.discriminator_start=0.4", "reconstruction.adversarial_start=0.5")
    state = make_state(*settings)
    judge = flat(state.discriminator)
    state.progress = 0.3
    assert "discriminator_loss" not in engine.step(state)
    assert torch.equal(judge, flat(state.discriminator))
    state.progress = 0.45
    stats = engine.step(state)
    assert "discriminator_loss" in stats
    assert "generator_loss" not in stats
    assert not torch.equal(judge, flat(state.discriminator))
    state.progress = 0.55
    assert "generator_loss" in engine.step(state)


@pytest.mark.parametrize(
    ("progress", "factor"), [(0.49, 0.0), (0.5, 0.0), (0.55, 0.5), (0.6, 1.0), (1.0, 1.0)]
)
def test_the_adversarial_term_grows_to_its_weight(progress, factor):
    settings = ("reconstruction.adversarial_start=0.5", "reconstruction.adversarial_ramp=0.1")
    recipe = tiny_tokenizer(*settings)
    assert engine.adversarial_factor(recipe, progress) == pytest.approx(factor)
    assert engine.adversarial_factor(tiny_tokenizer("reconstruction.adversarial=0.0"), progress) == 0


def test_before_its_start_nothing_of_the_discriminator_reaches_the_tokenizer():
    """The released code computes the adversarial gradients from the first step on, and multiplies them by 0."""
    with_judge, without = make_state(), make_state("reconstruction.adversarial=0.0")
    for state in (with_judge, without):
        for _ in range(3):
            engine.step(state)
    assert torch.equal(flat(with_judge.tokenizer), flat(without.tokenizer))


def test_the_autoencoder_runs_once_a_step(monkeypatch):
    """The released code runs it once for each optimizer."""
    state = make_state()
    state.progress = 0.9
    calls = []
    state.tokenizer.encoder.register_forward_hook(lambda *_: calls.append(1))
    engine.step(state)
    assert len(calls) == 1


def test_the_adversarial_weight_is_the_ratio_of_gradients_at_the_last_layer():
    state = make_state("reconstruction.adaptive_weight_max=10")
    images = torch.zeros(2, 3, 16, 16)
    made = state.tokenizer(images)
    slope = torch.randn(made.reconstruction.shape, generator=torch.Generator().manual_seed(0))
    draft = engine.Draft(made, 3 * slope, -2 * slope, {})
    assert float(engine._adaptive_weight(state, [draft])) == pytest.approx(1.5, rel=1e-3)


def test_the_step_is_that_of_the_sum_of_all_losses():
    """The same update as one backward pass of the paper's Eq. 5 to 7."""
    settings = ("reconstruction.adversarial_ramp=0.0", "reconstruction.restart_interval=0")
    settings += ("reconstruction.adaptive_weight_max=1e4",)
    state, other = make_state(*settings), make_state(*settings)
    for one in (state, other):
        one.progress = 0.9
    position = state.batches.position
    stats = engine.step(state)
    other.batches.position = position
    real = to_pm1(other.batches.next(8))
    made = other.tokenizer(real)
    fidelity = losses.l1(made.reconstruction, real) + losses.multiscale_gradients(made.reconstruction, real)
    judged = -other.discriminator(made.reconstruction).mean()
    last = other.tokenizer.last_layer
    norms = [torch.autograd.grad(loss, last, retain_graph=True)[0].norm() for loss in (fidelity, judged)]
    weight = 0.8 * norms[0] / (norms[1] + 1e-4)
    (fidelity + weight.detach() * judged + made.quantizer_loss).backward()
    other.tokenizer_optimizer.step()
    assert float(stats["adversarial_weight"]) == pytest.approx(float(weight), rel=1e-3)
    torch.testing.assert_close(flat(state.tokenizer), flat(other.tokenizer), rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_a_compiled_step_is_the_same_step(monkeypatch):
    """By the compiler without its last stage, which writes C++ and takes minutes."""

    def compile_graphs(network):
        network._compiled_call_impl = torch.compile(network._call_impl, backend="aot_eager")

    monkeypatch.setattr(torch.nn.Module, "compile", compile_graphs)
    adversarial = [f"reconstruction.{key}=0.0" for key in ("discriminator_start", "adversarial_start")]
    plain, compiled = (
        engine.step(make_state(*adversarial, f"train.compile={value}", "train.micro_batch=8"))
        for value in ("false", "true")
    )
    assert plain.keys() == compiled.keys()
    for name, value in plain.items():
        torch.testing.assert_close(compiled[name], value, rtol=1e-4, atol=1e-5)


def test_codes_that_are_not_used_begin_anew_at_vectors_of_the_batch():
    state = make_state("reconstruction.restart_interval=2")
    with torch.no_grad():  # a collapsed codebook: all entries but one far from everything
        state.tokenizer.quantizer.weight.copy_(torch.tensor([1.0, 0, 0, 0]).expand(32, 4))
    engine.step(state)
    before = state.tokenizer.quantizer.weight.detach().clone()
    engine.step(state)
    after = state.tokenizer.quantizer.weight.detach()
    moved = (before - after).abs().sum(dim=1) > 0.1
    assert moved.sum() > 20
    assert torch.equal(state.ema.quantizer.weight[moved], after[moved])
    assert not state.usage.counts.any()


def test_after_its_end_restarting_leaves_codes_alone():
    state = make_state("reconstruction.restart_interval=1", "reconstruction.restart_until=0.5")
    state.progress = 0.6
    engine.step(state)
    assert not state.usage.counts.any()


def test_a_restored_state_goes_on_with_the_same_bits():
    straight = make_state("reconstruction.restart_interval=3")
    for _ in range(5):
        engine.step(straight)
    saved = straight.tensors(), straight.info()
    saved = ({g: {n: t.clone() for n, t in ts.items()} for g, ts in saved[0].items()}, saved[1])
    resumed = make_state("reconstruction.restart_interval=3")
    resumed.restore(*saved, "test")
    for state in (straight, resumed):
        state.progress = 0.7
        for _ in range(4):
            engine.step(state)
    assert torch.equal(flat(straight.tokenizer), flat(resumed.tokenizer))
    assert torch.equal(flat(straight.ema), flat(resumed.ema))
    assert torch.equal(flat(straight.discriminator), flat(resumed.discriminator))


# Runs.


def test_a_run_leaves_weights_pictures_scores_and_says_what_comes_next(capsys):
    assert runs.train("vqgan", write_recipe(tiny_tokenizer()), "runs/vqgan-scenes-000") == 0
    said = capsys.readouterr()
    assert "gtool train prior --tokenizer runs/vqgan-scenes-000" in said.err
    folder = Path("runs/vqgan-scenes-000")
    assert (folder / "curves.png").is_file()
    assert (folder / "training.webp").is_file()
    assert len(list(folder.glob("samples/*.png"))) >= 3
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert {"l1", "quantizer_loss", "psnr", "codes_used", "perplexity"} <= set().union(*log)
    assert log[-1]["psnr"] > log[0]["psnr"]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("model.image_channels=9", "photographs have 3"),
        ("reconstruction.discriminator_start=0.9", "comes after"),
        ("reconstruction.perceptual_kind=lpips", "LPIPS needs the VGG16 weights"),
        ("data.resolution=17", "halved"),
    ],
)
def test_what_cannot_be_trained_is_one_line(setting, said, capsys):
    status = runs.train("vqgan", write_recipe(tiny_tokenizer()), "out", "--set", setting)
    message = capsys.readouterr().err
    assert status in (1, 2)
    assert said in message
    assert message.count("\n") == 1
    assert not Path("out").exists()


def test_batch_norm_is_refused_for_processes():
    with pytest.raises(RecipeError, match="number of processes"):
        registry.trainer("vqgan").check(
            tiny_tokenizer(),
            registry.config_class("vqgan").model_validate(
                tiny_tokenizer("model.discriminator.norm=batch").model
            ),
            2,
        )


def test_a_palette_is_found_at_once_and_gives_images_back(capsys):
    recipe = write_recipe(tiny_tokenizer("model.kind=palette", "model.palette_size=64", "data.resolution=16"))
    assert runs.train("vqgan", recipe, "runs/vqgan-scenes-000") == 0
    log = [json.loads(line) for line in Path("runs/vqgan-scenes-000/log.jsonl").read_text().splitlines()]
    assert log[-1]["psnr"] > 25
    assert log[-1]["codes_used"] > 0.6
    assert run(["train", "vqgan", "--recipe", recipe, "--num-processes", "2"]) == 2
    assert "in one process" in capsys.readouterr().err
