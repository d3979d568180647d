"""Training of a tokenizer: an autoencoder through a codebook, and a discriminator of patches: init_state, step.

Esser, Rombach and Ommer 2020, "Taming Transformers", section 3.1. Against the released code: the autoencoder runs
once a step, and the discriminator sees that reconstruction; nothing adversarial is computed before its time; the
discriminator learns alone for a while before the decoder listens, whose adversarial term then grows to its weight;
starts are shares of the run, so they mean the same at every batch size and number of processes; codes that nothing
was mapped to begin anew.

Axis letters: N images of the global batch, n of one share; R resolution.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gtool.config.recipe import Recipe
from gtool.losses import adversarial as adversarial_losses
from gtool.losses import codes as codes_losses
from gtool.losses import reconstruction as losses
from gtool.losses.perceptual import LPIPS
from gtool.models import registry
from gtool.models.vqgan.network import Tokenized
from gtool.nn.ranges import to_pm1, to_uint8
from gtool.runtime.device import Compute
from gtool.runtime.torch_random import make_generator
from gtool.train.gan_state import Batches
from gtool.train.optim import average, clip_and_step, make_optimizer, set_rate
from gtool.train.resume import TrainingState
from gtool.train.schedules import ema_beta, rate_factor

CHUNK = 64  # images that are reconstructed at a time


class Usage(nn.Module):
    """How often each code was used since the last look for unused ones, over all processes: a part of the state."""

    counts: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("counts", torch.zeros(size, dtype=torch.int64))


@dataclass(kw_only=True)
class State(TrainingState):
    """Everything that training changes; networks are wrapped when there are processes."""

    batches: Batches
    tokenizer: nn.Module
    discriminator: nn.Module
    ema: Any
    tokenizer_optimizer: Any
    discriminator_optimizer: Any
    usage: Usage
    lpips: LPIPS | None  # frozen

    @property
    def bare_tokenizer(self) -> Any:
        """The tokenizer without what wraps it when there are processes."""
        return self.bare(self.tokenizer)

    @property
    def bare_discriminator(self) -> Any:
        """The discriminator without what wraps it when there are processes."""
        return self.bare(self.discriminator)

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The bare networks by the names they are saved under."""
        return {
            "tokenizer": self.bare_tokenizer,
            "discriminator": self.bare_discriminator,
            "ema": self.ema,
            "usage": self.usage,
        }

    @property
    def optimizers(self) -> dict[str, tuple[nn.Module, Any]]:
        """The optimizers with their networks, by the names they are saved under."""
        return {
            "tokenizer_optimizer": (self.bare_tokenizer, self.tokenizer_optimizer),
            "discriminator_optimizer": (self.bare_discriminator, self.discriminator_optimizer),
        }


