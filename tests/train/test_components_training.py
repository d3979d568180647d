"""What the adversarial engine does for latents of components and layers, and for discriminators that compare images."""

from __future__ import annotations

import json
from itertools import combinations

import pytest
import torch

from gtool.errors import CheckpointError, RecipeError
from gtool.export.files import write_and_check
from gtool.export.parts import of_generator
from gtool.models import registry
from gtool.models.generate import generate, latents
from gtool.sample.latents import interpolate
from gtool.train import gan as engine
from gtool.train.gan import add_path_length
from gtool.train.gan_state import check_networks, random_of
from tests.helpers import components
from tests.helpers.components import COMPONENTS, EVERYTHING, LAYERS, SETTINGS, WIDTH, make_state
from tests.helpers.runs import flat
from tests.helpers.tiny import tiny_recipe


@pytest.fixture(autouse=True)
def _stand_ins(monkeypatch):
    monkeypatch.setattr(registry, "network_module", lambda _name: components.NETWORKS)


def train(steps, *settings):
    state = make_state(*settings)
    return state, [engine.step(state) for _ in range(steps)]


def assert_close(first, second):
    for name, network in first.networks.items():
        torch.testing.assert_close(flat(second.networks[name]), flat(network), rtol=1e-4, atol=2e-6)
    assert second.numbers == pytest.approx(first.numbers, rel=1e-4)


# Latents.


def test_no_two_updates_share_latents_and_no_step_repeats_them():
    """The release trained every stage of a step on one batch of latents (sheet, defect 1)."""
    state = make_state("train.n_critic=2", "loss.path_length=2.0", "loss.path_length_interval=1")
    for _ in range(2):
        engine.step(state)
    seen = [call["z"] for call in state.generator.seen]
    assert [len(z) for z in seen] == [16, 16, 8, 16] * 2  # two updates of D, path length, G
    assert all(not torch.equal(a[:8], b[:8]) for a, b in combinations(seen, 2))


def test_cut_offs_leave_something_of_either_latent_and_come_as_often_as_asked():
    state = make_state("train.batch_size=4000", "loss.style_mixing=0.7", "loss.component_mixing=0.25")
    engine._generator_step(state, None)
    (call,) = state.generator.seen
    for cut_off, count, chance in (("layer", LAYERS, 0.7), ("component", COMPONENTS, 0.25)):
        mixed = call[cut_off] < count
        assert mixed.float().mean().item() == pytest.approx(chance, abs=0.03)
        assert call[cut_off][mixed].unique().tolist() == list(range(1, count))
    # One does not follow from the other.
    both = (call["layer"] < LAYERS) & (call["component"] < COMPONENTS)
    assert both.float().mean().item() == pytest.approx(0.7 * 0.25, abs=0.03)
    assert not torch.equal(call["second"], call["z"])


def test_without_mixing_the_generator_gets_no_second_latents():
    state, _ = train(1)
    assert [call["second"] for call in state.generator.seen] == [None, None]


@pytest.mark.parametrize("asked", ["style_mixing", "component_mixing"])
def test_second_latents_are_used_exactly_where_asked(asked):
    state = make_state(f"loss.{asked}=1.0")
    drawn = engine.Latents.draw(state, 16, "generator")
    (share,) = engine.micro_batches(state, 16)
    _, ws = engine.generate(state, drawn, share, with_ws=True)
    first, second = (state.generator.mapping(z).unsqueeze(1) for z in (drawn.z, drawn.mixing["second"]))
    axis = 1 if asked == "style_mixing" else 2
    places = torch.arange(ws.shape[axis]).view([-1 if dim == axis else 1 for dim in range(4)])
    (cut_off,) = (values for name, values in drawn.mixing.items() if name != "second")
    expected = torch.where(places >= cut_off.view(-1, 1, 1, 1), second, first)
    torch.testing.assert_close(ws, expected.expand_as(ws))


