"""Threads that share a batch train as one does, whatever else keeps the machine busy."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gtool.config.recipe import to_toml
from gtool.models import registry
from gtool.runtime.device import make_compute
from tests.helpers import components, in_processes
from tests.helpers.tiny import save_tokenizer, tiny_prior, tiny_recipe, tiny_tokenizer


class Busy:
    """A machine that leaves so many cores."""

    def __init__(self, cores: int) -> None:
        self.cores = cores

    def free_cores(self, most: int) -> int:
        return min(self.cores, most)


def with_threads(count: int, free: int = 8):
    return replace(make_compute("cpu", "fp32"), threads=count, load=Busy(free))


RECIPES = {
    "transgan": tiny_recipe("optim.eps=1e-3", "train.share_fakes=true"),
    "energy distance": tiny_recipe("optim.eps=1e-3", "train.share_fakes=true", "loss.energy_distance=1"),
    "vqgan": tiny_tokenizer(
        "reconstruction.discriminator_start=0.0", "reconstruction.adversarial_start=0.2", "optim.eps=1e-3"
    ),
    "prior": tiny_prior("prior.token_keep_prob=0.9"),
}


@pytest.fixture
def trained(tmp_path, request):
    """A function from a number of threads, and of cores that are free, to the networks after three steps."""
    recipe = RECIPES[request.param]
    if request.param == "prior":
        tokenizer = save_tokenizer(tmp_path / "tokenizer/weights-000001.safetensors")
        recipe = recipe.model_copy(
            update={"prior": recipe.prior.model_copy(update={"tokenizer": str(tokenizer)})}
        )
    (tmp_path / f"{request.param}.toml").write_text(to_toml(recipe), encoding="utf-8")
    return lambda *threads: in_processes.train(tmp_path / f"{request.param}.toml", with_threads(*threads))


@pytest.mark.parametrize("trained", RECIPES, indirect=True)
def test_a_batch_in_two_shares_takes_the_steps_of_a_whole_one(trained):
    whole, shared = trained(1), trained(2)
    for key, value in whole.items():
        torch.testing.assert_close(shared[key], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("trained", RECIPES, indirect=True)
def test_a_busy_machine_changes_no_bit(trained):
    free, busy = trained(2, 2), trained(2, 1)
    assert all(torch.equal(value, busy[key]) for key, value in free.items())


def test_regularizers_and_augmentation_in_two_shares_are_those_of_a_whole_batch(monkeypatch):
    monkeypatch.setattr(registry, "network_module", lambda _name: components.NETWORKS)
    whole, shared = (in_processes.train_components(with_threads(count)) for count in (1, 2))
    for key, value in whole.items():
        torch.testing.assert_close(shared[key], value, rtol=1e-4, atol=2e-6)


def test_an_odd_batch_is_one_share_that_all_threads_work_on():
    compute, before = with_threads(2), torch.get_num_threads()
    assert compute.map(lambda part: (part, torch.get_num_threads()), ["all"]) == [("all", 2)]
    assert torch.get_num_threads() == before
    assert compute.map(lambda part: (part, torch.get_num_threads()), ["a", "b", "c"]) == [
        ("a", 1),
        ("b", 1),
        ("c", 1),
    ]


def test_many_threads_work_on_a_few_shares():
    compute = with_threads(8)
    assert [compute.shares(images, group) for images, group in ((16, 1), (16, 8), (6, 1), (7, 1))] == [
        4,
        2,
        3,
        1,
    ]
    assert compute.map(lambda part: torch.get_num_threads(), range(4)) == [2] * 4
    assert compute.map(lambda part: torch.get_num_threads(), range(2)) == [4] * 2


def test_an_error_in_a_share_is_that_of_the_step():
    def fail(part: int) -> None:
        raise ValueError(f"share {part}")

    with pytest.raises(ValueError, match="share 0"):
        with_threads(2).map(fail, range(2))
