"""Training of a prior over the codes of a tokenizer: init_state, step, measure.

Esser, Rombach and Ommer 2020, "Taming Transformers", section 3.2: maximum likelihood of the next code, given those
before it and a condition. The tokenizer is frozen; the codes of all images are computed once, before training.

Axis letters: N images of the global batch, n of one share; L codes of an image, M condition tokens, K codes there are.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gtool.config.recipe import Recipe
from gtool.data.loader import read_images
from gtool.data.pixel_cache import ImageSet
from gtool.models import registry
from gtool.models.prior.autoregressive import Choice, Request, compose
from gtool.models.prior.config import SPATIAL
from gtool.models.prior.network import decay_groups
from gtool.nn.ranges import to_pm1, to_uint8
from gtool.runtime.device import Compute
from gtool.runtime.random import derive_seed, hashed_uniform
from gtool.runtime.torch_random import make_generator
from gtool.train.optim import average, clip_and_step, make_optimizer, set_rate
from gtool.train.resume import TrainingState
from gtool.train.schedules import ema_beta, rate_factor

CHUNK = 64  # sequences that are measured at a time


class Sequences(Protocol):
    """Endless shares of global batches of codes with their conditions, in an order that is a function of the seed."""

    position: int

    def next(self, batch_size: int) -> tuple[Tensor, Tensor]:
        """Return this process's share of the next batch: codes (n, h, w) and conditions (n, M), int64."""
        ...


@dataclass(kw_only=True)
class State(TrainingState):
    """Everything that training changes; `prior` is wrapped when there are processes.

    `ema` holds the averaged prior and the tokenizer: what is saved as weights, and samples.
    """

    batches: Any = None  # Sequences: they are made of codes, and codes by `ema`, so they are set after it
    prior: nn.Module
    ema: Any
    optimizer: Any

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The bare networks by the names they are saved under."""
        return {"prior": self.bare(self.prior), "ema": self.ema}

    @property
    def optimizers(self) -> dict[str, tuple[nn.Module, Any]]:
        """The optimizer with its network, by the name it is saved under."""
        return {"optimizer": (self.networks["prior"], self.optimizer)}


def init_state(recipe: Recipe, config: Any, tokenizer: Mapping[str, Tensor], compute: Compute) -> State:
    """Build the prior (a function of the seed alone), its average beside the tokenizer, and the optimizer.

    tokenizer: the tensors of its weights file.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(make_generator(recipe.train.seed, "init").initial_seed())
        (composer,) = registry.networks(recipe.model_name).build(config)
    composer.tokenizer.load_state_dict(dict(tokenizer))
    ema = composer.to(compute.device).eval().requires_grad_(False)
    prior = copy.deepcopy(ema.prior).train().requires_grad_(True)
    if recipe.train.compile:
        prior.compile()
    optimizer = make_optimizer(recipe.optim, decay_groups(prior, recipe.optim.weight_decay))
    prepare = compute.accelerator.prepare
    return State(
        recipe=recipe,
        compute=compute,
        prior=prepare(prior),
        ema=ema,
        optimizer=prepare(optimizer),
    )


def step(state: State) -> dict[str, Tensor]:
    """Update the prior once; returns scalar statistics on the device."""
    recipe, compute = state.recipe, state.compute
    factor = rate_factor(recipe, state.steps, state.progress)
    set_rate(state.optimizer, recipe.optim.learning_rate * factor)
    first = state.position  # of the batch, in the order of all sequences
    codes, conditions = (x.to(compute.device) for x in state.batches.next(recipe.train.batch_size))
    read, conditions = _replaced(state, codes, first), _told(state, conditions, first)
    state.optimizer.zero_grad(set_to_none=True)
    share = len(codes)
    size = min(recipe.train.micro_batch or share, share)
    losses = []
    for start in range(0, share, size):
        part = slice(start, start + size)
        is_last = start + size >= share
        with _sync(state, is_last):
            with compute.autocast():
                logits = state.prior(conditions[part], read[part])
            loss = cross_entropy(state, logits, codes[part])
            compute.accelerator.backward(loss * (len(codes[part]) / share))
        losses.append(loss.detach())
    norm = clip_and_step(compute, state.prior, state.optimizer, recipe.optim.clip_norm)
    state.nimg += recipe.train.batch_size
    average(state.ema.prior, state.networks["prior"], ema_beta(recipe, state.nimg))
    state.steps += 1
    return {"nll": torch.stack(losses).mean(), "grad_norm": norm}


def cross_entropy(state: State, logits: Tensor, codes: Tensor) -> Tensor:
    """Return the mean of -log p in nats of codes (n, h, w), of logits (n, L, K) in the prior's order."""
    wanted = state.ema.prior.in_order(codes)  # (n, L)
    return F.cross_entropy(logits.float().flatten(0, 1), wanted.flatten())


def _sync(state: State, is_last: bool) -> Any:
    from contextlib import nullcontext

    return nullcontext() if is_last else state.compute.accelerator.no_sync(state.prior)


