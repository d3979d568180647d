"""One step of adversarial training, and every known fault of the released step that ours must not have."""

from __future__ import annotations

import pytest
import torch

from gtool.config.recipe import validate
from gtool.models import registry
from gtool.models.generate import generate
from gtool.runtime.device import make_compute
from gtool.train import gan as engine
from gtool.train.gan import GANTrainer
from gtool.train.optim import ema_beta, rate_factor
from tests.helpers.runs import flat
from tests.helpers.tiny import tiny_recipe


class FixedBatches:
    """Images that are a function of their position alone."""

    def __init__(self) -> None:
        self.position = 0

    def next(self, batch_size):
        places = torch.arange(self.position, self.position + batch_size)
        self.position += batch_size
        pixels = torch.arange(3 * 16 * 16).reshape(1, 3, 16, 16)
        return ((places.view(-1, 1, 1, 1) * 37 + pixels * 11) % 256).to(torch.uint8)


def make_state(*settings):
    recipe = tiny_recipe(*settings)
    config = validate(registry.config_class("transgan"), recipe.model, "test")
    return engine.init_state(recipe, config, FixedBatches(), make_compute("cpu", "fp32"))


LOSSES = [
    [],
    ["loss.gradient_penalty=0.0", "loss.drift=0.0", "loss.kind=hinge", "loss.r1_gamma=1.0"],
    ["loss.gradient_penalty=0.0", "loss.drift=0.0", "loss.kind=lsgan"],
    [
        "loss.gradient_penalty=0.0",
        "loss.drift=0.0",
        "loss.kind=non-saturating",
        "loss.r1_gamma=1.0",
        "loss.r2_gamma=1.0",
    ],
    [
        "loss.gradient_penalty=0.0",
        "loss.drift=0.0",
        "loss.kind=relativistic",
        "loss.r1_gamma=1.0",
        "loss.r2_gamma=1.0",
        "loss.penalty_interval=2",
        "train.n_critic=1",
        "train.share_fakes=true",
    ],
    ["loss.projected=0.5"],
    ["loss.energy_distance=1.0"],
    [
        *("loss.gradient_penalty=0.0", "loss.drift=0.0", "loss.kind=non-saturating"),
        *("loss.energy_distance=1.0", "loss.projected=0.5"),
        *("train.batch_size=8", "train.n_critic=1", "train.share_fakes=true"),
    ],
    ["model.discriminator.noise=true", "train.ema_kimg=0.01"],
    ["model.generator.super_resolution=true", "loss.super_resolution=50.0", "loss.super_resolution_kimg=1.0"],
    ["train.locality=[[0.02, 2], [1.0, 4]]"],
]


@pytest.mark.parametrize("settings", LOSSES, ids=str)
def test_every_loss_trains_both_networks(settings):
    state = make_state(*settings)
    before = {name: flat(network).clone() for name, network in state.networks.items()}
    for _ in range(3):
        stats = engine.step(state)
    assert all(torch.isfinite(value) for value in stats.values())
    for name, network in state.networks.items():
        assert not torch.equal(before[name], flat(network)), name


def test_the_generator_step_leaves_no_gradient_in_the_discriminator():
    """The release adds the generator's gradients to the discriminator's next update (sheet 4.1, defect 1)."""
    state = make_state()
    engine._generator_step(state, None)
    assert all(p.grad is None for p in state.discriminator.parameters())


@pytest.mark.parametrize("settings", LOSSES[:5], ids=str)
def test_the_discriminator_s_noise_is_drawn_and_its_strengths_learn(settings):
    settings = [setting for setting in settings if "share_fakes" not in setting]
    settings += ["model.discriminator.noise=true", "optim.eps=1e-3"]
    whole, parts = make_state(*settings), make_state(*settings, "train.micro_batch=2")
    for state in (whole, parts):
        engine.step(state)
    strengths = [
        {name: p.item() for name, p in state.discriminator.named_parameters() if name.endswith("strength")}
        for state in (whole, parts)
    ]
    assert len(strengths[0]) == 3
    assert all(strengths[0].values())
    assert strengths[1] == pytest.approx(strengths[0], rel=1e-3, abs=1e-7)


def test_the_discriminator_step_leaves_the_generator_alone():
    state = make_state()
    before = flat(state.generator).clone()
    engine._discriminator_step(state, 0)
    assert torch.equal(before, flat(state.generator))
    assert all(p.grad is None for p in state.generator.parameters())


@pytest.mark.parametrize("settings", [["train.batch_size=1"], ["train.batch_size=2", "train.micro_batch=1"]])
@pytest.mark.filterwarnings("error")
def test_one_image_at_a_time_has_statistics_too(settings):
    stats = engine.step(make_state(*settings))
    assert all(value.isfinite().all() for value in stats.values())


@pytest.mark.parametrize(
    ("steps", "settings"), [*((3, settings) for settings in LOSSES[:4]), (1, ["loss.projected=0.5"])], ids=str
)
def test_micro_batches_give_the_whole_batch_s_update(steps, settings):
    # The network of the heads' features has bends, at which rounding decides after some steps.
    # Adam turns a gradient of rounding noise into a full step; a large eps keeps such parameters where they are.
    settings = [*settings, "optim.eps=1e-3"]
    whole, parts = make_state(*settings), make_state(*settings, "train.micro_batch=2")
    for _ in range(steps):
        engine.step(whole)
        engine.step(parts)
    for name, network in whole.networks.items():
        torch.testing.assert_close(flat(parts.networks[name]), flat(network), rtol=1e-4, atol=2e-5)


