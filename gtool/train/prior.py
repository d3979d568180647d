"""Training of an autoregressive prior over the codes of a tokenizer: state, step, trainer.

Esser, Rombach and Ommer 2020, "Taming Transformers", section 3.2: maximum likelihood of the next code, given those
before it and a condition. The tokenizer is frozen; the codes of all images are computed once, before training.

Axis letters: N images of the global batch, n of one share; L codes of an image, M condition tokens, K codes there are.
"""

import copy
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gtool import console
from gtool.config.schema import Recipe
from gtool.data.held_out import hold_out, open_images
from gtool.data.label_colours import colour_maps, colours_of
from gtool.data.loader import Batches, CodeBatches, read_ids, read_images
from gtool.data.pixel_cache import ImageArrays
from gtool.data.token_cache import load_codes
from gtool.errors import CheckpointError, RecipeError
from gtool.io.run_folder import RunFolder
from gtool.io.weights import load_weights
from gtool.models import registry
from gtool.models.prior.config import SPATIAL, SamplingParams
from gtool.models.prior.network import decay_groups, for_sampling
from gtool.models.prior.pipeline import decode
from gtool.models.prior.sampling import UNKNOWN, sample_codes, uniform_numbers
from gtool.nn.ranges import to_pm1
from gtool.runtime.device import Compute, send
from gtool.runtime.random import derive_seed, hashed_uniform
from gtool.train.prior_tokenizer import PREFIX
from gtool.train.state import TrainingState, build_networks, take
from gtool.train.trainer import Trainer

CHUNK = 64  # sequences or images that are measured at a time


@dataclass(kw_only=True)
class PriorState(TrainingState):
    """The prior with its optimizer; `ema` holds the averaged prior and the tokenizer: what is saved as weights."""

    in_training = ("prior",)
    in_shares = True

    prior: nn.Module
    optimizer: Any

    @property
    def averaged(self) -> nn.Module:
        """What follows the prior in training."""
        return self.ema.prior


def init_state(recipe: Recipe, config: Any, tokenizer: Mapping[str, Tensor], compute: Compute) -> PriorState:
    """Build the prior, its average beside the tokenizer, and the optimizer, at step 0.

    tokenizer: the tensors of its weights file. `batches` are set later, as they are made of codes, and codes by `ema`.
    """
    (pipeline,) = build_networks(recipe, config)
    pipeline.tokenizer.load_state_dict(dict(tokenizer))
    ema = pipeline.to(compute.device).eval().requires_grad_(False)
    prior = copy.deepcopy(ema.prior).train().requires_grad_(True)
    return PriorState.begin(
        recipe, compute, (prior,), lambda network: decay_groups(network, recipe.optim.weight_decay), ema=ema
    )