def test_images_of_components_depend_on_seed_and_number_alone():
    state = make_state()
    z = latents(state.ema, 5, torch.tensor([3, 0, 7]))
    assert z.shape == (3, COMPONENTS, WIDTH)
    assert torch.equal(z[2:], latents(state.ema, 5, torch.tensor([7])))
    together = torch.cat(list(generate(state.ema, 5, torch.tensor([3, 0, 7]), state.compute, batch_size=3)))
    alone = torch.cat(list(generate(state.ema, 5, torch.tensor([3, 0, 7]), state.compute, batch_size=1)))
    assert (together.int() - alone.int()).abs().max() <= 1


def test_a_walk_takes_each_component_along_its_own_great_circle():
    stations = torch.randn(3, COMPONENTS, WIDTH, generator=torch.Generator().manual_seed(0))
    walk = interpolate(stations, 4)
    assert walk.shape == (12, COMPONENTS, WIDTH)
    alone = [interpolate(stations[:, component], 4) for component in range(COMPONENTS)]
    torch.testing.assert_close(walk, torch.stack(alone, dim=1))
    torch.testing.assert_close(walk[::4], stations)


@pytest.mark.parametrize("kind", ["pt2", "onnx"])
def test_exported_files_take_latents_of_components(kind, tmp_path):
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
    meta = {"model": "transgan", "config": {"resolution": components.RESOLUTION}}
    exportable = of_generator(Exported(), meta)["generator"]
    assert exportable.description["input"].startswith(f"z (N, {COMPONENTS}, {WIDTH}) float32")
    assert write_and_check(exportable, tmp_path / f"file.{kind}", kind) < 1e-4


class Exported(components.Generator):
    """The stand-in without its memory, which no file could have."""

    def forward(self, z, noise=None):
        """Make images."""
        ws = self.mapping(z).unsqueeze(1).expand(-1, LAYERS, -1, -1)
        return self.paint(ws.flatten(1)).view(-1, 3, components.RESOLUTION, components.RESOLUTION)


# Path length.


def path_lengths_of(state, batch):
    """Lengths for a generator that is linear in ws: those of the rows of its matrix, weighted by the direction."""
    random = random_of(state, "direction-path-length")
    direction = torch.randn(batch, 3, components.RESOLUTION, components.RESOLUTION, generator=random)
    gradient = (
        direction.flatten(1) @ state.generator.paint.weight.detach() / components.RESOLUTION
    )  # (N, L K d)
    return gradient.view(batch, LAYERS, -1).square().sum(2).mean(1).sqrt()


def test_path_length_of_a_linear_generator_is_known():
    """The release sums the wrong axis for components and fails on the shape (sheet, defect 4)."""
    state = make_state("loss.path_length=2.0", "loss.path_length_decay=0.25")
    state.path_length.fill_(0.3)
    expected = path_lengths_of(state, 8)  # one in two images of 16
    stats = engine.step(state)
    assert stats["path_length"].item() == pytest.approx(expected.mean().item(), rel=1e-5)
    penalty = 2 * (expected - 0.3).square().mean().item()
    assert stats["path_penalty"].item() == pytest.approx(penalty, rel=1e-5)
    mean = 0.75 * 0.3 + 0.25 * expected.mean().item()
    assert state.numbers["path_length"] == pytest.approx(mean, rel=1e-5)


def test_path_length_trains_the_generator_on_its_interval_with_its_weight():
    settings = ["loss.path_length=2.0", "loss.path_length_interval=3", "loss.path_length_batch_shrink=4"]
    state = make_state(*settings)
    weight = state.generator.paint.weight
    lengths = path_lengths_of(state, 4)
    add_path_length(state, 16)
    # With a mean of 0 the penalty is quadratic in the weights: its gradient times the weights is twice its value.
    twice = (weight.grad * weight.detach()).sum().item()
    assert twice == pytest.approx(2 * 3 * 2 * lengths.square().mean().item(), rel=1e-4)
    due = ["path_length" in stats for stats in train(7, *settings)[1]]
    assert due == [True, False, False, True, False, False, True]


