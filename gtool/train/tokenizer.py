"""Training of a tokenizer: an autoencoder through a codebook, and a patch discriminator: state, step, trainer.

Esser, Rombach and Ommer 2020, "Taming Transformers", section 3.1. Against the released code: the autoencoder runs
once a step, and the discriminator sees that reconstruction; nothing adversarial is computed before its time; the
discriminator learns alone for a while before the decoder gets its adversarial loss, which then grows to its weight;
starts are shares of the run, so they mean the same at every batch size and number of processes; codes that nothing
was mapped to are restarted.

Axis letters: N images of the global batch, n of one share; R resolution.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gtool.config.schema import Recipe
from gtool.data.held_out import hold_out
from gtool.data.loader import Batches, read_images
from gtool.errors import RecipeError
from gtool.losses import adversarial as adversarial_losses
from gtool.losses import reconstruction as losses
from gtool.losses.efficientnet import efficientnet_lite0
from gtool.losses.perceptual import LPIPS, perceptual_distance
from gtool.metrics.paired import load_lpips
from gtool.models.vqgan.network import Tokenized
from gtool.nn.quantizers import codebook_usage, count_codes
from gtool.nn.ranges import to_pm1, to_uint8
from gtool.runtime.device import Compute, send
from gtool.runtime.torch_random import make_generator
from gtool.train.state import TrainingState, build_networks, mean_of, take
from gtool.train.trainer import Trainer

MAX_PIXELS = 2**22  # of the images that the colours of a palette are taken from
CHUNK = 64  # images that are reconstructed at a time


class Usage(nn.Module):
    """How often each code was used since the last restart of unused ones, over all processes; part of the state."""

    counts: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("counts", torch.zeros(size, dtype=torch.int64))


@dataclass(kw_only=True)
class TokenizerState(TrainingState):
    """Tokenizer and discriminator with their optimizers, and the use of the codes."""

    in_training = ("tokenizer", "discriminator")
    in_shares = True

    tokenizer: nn.Module
    discriminator: nn.Module
    tokenizer_optimizer: Any
    discriminator_optimizer: Any
    usage: Usage
    perceptual: Callable[[Tensor, Tensor], Tensor]  # of reconstructions and originals, frozen

    @property
    def networks(self) -> dict[str, nn.Module]:
        """All networks, not wrapped, by the names they are saved under."""
        return super().networks | {"usage": self.usage}


def init_state(
    recipe: Recipe, config: Any, batches: Any, compute: Compute, lpips: LPIPS | None = None
) -> TokenizerState:
    """Build networks, average and optimizers at step 0; lpips: where the recipe asks for it."""
    networks = tuple(network.to(compute.device) for network in build_networks(recipe, config))
    return TokenizerState.begin(
        recipe,
        compute,
        networks,
        ema=copy.deepcopy(networks[0]).eval().requires_grad_(False),
        batches=batches,
        usage=Usage(config.codebook_size).to(compute.device),
        perceptual=_perceptual(recipe, compute.device, lpips),
    )


def _lpips(recipe: Recipe, load: Callable[[], LPIPS] = load_lpips) -> LPIPS | None:
    """Return LPIPS where it is asked for; NetworkError where its weights cannot be had."""
    loss = recipe.reconstruction
    return load() if loss.perceptual_kind == "lpips" and loss.perceptual else None


def _perceptual(
    recipe: Recipe, device: torch.device, lpips: LPIPS | None
) -> Callable[[Tensor, Tensor], Tensor]:
    if lpips is not None:
        return lpips.to(device)
    if recipe.reconstruction.perceptual_kind == "efficientnet":
        efficientnet_lite0(device)  # read before threads share out the batch
        return perceptual_distance
    return losses.multiscale_gradients


def step(state: TokenizerState) -> dict[str, Tensor]:
    """Update tokenizer and discriminator once; returns scalar statistics on the device."""
    recipe = state.recipe
    state.set_rates()
    real = to_pm1(send(state.batches.next(recipe.train.batch_size), state.compute.device))
    outputs, stats = _tokenizer_step(state, real)
    loss = recipe.reconstruction
    if loss.adversarial and state.progress >= loss.discriminator_start:
        stats |= _discriminator_step(state, real, [output.reconstruction.detach() for output in outputs])
    state.nimg += recipe.train.batch_size
    state.update_average()
    _restart_unused_codes(state, outputs)
    state.steps += 1
    return stats


def adversarial_factor(recipe: Recipe, progress: float) -> float:
    """Return the share of its weight that the adversarial loss has: 0 before its start, then a ramp to 1."""
    loss = recipe.reconstruction
    if progress < loss.adversarial_start or not loss.adversarial:
        return 0.0
    if not loss.adversarial_ramp:
        return 1.0
    return min(1.0, (progress - loss.adversarial_start) / loss.adversarial_ramp)


@dataclass(frozen=True)
class Draft:
    """Reconstructions of a share with their graph, and the gradients of the losses at them."""

    output: Tokenized
    of_fidelity: Tensor
    of_adversarial: Tensor | None  # None before its time
    stats: dict[str, Tensor]


def _tokenizer_step(state: TokenizerState, real: Tensor) -> tuple[list[Tokenized], dict[str, Tensor]]:
    weights = state.recipe.reconstruction
    state.bare("discriminator").requires_grad_(False)
    state.tokenizer_optimizer.zero_grad(set_to_none=True)
    parts = _shares(state)
    drafts = state.compute.map(lambda part: _draft(state, take(real, part, parts), part), parts)
    weight = real.new_zeros(())
    if factor := adversarial_factor(state.recipe, state.progress):
        weight = real.new_full((), factor * weights.adversarial)
        if weights.adaptive_weight:
            weight = weight * _adaptive_weight(state, drafts)

    def loss_of(part: slice) -> tuple[Tensor, dict[str, Tensor]]:
        draft = drafts[parts.index(part)]
        output, gradient = draft.output, draft.of_fidelity
        if draft.of_adversarial is not None:
            gradient = gradient + weight * draft.of_adversarial
        # Its gradient at the reconstruction is `gradient`.
        surrogate = (output.reconstruction * gradient).sum()
        return surrogate + weights.codebook * output.quantizer_loss, draft.stats

    stats = mean_of(state.backward("tokenizer", parts, loss_of))
    if factor:
        stats["adversarial_weight"] = weight
    stats["grad_norm"] = state.clip_and_step("tokenizer")
    return [draft.output for draft in drafts], stats


def _draft(state: TokenizerState, real: Tensor, part: slice) -> Draft:
    with state.dropout_of("tokenizer", part), state.compute.autocast():
        output = state.tokenizer(real)
    # Losses are differentiated to the reconstruction first: the adaptive weight needs their gradients at the last
    # layer, and from here both go through the tokenizer as one.
    leaf = output.reconstruction.detach().requires_grad_()
    terms = _reconstruction_terms(state, real, leaf)
    stats = {name: value for name, (_, value) in terms.items()}
    fidelity = torch.stack([weight * value for weight, value in terms.values()]).sum()
    (of_fidelity,) = torch.autograd.grad(fidelity, leaf)
    of_adversarial = None
    if adversarial_factor(state.recipe, state.progress):
        with state.compute.autocast():
            logits = state.bare("discriminator")(leaf)
        stats["generator_loss"] = adversarial_losses.generator_loss("hinge", logits.flatten())
        (of_adversarial,) = torch.autograd.grad(stats["generator_loss"], leaf)
    stats["quantizer_loss"] = output.quantizer_loss
    return Draft(output, of_fidelity, of_adversarial, stats)


def _shares(state: TokenizerState) -> list[slice]:
    batch = state.recipe.train.batch_size
    return state.micro_batches(batch, batch if state.bare("discriminator").compares else 1)


def _reconstruction_terms(
    state: TokenizerState, real: Tensor, fake: Tensor
) -> dict[str, tuple[float, Tensor]]:
    """Return weight and value of each reconstruction loss."""
    weights = state.recipe.reconstruction
    terms: dict[str, tuple[float, Tensor]] = {"l1": (weights.l1, losses.l1(fake, real))}
    if weights.perceptual:
        with state.compute.autocast():
            distance = state.perceptual(fake, real).mean()
        terms[weights.perceptual_kind] = (weights.perceptual, distance)
    return terms


def _adaptive_weight(state: TokenizerState, drafts: list[Draft]) -> Tensor:
    """Return the ratio of gradient norms at the last layer (VQGAN, Eq. 7), bounded, over the global batch."""
    last = state.bare("tokenizer").last_layer

    def gradients(draft: Draft) -> Tensor:
        fake, both = draft.output.reconstruction, (draft.of_fidelity, draft.of_adversarial)
        return torch.stack([torch.autograd.grad(fake, last, one, retain_graph=True)[0] for one in both])

    first, second = state.compute.mean(torch.stack(state.compute.map(gradients, drafts)).mean(0))
    most = state.recipe.reconstruction.adaptive_weight_max
    return losses.adaptive_weight(first, second, weight=1.0, most=most)


def _discriminator_step(state: TokenizerState, real: Tensor, fake: list[Tensor]) -> dict[str, Tensor]:
    state.bare("discriminator").requires_grad_(True)
    state.discriminator_optimizer.zero_grad(set_to_none=True)
    parts = _shares(state)

    def loss_of(part: slice) -> tuple[Tensor, dict[str, Tensor]]:
        with state.compute.autocast():
            # One call for both: the wrapper for processes wants one forward for each backward.
            pair = [take(real, part, parts), fake[parts.index(part)]]
            logits = state.discriminator(torch.cat(pair)).float()
        of_real, of_fake = (half.flatten() for half in logits.chunk(2))
        loss = 0.5 * adversarial_losses.discriminator_loss("hinge", of_real, of_fake)
        return loss, {"discriminator_loss": loss, "real_logit": of_real.mean(), "fake_logit": of_fake.mean()}

    stats = mean_of(state.backward("discriminator", parts, loss_of))
    stats["discriminator_grad_norm"] = state.clip_and_step("discriminator")
    return stats


@torch.no_grad()
def _restart_unused_codes(state: TokenizerState, outputs: list[Tokenized]) -> None:
    """Count codes; every restart_interval steps move those that nothing was mapped to onto vectors of this batch."""
    weights, compute = state.recipe.reconstruction, state.compute
    quantizer = state.bare("tokenizer").quantizer
    if not weights.restart_interval or state.progress > weights.restart_until:
        return
    codes = torch.cat([output.codes for output in outputs])
    counts = count_codes(codes, len(state.usage.counts))
    state.usage.counts += counts if compute.world_size == 1 else compute.accelerator.reduce(counts)
    if (state.steps + 1) % weights.restart_interval:
        return
    vectors = torch.cat([output.vectors.detach() for output in outputs])
    if compute.world_size > 1:
        vectors = compute.accelerator.gather(vectors)  # in the order of the global batch
    unused = state.usage.counts == 0
    random = make_generator(state.recipe.train.seed, "restart", state.steps)
    quantizer.restart(vectors, state.usage.counts, random)
    # An entry that has jumped is no neighbour of what the average remembers of it.
    for averaged, trained in zip(state.ema.quantizer.parameters(), quantizer.parameters(), strict=True):
        averaged[unused] = trained[unused]
    state.usage.counts.zero_()


def fit_palette(state: TrainingState) -> dict[str, Tensor]:
    """Find the colours of a palette, image-GPT's tokenizer, by one k-means over pixels; this is the whole run."""
    train = state.recipe.train
    images = state.batches.next(max(train.batch_size, MAX_PIXELS // state.recipe.data.resolution**2))
    random = make_generator(train.seed, "palette")
    error = state.ema.fit(to_pm1(images.to(state.compute.device)), random)
    state.nimg, state.steps = round(1000 * train.kimg), 1
    return {"palette_error": torch.tensor(error)}


@torch.no_grad()
def reconstruct(tokenizer: Any, images: Tensor, compute: Compute) -> tuple[Tensor, Tensor]:
    """Return reconstructions, uint8 (N, 3, R, R), and codes (N, h, w) of uint8 images, both on the CPU."""
    reconstructions, codes = [], []
    for start in range(0, len(images), CHUNK):
        real = to_pm1(images[start : start + CHUNK].to(compute.device))
        with compute.autocast():
            output = tokenizer(real)
        reconstructions.append(to_uint8(output.reconstruction).cpu())
        codes.append(output.codes.cpu())
    return torch.cat(reconstructions), torch.cat(codes)


def measure(tokenizer: Any, held_out: Tensor, compute: Compute) -> dict[str, float]:
    """Score the reconstructions of held-out images, uint8 (N, 3, R, R).

    mse: of 8-bit values. psnr: dB, of every image's mean squared error, averaged over images. codes_used: share of the
    codebook that these images use. perplexity: e to the entropy of their codes.
    """
    fake, codes = reconstruct(tokenizer, held_out, compute)
    error = (fake.float() - held_out.float()).square().mean(dim=(1, 2, 3)).clamp(min=1e-3)
    return {
        "mse": float(error.mean()),
        "psnr": float((10 * torch.log10(255**2 / error)).mean()),
        **codebook_usage(count_codes(codes, tokenizer.codebook_size)),
    }


class TokenizerTrainer(Trainer):
    """A tokenizer in training, or a palette, which is fitted at once; shown and scored by its reconstructions."""

    ranked_by = "mse"
    step = staticmethod(step)

    @staticmethod
    def check(recipe: Recipe, config: Any, processes: int) -> None:
        if config.kind == "palette":
            if processes > 1:
                raise RecipeError(
                    "model.kind = 'palette': its colours are found in one process, within seconds"
                )
            return
        if config.quantizer.kind == "gumbel":
            raise RecipeError(
                "model.quantizer.kind = 'gumbel' is for released weights and cannot be trained; set 'cosine' "
                "or 'codebook'"
            )
        if config.image_channels != 3:
            raise RecipeError(
                f"model.image_channels = {config.image_channels}: photographs have 3; conditions need no tokenizer "
                "of their own, they are read as labels of cells"
            )
        if config.discriminator.norm == "batch" and processes > 1:
            raise RecipeError(
                "model.discriminator.norm = 'batch' normalizes an image by those beside it, so that the result would "
                "depend on the number of processes; set 'group' or 'none', or train in one process"
            )
        _lpips(recipe)

    @staticmethod
    def step_flops(recipe: Recipe, forward: dict[str, float]) -> float:
        """Return the floating-point operations of training per image: a forward and a backward of each network.

        The discriminator counts for its share of the run: twice for its own update, images and reconstructions, and
        once for the tokenizer's.
        """
        if "discriminator" not in forward:
            return forward["tokenizer"]
        loss = recipe.reconstruction
        own = 1 - loss.discriminator_start if loss.adversarial else 0.0
        tokenizers = 1 - loss.adversarial_start if loss.adversarial else 0.0
        return 3.0 * forward["tokenizer"] + (6.0 * own + 3.0 * tokenizers) * forward["discriminator"]

    @staticmethod
    def blank_state(recipe: Recipe, config: Any, compute: Compute, images: Batches) -> TokenizerState | None:
        if config.kind == "palette":
            return None
        return init_state(recipe, config, images, compute, _lpips(recipe, LPIPS))

    def prepare(self, inputs: Any) -> None:
        recipe, config, compute = self.recipe, self.config, self.compute
        self.images = self.load_images(inputs)
        batches, self.held_out = hold_out(self.images, recipe, compute, flip=recipe.data.flip)
        if config.kind == "palette":
            (palette,) = build_networks(recipe, config)
            palette = palette.to(compute.device).eval()
            self.state = TrainingState(recipe=recipe, compute=compute, ema=palette, batches=batches)
            self.step = fit_palette
        else:
            self.state = init_state(recipe, config, batches, compute, _lpips(recipe))

    def describe_data(self) -> str:
        description = f"{super().describe_data()}, {len(self.held_out):,} of them held out for scores"
        if self.config.kind == "palette":
            description += (
                "; a palette is found at once: `optim`, `reconstruction` and the length have no effect"
            )
        return description

    def real_images(self) -> np.ndarray:
        return self._held_out(self.recipe.sample.num).numpy()

    def preview(self) -> np.ndarray:
        return reconstruct(self.state.ema, self._held_out(self.recipe.sample.num), self.compute)[0].numpy()

    def measure(self) -> dict[str, float]:
        return measure(self.state.ema, self._held_out(self.recipe.train.metric_images), self.compute)

    def _held_out(self, most: int) -> Tensor:
        return read_images(self.images, self.held_out[:most])