def _replaced(state: State, codes: Tensor, first: int) -> Tensor:
    """Return codes of which some are others at random: what the prior reads, not what it is to say (`pkeep`).

    Each is a function of the seed and of the place of its sequence in the order of all, whatever process has it.
    """
    keep = state.recipe.prior.keep
    if keep == 1:
        return codes
    n, length = len(codes), codes[0].numel()
    start = first + state.compute.rank * n
    hashed = hashed_uniform(state.recipe.train.seed, np.arange(start, start + n), 2 * length, "keep")
    random = torch.from_numpy(hashed).to(codes.device)
    others = (random[:, :length] * state.ema.tokenizer.codebook_size).long().view_as(codes)
    return torch.where((random[:, length:] < keep).view_as(codes), codes, others)


def _told(state: State, conditions: Tensor, first: int) -> Tensor:
    """Return conditions (n, M) of which some say nothing: the last id, everywhere; chosen as in `_replaced`."""
    untold, size = state.recipe.prior.untold, state.ema.prior.config.condition_size
    if not untold or size == 1:
        return conditions
    n = len(conditions)
    start = first + state.compute.rank * n
    hashed = hashed_uniform(state.recipe.train.seed, np.arange(start, start + n), 1, "told")
    is_untold = torch.from_numpy(hashed < untold).to(conditions.device)  # (n, 1)
    return conditions.masked_fill(is_untold, size - 1)


# The progress metric.


@dataclass(frozen=True)
class HeldOut:
    """Sequences that training never sees."""

    codes: Tensor  # (N, h, w)
    conditions: Tensor  # (N, M)
    images: Tensor  # uint8 (n, 3, R, R), of the first of them
    maps: np.ndarray | None  # (n, R, R) likewise, where there are label maps


@torch.no_grad()
def measure(state: State, held_out: HeldOut) -> dict[str, float]:
    """Return nats a code of held-out images: of the prior, with the conditions of other images, and without context.

    `nll_shuffled` is there where conditions differ; `unigram` is the entropy of the codes by themselves, which a
    prior that has learned nothing of their order comes down to.
    """
    codes, conditions = held_out.codes, held_out.conditions
    found = {"nll": _mean_nll(state, codes, conditions)}
    if len(torch.unique(conditions, dim=0)) > 1:
        found["nll_shuffled"] = _mean_nll(state, codes, conditions.roll(1, dims=0))
    counts = torch.bincount(codes.flatten(), minlength=state.ema.tokenizer.codebook_size).double()
    shares = counts[counts > 0] / counts.sum()
    found["unigram"] = float(-(shares * shares.log()).sum())
    return found


def _mean_nll(state: State, codes: Tensor, conditions: Tensor) -> float:
    total, device = 0.0, state.compute.device
    for start in range(0, len(codes), CHUNK):
        part = slice(start, start + CHUNK)
        own = codes[part].to(device)
        with state.compute.autocast():
            logits = state.ema.prior(conditions[part].to(device), own)
        total += float(cross_entropy(state, logits, own)) * len(own)
    return total / len(codes)


# Pictures.


def encode_all(tokenizer: Any, images: ImageSet, compute: Compute, *, flips: bool) -> Iterator[Tensor]:
    """Yield the codes (n, h, w) of all images, then, with `flips`, of all of them mirrored."""
    for mirrored in (False, True) if flips else (False,):
        for start in range(0, len(images), CHUNK):
            indices = np.arange(start, min(start + CHUNK, len(images)))
            read = read_images(images, indices, np.full(len(indices), mirrored))
            with torch.no_grad(), compute.autocast():
                yield tokenizer.encode(to_pm1(read.to(compute.device))).cpu()


@torch.no_grad()
def decode(composer: Any, codes: Tensor, compute: Compute) -> Tensor:
    """Return the images, uint8 (N, 3, H, W) on the CPU, of codes (N, h, w)."""
    made = []
    for start in range(0, len(codes), CHUNK):
        part = codes[start : start + CHUNK].to(compute.device)
        with compute.autocast():
            made.append(to_uint8(composer.tokenizer.decode(part)).cpu())
    return torch.cat(made)


def preview(state: State, held_out: HeldOut) -> Tensor:
    """Compose pictures of the conditions of the first held-out images, always with the same chances: uint8."""
    count, prior = len(held_out.images), state.ema.prior
    request = Request(
        condition=given(prior, held_out.conditions[:count]),
        indices=torch.arange(count),
        seed=derive_seed("preview", state.recipe.train.seed),
        choice=Choice(top_k=state.recipe.prior.preview_top_k),
    )
    codes = compose(prior, request, state.compute)
    return decode(state.ema, codes, state.compute)


def given(prior: Any, ids: Tensor) -> Tensor:
    """Return ids (N, M) as `compose` takes them: (N, 1), or (N, h, w) where each cell has one."""
    return ids.view(-1, *prior.config.grid) if prior.config.condition in SPATIAL else ids