def test_a_restored_state_goes_on_exactly():
    straight, stopped = make_state(), make_state()
    for _ in range(2):
        engine.step(straight)
        engine.step(stopped)
    tensors = {name: {k: v.clone() for k, v in group.items()} for name, group in stopped.tensors().items()}
    resumed = make_state()
    resumed.restore(tensors, stopped.info(), "test")
    for _ in range(2):
        engine.step(straight)
        engine.step(resumed)
    for name, network in straight.networks.items():
        assert torch.equal(flat(network), flat(resumed.networks[name])), name
    assert resumed.nimg == straight.nimg == 64


def test_training_does_not_touch_the_global_random_state():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    state = make_state()
    engine.step(state)
    assert torch.equal(torch.rand(3), expected)


def test_the_seed_decides_everything():
    first, second, other = make_state(), make_state(), make_state("train.seed=1")
    for state in (first, second, other):
        engine.step(state)
    assert torch.equal(flat(first.generator), flat(second.generator))
    assert not torch.equal(flat(first.generator), flat(other.generator))


@pytest.mark.parametrize("n_critic", [1, 4])
def test_the_average_halves_in_its_half_life(n_critic):
    """The release's half-life is n_critic times longer than stated."""
    recipe = tiny_recipe("train.ema_kimg=1.6", "train.ema_rampup=0.0", f"train.n_critic={n_critic}")
    steps = 1600 // (recipe.train.batch_size * n_critic)
    assert ema_beta(recipe, 10**6) ** steps == pytest.approx(0.5)


def test_the_average_is_the_weights_at_first_and_lags_later():
    recipe = tiny_recipe("train.ema_rampup=0.1")
    assert ema_beta(recipe, 80) < 0.3 < ema_beta(recipe, 10**6)


@pytest.mark.parametrize(("progress", "expected"), [(0.0, 1.0), (0.6, 1.0), (0.8, 0.5), (1.0, 0.0)])
def test_linear_decay_arrives_at_its_end(progress, expected):
    """The release never writes the learning rate at or past the end step (sheet 4.1, defect 5)."""
    recipe = tiny_recipe("optim.decay=linear")
    assert rate_factor(recipe, 100, progress) == pytest.approx(expected)


def test_each_network_has_its_own_learning_rate():
    """The release gives the discriminator's adamw the generator's rate (sheet 4.1, defect 5)."""
    state = make_state("optim.discriminator_learning_rate=3e-3", "optim.kind=adamw")
    engine.step(state)
    assert state.generator_optimizer.param_groups[0]["lr"] == 1e-3
    assert state.discriminator_optimizer.param_groups[0]["lr"] == 3e-3


def test_the_wgan_eps_penalty_of_a_step_has_its_analytic_value():
    """A linear discriminator with gradient w has the penalty 10 (|w| - 1)^2 wherever it is taken."""
    state = make_state("augment.policy=none", "train.n_critic=1")

    class Linear(torch.nn.Module):
        noise_shapes, group_size = (), 1

        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.full((3 * 16 * 16,), 0.05))

        def forward(self, images, noise=None, *, with_features):
            assert with_features
            return images.flatten(1) @ self.w, images.flatten(1)

    state.discriminator = Linear()
    state.discriminator_optimizer = torch.optim.SGD(state.discriminator.parameters(), 0.0)
    _, stats = engine._discriminator_step(state, 0)
    norm = 0.05 * (3 * 16 * 16) ** 0.5
    assert stats["penalty"].item() == pytest.approx(10 * (norm - 1) ** 2, rel=1e-5)


def test_the_estimated_work_follows_lazy_penalties_and_path_length():
    def flops(*settings):
        return GANTrainer.step_flops(
            tiny_recipe("train.n_critic=1", *settings), {"generator": 2.0, "discriminator": 1.0}
        )

    # D: fakes and 6 forwards; G: 3 forwards of both; a penalty: 6.3 forwards of what it looks at.
    assert flops("loss.gradient_penalty=0.0") == pytest.approx(2 + 6 + 9)
    assert flops() - flops("loss.gradient_penalty=0.0") == pytest.approx(6.3)
    lazy = flops("loss.penalty_interval=16") - flops("loss.gradient_penalty=0.0")
    assert lazy == pytest.approx(6.3 / 16)
    path = ["loss.path_length=2.0", "loss.path_length_interval=4", "loss.path_length_batch_shrink=2"]
    assert flops(*path) - flops() == pytest.approx(2 * 6.3 / 8)
    assert flops(*path, "train.generator_batch_size=16") - flops(
        "train.generator_batch_size=16"
    ) == pytest.approx(2 * 2 * 6.3 / 8)


def test_images_depend_on_seed_and_number_alone():
    state = make_state()
    numbers = torch.tensor([3, 0, 7, 7, 1])
    together = torch.cat(list(generate(state.ema, 5, numbers, state.compute, batch_size=5)))
    alone = torch.cat(list(generate(state.ema, 5, numbers, state.compute, batch_size=1)))
    assert (together.int() - alone.int()).abs().max() <= 1
    assert torch.equal(together[2], together[3])
    assert not torch.equal(together[0], together[1])