def init_state(recipe: Recipe, config: Any, batches: Batches, compute: Compute) -> State:
    """Build networks (a function of the seed alone), average and optimizers at step 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(make_generator(recipe.train.seed, "init").initial_seed())
        tokenizer, discriminator = registry.networks(recipe.model_name).build(config)
    tokenizer, discriminator = tokenizer.to(compute.device), discriminator.to(compute.device)
    ema = copy.deepcopy(tokenizer).eval().requires_grad_(False)
    if recipe.train.compile:
        tokenizer.compile()
        discriminator.compile()
    optimizers = [
        make_optimizer(recipe.optim, network.parameters(), rate)
        for network, rate in zip((tokenizer, discriminator), _rates(recipe), strict=True)
    ]
    prepare = compute.accelerator.prepare
    return State(
        recipe=recipe,
        compute=compute,
        batches=batches,
        tokenizer=prepare(tokenizer),
        discriminator=prepare(discriminator),
        ema=ema,
        tokenizer_optimizer=prepare(optimizers[0]),
        discriminator_optimizer=prepare(optimizers[1]),
        usage=Usage(config.codebook_size).to(compute.device),
        lpips=_load_lpips(recipe, compute),
    )


def _load_lpips(recipe: Recipe, compute: Compute) -> LPIPS | None:
    weights = recipe.reconstruction
    if weights.perceptual_kind != "lpips" or not weights.perceptual:
        return None
    lpips = LPIPS.from_files(Path(str(weights.lpips_vgg)), Path(str(weights.lpips_heads)))
    return lpips.to(compute.device)


def step(state: State) -> dict[str, Tensor]:
    """Update tokenizer and discriminator once; returns scalar statistics on the device."""
    recipe = state.recipe
    _set_learning_rates(state)
    real = to_pm1(state.batches.next(recipe.train.batch_size).to(state.compute.device, non_blocking=True))
    made, stats = _tokenizer_step(state, real)
    if _is_judged(state):
        stats |= _discriminator_step(state, real, made.reconstruction.detach())
    state.nimg += recipe.train.batch_size
    average(state.ema, state.bare_tokenizer, ema_beta(recipe, state.nimg))
    _restart(state, made)
    state.steps += 1
    return stats


def adversarial_factor(recipe: Recipe, progress: float) -> float:
    """Return the share of its weight that the adversarial term has: 0 before its start, then a ramp to 1."""
    loss = recipe.reconstruction
    if progress < loss.adversarial_start or not loss.adversarial:
        return 0.0
    if not loss.adversarial_ramp:
        return 1.0
    return min(1.0, (progress - loss.adversarial_start) / loss.adversarial_ramp)


def _is_judged(state: State) -> bool:
    loss = state.recipe.reconstruction
    return loss.adversarial > 0 and state.progress >= loss.discriminator_start


def _tokenizer_step(state: State, real: Tensor) -> tuple[Tokenized, dict[str, Tensor]]:
    weights, compute = state.recipe.reconstruction, state.compute
    state.bare_discriminator.requires_grad_(False)
    state.tokenizer_optimizer.zero_grad(set_to_none=True)
    with compute.autocast():
        made = state.tokenizer(real)
    # Losses are differentiated to the reconstruction first: what balances them needs their gradients at the last
    # layer, and from here both go through the tokenizer as one.
    leaf = made.reconstruction.detach().requires_grad_()
    terms = _reconstruction_terms(state, real, leaf)
    stats = {name: value for name, (_, value) in terms.items()}
    fidelity = torch.stack([weight * value for weight, value in terms.values()]).sum()
    (slope,) = torch.autograd.grad(fidelity, leaf)
    if factor := adversarial_factor(state.recipe, state.progress):
        judged, matched = _judged(state, real, leaf)
        (of_judged,) = torch.autograd.grad(judged, leaf, retain_graph=matched is not None)
        weight = slope.new_tensor(factor * weights.adversarial)
        if weights.adaptive:
            weight = weight * _balance(state, made.reconstruction, slope, of_judged)
        slope = slope + weight * of_judged
        stats |= {"generator_loss": judged, "adversarial_weight": weight}
        if matched is not None:
            (of_matched,) = torch.autograd.grad(matched, leaf)
            slope = slope + factor * weights.feature_matching * of_matched
            stats["feature_matching"] = matched
    stats |= {"quantizer_loss": made.quantizer_loss, "mse": F.mse_loss(leaf, real)}
    compute.accelerator.backward((made.reconstruction * slope).sum() + weights.codebook * made.quantizer_loss)
    stats["grad_norm"] = clip_and_step(
        compute, state.tokenizer, state.tokenizer_optimizer, state.recipe.optim.clip_norm
    )
    return made, {name: value.detach() for name, value in stats.items()}


def _judged(state: State, real: Tensor, made: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return what the discriminator holds against reconstructions, and how far they are apart in its features."""
    judge, matched = state.bare_discriminator, None
    with state.compute.autocast():
        found = judge.features(made)
        logits = judge.last(found[-1])
        if state.recipe.reconstruction.feature_matching:
            with torch.no_grad():
                wanted = judge.features(real)
            matched = losses.feature_matching(found, wanted)
    return adversarial_losses.generator_loss("hinge", logits.flatten()), matched


def _reconstruction_terms(state: State, real: Tensor, made: Tensor) -> dict[str, tuple[float, Tensor]]:
    """Return weight and value of what says how near a reconstruction is."""
    weights = state.recipe.reconstruction
    terms: dict[str, tuple[float, Tensor]] = {"l1": (weights.l1, losses.l1(made, real))}
    if state.lpips is not None:
        with state.compute.autocast():
            terms["lpips"] = (weights.perceptual, state.lpips(made, real).mean())
    elif weights.perceptual:
        terms["gradients"] = (weights.perceptual, losses.multiscale_gradients(made, real))
    return terms


def _balance(state: State, made: Tensor, of_fidelity: Tensor, of_judged: Tensor) -> Tensor:
    """Return |d fidelity / d last layer| / |d judged / d last layer| up to its bound, of the batch of all processes.

    Args:
        state: for the last layer, and the other processes.
        made: reconstructions, with their graph.
        of_fidelity: gradient of the one loss at the reconstructions.
        of_judged: of the other.
    """
    last = state.bare_tokenizer.last_layer
    slopes = [torch.autograd.grad(made, last, own, retain_graph=True)[0] for own in (of_fidelity, of_judged)]
    first, second = (state.compute.mean(slope) for slope in slopes)
    return losses.adaptive_weight(first, second, weight=1.0, most=state.recipe.reconstruction.adaptive_most)