def test_a_step_without_path_length_is_not_changed_by_its_other_keys():
    plain, _ = train(2)
    keys, _ = train(2, "loss.path_length_interval=1", "loss.path_length_batch_shrink=3", "augment.kimg=1.0")
    assert torch.equal(flat(plain.generator), flat(keys.generator))


# Lazy regularisation.


@pytest.mark.parametrize(
    ("settings", "generator", "discriminator"),
    [
        (["loss.path_length=2.0", "loss.r1_gamma=1.0", "loss.penalty_interval=16"], 4 / 5, 16 / 17),
        (["loss.r1_gamma=1.0", "loss.penalty_interval=16"], 1.0, 16 / 17),
        (["loss.r1_gamma=1.0", "loss.penalty_interval=16", "optim.generator_reg_interval=4"], 4 / 5, 16 / 17),
        (["loss.r1_gamma=1.0"], 1.0, 1.0),
        (["loss.penalty_interval=16"], 1.0, 1.0),
    ],
    ids=str,
)
def test_lazy_intervals_rescale_learning_rates_and_betas(settings, generator, discriminator):
    state, _ = train(1, *settings, "optim.lazy_rescale=true", "optim.betas=[0.5, 0.99]")
    for optimizer, share in (
        (state.generator_optimizer, generator),
        (state.discriminator_optimizer, discriminator),
    ):
        (group,) = optimizer.param_groups
        assert group["lr"] == pytest.approx(1e-3 * share)
        assert group["betas"] == pytest.approx((0.5**share, 0.99**share))


def test_nothing_is_rescaled_unless_asked():
    state, _ = train(1, "loss.r1_gamma=1.0", "loss.penalty_interval=16", "loss.path_length=2.0")
    groups = [o.param_groups[0] for o in (state.generator_optimizer, state.discriminator_optimizer)]
    assert [(group["lr"], group["betas"]) for group in groups] == [(1e-3, (0.0, 0.99))] * 2


def test_penalties_on_reals_and_on_fakes_are_the_sum_of_each_alone():
    r1, r2, both = (
        engine.step(make_state(*(f"loss.{weight}" for weight in weights)))["penalty"].item()
        for weights in (["r1_gamma=2.0"], ["r2_gamma=3.0"], ["r1_gamma=2.0", "r2_gamma=3.0"])
    )
    assert both == pytest.approx(r1 + r2, rel=1e-5)
    assert r1 > 0 < r2


# Adaptive augmentation.


def certain(state, logit):
    """Make the discriminator give every real image this logit."""
    torch.nn.init.zeros_(state.discriminator.logit.weight)
    torch.nn.init.constant_(state.discriminator.logit.bias, logit)
    for group in state.discriminator_optimizer.param_groups:
        group["lr"] = 0.0


ADAPTIVE = ["augment.policy=ada", "augment.target=0.6", "augment.kimg=1.0", "optim.learning_rate=1e-9"]


def test_augmentation_rises_while_the_discriminator_is_certain_and_falls_when_it_is_not():
    state = make_state(*ADAPTIVE)
    certain(state, 5.0)
    seen = [engine.step(state)["augment_p"].item() for _ in range(9)]
    # 4 steps of 16 images are 64 of 1000.
    assert seen == pytest.approx([0.0] * 4 + [0.064] * 4 + [0.128])
    certain(state, -5.0)
    for _ in range(11):
        engine.step(state)
    assert state.augment_p == pytest.approx(0.0)  # 0.128 - 3 x 0.064, and never below 0


def test_augmentation_counts_every_real_image_and_ends_at_one():
    state = make_state(*ADAPTIVE, "train.n_critic=3", "augment.kimg=0.1")
    certain(state, 5.0)
    for _ in range(4):
        engine.step(state)
    assert state.augment_p == 1.0  # 192 images of 100


def test_augmentation_is_fixed_without_a_target():
    state, stats = train(4, "augment.policy=ada", "augment.p=0.3")
    assert state.augment_p == 0.3
    assert "augment_p" not in stats[-1]