def step(state: PriorState) -> dict[str, Tensor]:
    """Update the prior once; returns scalar statistics on the device."""
    recipe, compute = state.recipe, state.compute
    state.set_rates()
    first = state.batches.position + compute.rank * (recipe.train.batch_size // compute.world_size)
    codes, conditions = state.batches.next(recipe.train.batch_size)
    drawn = codes, _replace_codes(state, codes, first), _drop_conditions(state, conditions, first)
    codes, read, conditions = (send(x, compute.device) for x in drawn)
    orders = _draw_orders(state, len(codes), first)
    state.optimizer.zero_grad(set_to_none=True)
    parts = state.micro_batches(recipe.train.batch_size)

    def loss_of(part: slice) -> tuple[Tensor, Tensor]:
        order = None if orders is None else take(orders, part, parts)
        with compute.autocast():
            logits = state.prior(take(conditions, part, parts), take(read, part, parts), order)
        loss = cross_entropy(state, logits, take(codes, part, parts), order)
        return loss, loss.detach()

    losses = state.backward("prior", parts, loss_of)
    norm = state.clip_and_step("prior")
    state.nimg += recipe.train.batch_size
    state.update_average()
    state.steps += 1
    return {"train_nll": torch.stack(losses).mean(), "grad_norm": norm}


def cross_entropy(state: PriorState, logits: Tensor, codes: Tensor, order: Tensor | None = None) -> Tensor:
    """Return the mean of -log p in nats of codes (n, h, w), of logits (n, L, K) in the prior's order or another."""
    wanted = state.ema.prior.in_order(codes, order)  # (n, L)
    return F.cross_entropy(logits.float().flatten(0, 1), wanted.flatten())


def _replace_codes(state: PriorState, codes: Tensor, first: int) -> Tensor:
    """Return input codes of which some are replaced at random (`pkeep` of the release); targets stay what they are.

    Each is a function of the seed and of the place of its sequence in the order of all, `first` for the first one.
    """
    keep = state.recipe.prior.token_keep_prob
    if keep == 1:
        return codes
    length, places = codes[0].numel(), np.arange(first, first + len(codes))
    hashed = hashed_uniform(state.recipe.train.seed, places, 2 * length, "keep")
    random = torch.from_numpy(hashed).to(codes.device)
    others = (random[:, :length] * state.ema.tokenizer.codebook_size).long().view_as(codes)
    return torch.where((random[:, length:] < keep).view_as(codes), codes, others)


def _drop_conditions(state: PriorState, conditions: Tensor, first: int) -> Tensor:
    """Return conditions (n, M) of which some are dropped: the last id, everywhere; chosen as in `_replace_codes`."""
    dropout, size = state.recipe.prior.condition_dropout, state.ema.prior.config.condition_size
    if not dropout or size == 1:
        return conditions
    hashed = hashed_uniform(state.recipe.train.seed, np.arange(first, first + len(conditions)), 1, "told")
    is_dropped = torch.from_numpy(hashed < dropout).to(conditions.device)  # (n, 1)
    return conditions.masked_fill(is_dropped, size - 1)


def _draw_orders(state: PriorState, count: int, first: int) -> Tensor | None:
    """Return orders of cells (n, L) on the device: random for some images, the prior's own for others.

    None where the prior knows its own alone. Chosen as in `_replace_codes`; the share of random ones falls from 1 at
    the start of the run to `random_orders` at its end (RAR's annealing, which goes on to 0).
    """
    cells = state.ema.prior.cells
    if state.ema.prior.config.orders == "one":
        return None
    hashed = hashed_uniform(state.recipe.train.seed, np.arange(first, first + count), 1 + len(cells), "order")
    random = torch.from_numpy(hashed)
    share = 1 + (state.recipe.prior.random_orders - 1) * state.progress
    drawn = send(random[:, 1:].argsort(dim=1), cells.device)
    return torch.where(send(random[:, :1] < share, cells.device), drawn, cells)


@dataclass(frozen=True)
class HeldOut:
    """Sequences that training never sees."""

    codes: Tensor  # (N, h, w)
    conditions: Tensor  # (N, M)
    images: Tensor  # uint8 (n, 3, R, R), of the first of them
    maps: np.ndarray | None  # (n, R, R) likewise, where there are label maps


@torch.no_grad()
def measure(state: PriorState, held_out: HeldOut) -> dict[str, float]:
    """Return the mean negative log-likelihood of held-out codes, in nats per code.

    nll: of the prior, in its own order. nll_random: in random orders, where it knows any. nll_shuffled: with the
    conditions of other images, where conditions differ. unigram: the entropy of the codes by themselves, which a prior
    that ignores all context has.
    """
    codes, conditions = held_out.codes, held_out.conditions
    found = {"nll": _mean_nll(state, codes, conditions)}
    if state.ema.prior.config.orders == "any":
        random = hashed_uniform(0, np.arange(len(codes)), codes[0].numel(), "order")
        found["nll_random"] = _mean_nll(state, codes, conditions, torch.from_numpy(random).argsort(dim=1))
    if len(torch.unique(conditions, dim=0)) > 1:
        found["nll_shuffled"] = _mean_nll(state, codes, conditions.roll(1, dims=0))
    counts = torch.bincount(codes.flatten(), minlength=state.ema.tokenizer.codebook_size).double()
    shares = counts[counts > 0] / counts.sum()
    found["unigram"] = float(-(shares * shares.log()).sum())
    return found


def _mean_nll(state: PriorState, codes: Tensor, conditions: Tensor, orders: Tensor | None = None) -> float:
    total, device = 0.0, state.compute.device
    for start in range(0, len(codes), CHUNK):
        part = slice(start, start + CHUNK)
        own, order = codes[part].to(device), None if orders is None else orders[part].to(device)
        with state.compute.autocast():
            logits = state.ema.prior(conditions[part].to(device), own, order)
        total += float(cross_entropy(state, logits, own, order)) * len(own)
    return total / len(codes)


def encode_all(tokenizer: Any, images: ImageArrays, compute: Compute, *, flips: bool) -> Iterator[Tensor]:
    """Yield the codes (n, h, w) of all images, then, with `flips`, of all of them flipped horizontally."""
    for flipped in (False, True) if flips else (False,):
        for start in range(0, len(images), CHUNK):
            indices = np.arange(start, min(start + CHUNK, len(images)))
            pixels = read_images(images, indices, np.full(len(indices), flipped))
            with torch.no_grad(), compute.autocast():
                yield tokenizer.encode(to_pm1(pixels.to(compute.device))).cpu()


def preview(state: PriorState, held_out: HeldOut) -> Tensor:
    """Sample images of the conditions of the first held-out images, always with the same random numbers: uint8."""
    count, prior = len(held_out.images), state.ema.prior
    condition = held_out.conditions[:count]  # (n, M)
    if prior.config.condition in SPATIAL:
        condition = condition.view(-1, *prior.config.grid)
    seed = derive_seed("preview", state.recipe.train.seed)
    codes = sample_codes(
        for_sampling(prior, torch.bfloat16 if state.compute.bf16 else torch.float32),
        condition,
        torch.full((count, *prior.config.grid), UNKNOWN),
        uniform_numbers(seed, torch.arange(count), prior.config.grid),
        SamplingParams(top_k=state.recipe.prior.preview_top_k),
    )
    return decode(state.ema, codes, state.compute)


class PriorTrainer(Trainer):
    """A prior in training over the codes of a frozen tokenizer, shown by samples, scored by held-out likelihood."""

    ranked_by = "nll"
    step = staticmethod(step)

    @staticmethod
    def open_inputs(recipe: Recipe, resumed: RunFolder | None) -> tuple[Any, Path]:
        """Find the images, and the tokenizer: in the weights of a run that is resumed, else the recipe's."""
        own = resumed.weights() if resumed else []
        path = own[-1] if own else Path(str(recipe.prior.tokenizer))
        if not path.is_file():
            raise CheckpointError(f"{path}: the tokenizer is not there; name it by --tokenizer")
        return open_images(recipe), path

    @staticmethod
    def check(recipe: Recipe, config: Any, processes: int) -> None:
        if recipe.data.flip:
            raise RecipeError(
                "data.flip: codes are computed before training; set prior.encode_flipped = true"
            )

    @staticmethod
    def step_flops(recipe: Recipe, forward: dict[str, float]) -> float:
        """Return the floating-point operations of training per image: a forward and a backward of the prior."""
        return 3.0 * forward["prior"]

    @staticmethod
    def blank_state(recipe: Recipe, config: Any, compute: Compute, images: Batches) -> PriorState:
        (pipeline,) = registry.network_module("prior").build(config)
        state = init_state(recipe, config, pipeline.tokenizer.state_dict(), compute)
        codes = np.zeros((1, *config.prior.grid), np.int64)
        ids = torch.zeros(1, config.prior.condition_ids, dtype=torch.int64, device="cpu")
        state.batches = CodeBatches(images, codes, ids)
        return state

    def prepare(self, inputs: tuple[Any, Path]) -> None:
        source, tokenizer = inputs
        self.images = self.load_images(source)
        self._fill_in_labels()
        tensors, digest = tokenizer_tensors(tokenizer, self.config.tokenizer)
        self.state = init_state(self.recipe, self.config, tensors, self.compute)
        recipe, images, grid = self.recipe, self.images, self.config.prior.grid
        flips = recipe.prior.encode_flipped
        batches, kept = hold_out(images, recipe, self.compute, flip=flips)
        codes = self._codes(digest, flips)
        none = np.zeros(len(images), bool)
        ids = torch.cat(
            [
                read_ids(images, np.arange(len(images)), grid, flipped)
                for flipped in (none, ~none)[: 1 + flips]
            ]
        )
        self.state.batches = CodeBatches(batches, codes, ids)
        kept = kept[: recipe.train.metric_images]
        shown, maps = kept[: recipe.sample.num], images.segmentations
        self.held_out = HeldOut(
            codes=torch.from_numpy(codes[kept].astype(np.int64)),
            conditions=ids[torch.from_numpy(kept)],
            images=read_images(images, shown),
            maps=None if maps is None else np.asarray(maps[shown]),
        )
        self.preview_columns, self.real_columns = self._columns(1), self._columns(2)

    def _fill_in_labels(self) -> None:
        """Set how many condition ids there are, which the data decide."""
        found, configured = self.images.condition_size, self.config.prior.condition_size
        if configured not in (1, found):
            raise RecipeError(
                f"data: {found} labels, including the one for no label; this prior has {configured} "
                "(model.prior.condition_size)"
            )
        prior = self.config.prior.model_copy(update={"condition_size": found})
        values = self.config.model_dump() | {"prior": prior.model_dump()}
        self.config = type(self.config).model_validate(values)
        model = self.config.model_dump(mode="json", exclude_none=True)
        self.recipe = self.recipe.model_copy(update={"model": model})

    def _codes(self, tokenizer_digest: str, flips: bool) -> np.ndarray:
        tokenizer = self.state.ema.tokenizer
        # Codes depend on precision and device, where two entries are about as near.
        made_by = f"{tokenizer_digest} {self.compute.precision} {self.compute.device.type}"
        with console.progress("encoding the images") as update:
            return load_codes(
                self.images,
                made_by,
                self.config.prior.grid,
                tokenizer.codebook_size,
                lambda: encode_all(tokenizer, self.images, self.compute, flips=flips),
                flip=flips,
                progress=update,
            )

    def describe_data(self) -> str:
        condition = self.recipe.data.condition
        each = "" if condition == "none" else f", each with its {condition}"
        return f"{super().describe_data()}{each}, {len(self.held_out.codes):,} of them held out for scores"

    def real_images(self) -> np.ndarray:
        shown = self.held_out.images.numpy()
        again = decode(self.state.ema, self.held_out.codes[: len(shown)], self.compute).numpy()
        return self._beside_maps(shown, again)

    def preview(self) -> np.ndarray:
        return self._beside_maps(preview(self.state, self.held_out).numpy())

    def _beside_maps(self, *pictures: np.ndarray) -> np.ndarray:
        """Return label maps and pictures (N, 3, R, R) in turn: (k N, 3, R, R)."""
        if self.held_out.maps is not None:
            colours = colours_of(self.recipe.data.dataset, self.images.num_labels)
            pictures = (colour_maps(self.held_out.maps, colours), *pictures)
        return np.stack(pictures, axis=1).reshape(-1, *pictures[0].shape[1:])

    def _columns(self, pictures: int) -> int | None:
        each = pictures + (self.held_out.maps is not None)
        return None if each == 1 else each * max(1, round((len(self.held_out.images) / each) ** 0.5))

    def measure(self) -> dict[str, float]:
        return measure(self.state, self.held_out)


def tokenizer_tensors(path: Path, config: Any) -> tuple[dict[str, Tensor], str]:
    """Return the tensors of a tokenizer, from its own file or that of a prior that holds it, and a digest of them.

    Raises:
        CheckpointError: damaged.
    """
    # In fp32, as a run keeps it, so that the digest does not change when the file stores half of that.
    tensors = {name: tensor.float() for name, tensor in load_weights(path).tensors.items()}
    if any(name.startswith(PREFIX) for name in tensors):
        tensors = {n.removeprefix(PREFIX): t for n, t in tensors.items() if n.startswith(PREFIX)}
    digest = hashlib.blake2b(config.model_dump_json().encode(), digest_size=16)
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].contiguous().numpy().tobytes())
    return tensors, digest.hexdigest()