def _discriminator_step(state: State, real: Tensor, made: Tensor) -> dict[str, Tensor]:
    state.bare_discriminator.requires_grad_(True)
    state.discriminator_optimizer.zero_grad(set_to_none=True)
    with state.compute.autocast():
        # One call for both: the wrapper for processes wants one forward for each backward.
        logits = state.discriminator(torch.cat([real, made])).float()
    of_real, of_made = (half.flatten() for half in logits.chunk(2))
    loss = 0.5 * adversarial_losses.discriminator_loss("hinge", of_real, of_made)
    state.compute.accelerator.backward(loss)
    norm = clip_and_step(
        state.compute, state.discriminator, state.discriminator_optimizer, state.recipe.optim.clip_norm
    )
    stats = {"discriminator_loss": loss, "real_logit": of_real.mean(), "fake_logit": of_made.mean()}
    return {name: value.detach() for name, value in stats.items()} | {"discriminator_grad_norm": norm}


def _set_learning_rates(state: State) -> None:
    factor = rate_factor(state.recipe, state.steps, state.progress)
    optimizers = (state.tokenizer_optimizer, state.discriminator_optimizer)
    for optimizer, rate in zip(optimizers, _rates(state.recipe), strict=True):
        set_rate(optimizer, rate * factor)


def _rates(recipe: Recipe) -> tuple[float, float]:
    """Return the learning rates of tokenizer and discriminator before any schedule."""
    optim = recipe.optim
    return optim.learning_rate, optim.discriminator_learning_rate or optim.learning_rate


@torch.no_grad()
def _restart(state: State, made: Tokenized) -> None:
    """Count codes, and now and then let those that nothing was mapped to begin anew at vectors of this batch."""
    weights, compute = state.recipe.reconstruction, state.compute
    has_table = any(True for _ in state.bare_tokenizer.quantizer.parameters())
    if not (has_table and weights.restart_interval) or state.progress > weights.restart_until:
        return
    counts = codes_losses.count_codes(made.codes, len(state.usage.counts))
    state.usage.counts += counts if compute.world_size == 1 else compute.accelerator.reduce(counts)
    if (state.steps + 1) % weights.restart_interval:
        return
    vectors = made.vectors.detach()
    if compute.world_size > 1:
        vectors = compute.accelerator.gather(vectors)  # in the order of the global batch
    quantizer, unused = state.bare_tokenizer.quantizer, state.usage.counts == 0
    random = make_generator(state.recipe.train.seed, "restart", state.steps)
    quantizer.restart(vectors, state.usage.counts, random)
    # An entry that has jumped is no neighbour of what the average remembers of it.
    for averaged, trained in zip(state.ema.quantizer.parameters(), quantizer.parameters(), strict=True):
        averaged[unused] = trained[unused]
    state.usage.counts.zero_()


# The progress metric.


@torch.no_grad()
def reconstruct(tokenizer: Any, images: Tensor, compute: Compute) -> tuple[Tensor, Tensor]:
    """Return reconstructions, uint8 (N, 3, R, R), and codes (N, h, w) of uint8 images, both on the CPU."""
    made, codes = [], []
    for start in range(0, len(images), CHUNK):
        real = to_pm1(images[start : start + CHUNK].to(compute.device))
        with compute.autocast():
            found = tokenizer(real)
        made.append(to_uint8(found.reconstruction).cpu())
        codes.append(found.codes.cpu())
    return torch.cat(made), torch.cat(codes)


def measure(tokenizer: Any, held_out: Tensor, compute: Compute) -> dict[str, float]:
    """Score the reconstructions of images that training never sees, uint8 (N, 3, R, R).

    mse: of 8-bit values. psnr: dB, of every image's mean squared error, averaged over images. codes_used: share of the
    codebook that these images use. perplexity: e to the entropy of their codes.
    """
    made, codes = reconstruct(tokenizer, held_out, compute)
    error = (made.float() - held_out.float()).square().mean(dim=(1, 2, 3)).clamp(min=1e-3)
    counts = codes_losses.count_codes(codes, tokenizer.codebook_size)
    return {
        "mse": float(error.mean()),
        "psnr": float((10 * torch.log10(255**2 / error)).mean()),
        "codes_used": codes_losses.used(counts),
        "perplexity": codes_losses.perplexity(counts),
    }