def test_no_augmentation_is_what_a_probability_of_zero_is():
    plain, _ = train(2)
    zero, _ = train(2, "augment.policy=ada,cutout:1,color", "augment.p=0.0")
    assert torch.equal(flat(plain.generator), flat(zero.generator))


# Shares, resume.


def test_micro_batches_give_the_whole_batch_s_update():
    whole, _ = train(5, *EVERYTHING)
    parts, _ = train(5, *EVERYTHING, "train.micro_batch=4")
    assert_close(whole, parts)
    assert whole.augment_p > 0 < whole.path_length


def test_groups_stay_whole_in_every_kind_of_penalty():
    settings = ["loss.gradient_penalty=1.0", "loss.r1_gamma=1.0", "loss.r2_gamma=0.5"]
    whole, _ = train(3, *settings)
    parts, _ = train(3, *settings, "train.micro_batch=2")
    assert_close(whole, parts)


@pytest.mark.parametrize("stop", [2, 5])
def test_a_restored_state_goes_on_exactly_with_all_that_it_remembers(stop):
    straight, _ = train(8, *EVERYTHING)
    stopped, _ = train(stop, *EVERYTHING)
    tensors = {name: {k: v.clone() for k, v in group.items()} for name, group in stopped.tensors().items()}
    info = json.loads(json.dumps(stopped.info()))
    assert info["numbers"]["path_length"] > 0
    resumed = make_state(*EVERYTHING)
    resumed.restore(tensors, info, "test")
    for _ in range(8 - stop):
        engine.step(resumed)
    assert resumed.numbers == straight.numbers
    assert straight.augment_p > 0
    for name, network in straight.networks.items():
        assert torch.equal(flat(network), flat(resumed.networks[name])), name


def test_a_state_without_what_training_remembers_is_refused():
    state, _ = train(1)
    tensors, info = state.tensors(), state.info()
    without = {name: value for name, value in info.items() if name != "numbers"}
    for damaged in (without, info | {"numbers": {"augment_p": "much"}}):
        with pytest.raises(CheckpointError, match="not a readable state: `numbers"):
            make_state().restore(tensors, damaged, "test")


def test_the_average_has_the_buffers_of_the_generator():
    state, _ = train(3)
    assert state.ema.calls.item() == state.generator.calls.item() == 6


# Refusals.


@pytest.mark.parametrize(
    "setting", ["train.batch_size=15", "train.micro_batch=1", "train.generator_batch_size=9"]
)
def test_batches_that_would_cut_a_group_are_refused_before_any_data_is_read(setting):
    recipe = tiny_recipe(*SETTINGS, setting)
    with pytest.raises(RecipeError, match=r"^train\.\w+ = \d+: images are compared in groups of 2"):
        check_networks(recipe, None, 1)


def test_processes_that_would_cut_a_group_are_refused():
    recipe = tiny_recipe(*SETTINGS, "train.batch_size=6")
    check_networks(recipe, None, 1)
    with pytest.raises(RecipeError, match="the 3 that are seen .*; 8 would do$"):
        check_networks(recipe, None, 2)


@pytest.mark.parametrize("key", ["path_length", "style_mixing", "component_mixing"])
def test_what_needs_layers_or_components_is_refused_where_there_are_none(key, monkeypatch):
    recipe = tiny_recipe(*SETTINGS, f"loss.{key}=0.5")
    check_networks(recipe, None, 1)
    monkeypatch.delattr(components.Generator, "num_ws")
    with pytest.raises(RecipeError, match=rf"^loss\.{key}: .* no latent for each"):
        check_networks(recipe, None, 1)


def test_mixing_components_needs_two_of_them(monkeypatch):
    monkeypatch.setattr(components.Generator, "z_shape", (1, WIDTH))
    with pytest.raises(RecipeError, match="one latent for each component"):
        check_networks(tiny_recipe(*SETTINGS, "loss.component_mixing=0.5"), None, 1)
