"""Training of a stroke predictor, which needs no photographs but can use some: state, step, trainer.

First it is supervised: on patches painted with random strokes, matched with the proposals (Paint Transformer, section
3.3). Then it also sees half-painted pictures: the proposals that would lower the error most are painted one after the
other, each is rewarded for the error that it takes away, and the decision learns which ones those are. So the decision
comes to rank proposals as trying them all would, which painting by decision alone then profits from.

Axis letters: N patches, S proposals, K strokes painted on a patch, P pixels of a patch.
"""

import copy
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gtool.config.schema import Recipe
from gtool.data.held_out import open_images
from gtool.errors import RecipeError
from gtool.io.run_folder import RunFolder
from gtool.losses import strokes as losses
from gtool.losses.matching import match
from gtool.models.paint_transformer.config import PATCH
from gtool.models.paint_transformer.network import Proposals
from gtool.models.paint_transformer.proposals import predictor_of
from gtool.runtime.device import Compute
from gtool.runtime.torch_random import make_generator
from gtool.strokes.brush import Brush, load_brush
from gtool.strokes.painting import deepest_level, paint
from gtool.strokes.proposals import SELECTION_SIZE
from gtool.strokes.renderer import render_on_patches
from gtool.strokes.settings import PaintSettings
from gtool.train.state import TrainingState, build_networks
from gtool.train.stroke_targets import (
    PICTURE,
    Known,
    Pictures,
    crops,
    cut_pictures,
    half_painted,
    known_strokes,
    synthetic_pictures,
)
from gtool.train.trainer import Trainer

BUILT_IN = "scenes"  # the data set's name that stands for synthetic pictures: dead leaves and scenes
USER_RESOLUTION = 512  # a user's images are read at this size: crops go down to a quarter of their side


@dataclass(kw_only=True)
class StrokesState(TrainingState):
    """The predictor with its optimizer, the brush, and the pictures it learns from."""

    in_training = ("predictor",)
    averaged_buffers = "average"

    predictor: nn.Module
    optimizer: Any
    brush: Brush
    pictures: Pictures


def init_state(recipe: Recipe, config: Any, pictures: Pictures | None, compute: Compute) -> StrokesState:
    """Build network, average and optimizer at step 0.

    pictures: of the user's; None draws the recipe's own.

    Raises:
        RecipeError: a process has too few patches for one crop of a picture, which is five.
    """
    require_crops(recipe, compute.world_size)
    (predictor,) = build_networks(recipe, config)
    predictor = predictor.to(compute.device)
    return StrokesState.begin(
        recipe,
        compute,
        (predictor,),
        ema=copy.deepcopy(predictor).eval().requires_grad_(False),
        brush=load_brush(recipe.strokes.brush).to(compute.device),
        pictures=pictures or synthetic_pictures(recipe),
    )


def step(state: StrokesState) -> dict[str, Tensor]:
    """Update the predictor once; returns scalar statistics on the device."""
    recipe, device = state.recipe, state.compute.device
    state.set_rates()
    share = recipe.train.batch_size // state.compute.world_size
    num_pictures = _num_crops(recipe, share, state.progress)
    num_known = share - 5 * num_pictures
    random = make_generator(recipe.train.seed, "lesson", state.steps, state.compute.rank)
    known = known_strokes(state.brush, num_known, recipe.strokes.count, random, device) if num_known else None
    targets = [known.target] if known else []
    canvases = [known.canvas] if known else []
    if num_pictures:
        images = crops(state.pictures.training, num_pictures, random, device)
        target, canvas = half_painted(
            predictor_of(state.ema, state.compute), state.brush, images, recipe.strokes.count, random
        )
        targets.append(target)
        canvases.append(canvas)
    state.optimizer.zero_grad(set_to_none=True)
    own = slice(share * state.compute.rank, share * (state.compute.rank + 1))
    with state.dropout_of("predictor", own), state.compute.autocast():
        proposals = state.predictor(torch.cat(targets), torch.cat(canvases))
    stats: dict[str, Tensor] = {}
    loss = proposals.logits.new_zeros(())
    if known:
        term, new = _supervised_loss(state, known, Proposals(*(x[:num_known] for x in proposals)))
        loss = loss + term * (recipe.strokes.supervised_weight if num_pictures else 1.0)
        stats |= new
    if num_pictures:
        term, new = _picture_loss(
            state, target, canvas, Proposals(*(x[num_known:] for x in proposals)), random
        )
        loss = loss + term
        stats |= new
    state.compute.accelerator.backward(loss)
    stats["grad_norm"] = state.clip_and_step("predictor")
    state.nimg += recipe.train.batch_size
    state.update_average()
    state.steps += 1
    return {name: value.detach() for name, value in stats.items()}


def require_crops(recipe: Recipe, processes: int) -> None:
    """Refuse batches of which no process could have a crop of a picture.

    Raises:
        RecipeError: they are too small.
    """
    share = recipe.train.batch_size // processes
    if recipe.strokes.supervised_until < 1 and _num_crops(recipe, share, 1.0) == 0:
        raise RecipeError(
            f"train.batch_size = {recipe.train.batch_size}, {share} a process, and strokes.supervised_share = "
            f"{recipe.strokes.supervised_share:g} leave no room for a crop of a picture, which is five patches"
        )


def _num_crops(recipe: Recipe, share: int, progress: float) -> int:
    """Crops of a step; each is five patches."""
    strokes = recipe.strokes
    if progress < strokes.supervised_until:
        return 0
    return min(round(share * (1 - strokes.supervised_share) / 5), share // 5)


def _supervised_loss(
    state: StrokesState, known: Known, proposals: Proposals
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of proposals against the strokes that the patch was made of."""
    weights, shape_params = state.recipe.strokes, proposals.shape_params
    patch, place, number = match(shape_params, proposals.logits, known.strokes, known.valid)
    mine, given = shape_params[patch, place], known.strokes[patch, number]
    sides, angle = losses.parameter_distance(mine, given)
    apart = losses.wasserstein(mine, given)
    wanted = torch.zeros_like(proposals.logits)
    wanted[patch, place] = 1.0
    positive = proposals.logits.new_tensor(weights.decision_pos_weight)
    decision = F.binary_cross_entropy_with_logits(proposals.logits, wanted, pos_weight=positive)
    loss = weights.l1 * sides.mean() / 4 + weights.angle * angle.mean()
    loss = loss + weights.wasserstein * apart.mean() + weights.decision * decision
    stats = {"known_sides": sides.mean() / 4, "known_wasserstein": apart.mean(), "known_decision": decision}
    if weights.pixel:
        stats["known_pixel"] = _supervised_pixel_loss(state, known, proposals)
        loss = loss + weights.pixel * stats["known_pixel"]
    return loss, stats


def _supervised_pixel_loss(state: StrokesState, known: Known, proposals: Proposals) -> Tensor:
    """L1 of patches painted by decision: a step forward, the slope of its probability backward (released code)."""
    count = min(state.recipe.strokes.count, proposals.logits.shape[1])
    logits, chosen = proposals.logits.topk(count, dim=1, sorted=True)
    order = chosen.flip(1) if count < proposals.logits.shape[1] else chosen.sort(dim=1).values
    logits = proposals.logits.gather(1, order)
    picked = proposals.shape_params.gather(1, order[..., None].expand(-1, -1, 5))
    mask, shaded = render_on_patches(state.brush, picked, PATCH)
    soft = logits.sigmoid()
    decided = ((logits > 0).to(soft.dtype) - soft).detach() + soft
    target = known.target.flatten(2)
    every = torch.ones_like(logits, dtype=torch.bool)
    colors = losses.mean_color(mask, target)
    painted = losses.paint_in_turn(
        mask * decided[..., None], shaded * decided[..., None], colors, known.canvas.flatten(2), every
    )
    return (painted[-1] - target).abs().mean()


def _picture_loss(
    state: StrokesState, target: Tensor, canvas: Tensor, proposals: Proposals, random: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """Reward the chosen strokes for the error that they take away; the decision learns which were chosen."""
    strokes, shape_params = state.recipe.strokes, proposals.shape_params
    n, num_proposals = proposals.logits.shape
    count = min(strokes.count, num_proposals)
    with torch.no_grad():
        small, _ = render_on_patches(state.brush, shape_params, SELECTION_SIZE)
        near = [F.avg_pool2d(x, PATCH // SELECTION_SIZE).flatten(2) for x in (target, canvas)]
        weight = proposals.logits.sigmoid() ** strokes.confidence_power if strokes.confidence_power else None
        best, gains = losses.select_by_gain(small, near[0], near[1], count, weight)
        wanted = torch.zeros_like(proposals.logits)
        wanted.scatter_(1, best, (gains > 0).to(wanted.dtype))
        # On some patches half of the proposals are out, so that those never chosen go on learning.
        hidden = torch.rand(n, num_proposals, generator=random) < 0.5
        hidden &= torch.rand(n, 1, generator=random) < strokes.proposal_dropout
        small = small * (~hidden).to(small)[..., None]
        chosen, gains = losses.select_by_gain(small, near[0], near[1], count, weight)
    picked = shape_params.gather(1, chosen[..., None].expand(-1, -1, 5))
    mask, shaded = render_on_patches(state.brush, picked, PATCH)
    flat = target.flatten(2)
    colors = losses.mean_color(mask, flat)
    start = canvas.flatten(2)
    canvases = losses.paint_in_turn(mask, shaded, colors, start, gains > 0)
    errors = [(painted - flat).abs().mean(dim=(1, 2)) for painted in (start, *canvases)]  # K + 1 of (N,)
    # What a stroke takes away is its own doing; what those before it left is not.
    steps = [after - before.detach() for before, after in pairwise(errors)]
    # Each patch by its own error, or nobody would learn what to do with one that is nearly right.
    reward = ((torch.stack(steps).sum(0) + errors[-1]) / (errors[0] + strokes.reward_eps)).mean()
    positive = wanted.new_tensor(strokes.decision_pos_weight)
    decision = F.binary_cross_entropy_with_logits(proposals.logits, wanted, pos_weight=positive)
    left = errors[-1].mean() / errors[0].mean().clamp(min=1e-4)
    stats = {"reward": reward, "left": left, "gain_decision": decision}
    return reward + strokes.picture_decision * decision, stats


@torch.no_grad()
def measure(state: StrokesState, count: int = 256) -> dict[str, float]:
    """Return the share of the error that is left after the strokes of one forward on held-out crops.

    `left_gain` with the proposals that gain most, `left_decision` with those of the highest decision; canvases
    begin as the mean colour, then (`_blurred`) as the crop's blur. Lower is better; greedy choice among 64 random
    strokes each time leaves about half of it.
    """
    device = state.compute.device
    target = F.avg_pool2d(crops(state.pictures.held_out, count, make_generator(0, "held-out"), device), 2)
    mean = target.mean(dim=(2, 3), keepdim=True).expand_as(target)
    blurred = F.interpolate(F.avg_pool2d(target, 8), size=PATCH, mode="bilinear", align_corners=False)
    found: dict[str, float] = {}
    for suffix, canvas in (("", mean), ("_blurred", blurred)):
        shape_params, logits = predictor_of(state.ema, state.compute)(target, canvas)
        strokes = min(state.recipe.strokes.count, logits.shape[1])
        mask, shaded = render_on_patches(state.brush, shape_params, PATCH)
        by_gain, gains = losses.select_by_gain(mask, target.flatten(2), canvas.flatten(2), strokes)
        by_decision = logits.topk(strokes, dim=1).indices.flip(1)
        for name, chosen, applied in (
            ("left_gain", by_gain, gains > 0),
            ("left_decision", by_decision, torch.ones_like(by_decision, dtype=torch.bool)),
        ):
            picked = chosen[..., None].expand(-1, -1, mask.shape[-1])
            m, s = mask.gather(1, picked), shaded.gather(1, picked)
            painted = losses.paint_in_turn(
                m, s, losses.mean_color(m, target.flatten(2)), canvas.flatten(2), applied
            )
            error = (painted[-1] - target.flatten(2)).abs().mean(dim=(1, 2))
            found[name + suffix] = float(error.sum() / (canvas - target).abs().mean(dim=(1, 2, 3)).sum())
    return found


def preview(state: StrokesState) -> Tensor:
    """Paint the pictures to show with the averaged network: uint8 (N, 3, 128, 128)."""
    device = state.compute.device
    settings = PaintSettings(
        levels=deepest_level(PICTURE, PICTURE), strokes_per_patch=state.recipe.strokes.count
    )
    predict = predictor_of(state.ema, state.compute)
    painted = []
    for target in state.pictures.shown:
        painting = paint(target.to(device).float() / 255, settings, state.brush, predict)
        painted.append(painting.render(PICTURE, PICTURE).permute(2, 0, 1).cpu())
    return torch.stack(painted)


class StrokesTrainer(Trainer):
    """A stroke predictor in training, shown by paintings, scored by the error that its strokes leave."""

    ranked_by = "left_gain"
    step = staticmethod(step)
    num_images: int | None = None  # of the user

    @staticmethod
    def open_inputs(recipe: Recipe, resumed: RunFolder | None) -> Any:
        """Find the user's images; None where pictures are synthetic."""
        return None if recipe.data.dataset == BUILT_IN else open_images(recipe)

    @staticmethod
    def check(recipe: Recipe, config: Any, processes: int) -> None:
        require_crops(recipe, processes)

    @staticmethod
    def step_flops(recipe: Recipe, forward: dict[str, float]) -> float:
        """Return the floating-point operations of training per patch: forward and backward, and painting ahead."""
        # One patch in five of those of pictures is the whole of four others, painted by the average beforehand.
        return (3.0 + 0.2 * (1 - recipe.strokes.supervised_share)) * forward["predictor"]

    def prepare(self, inputs: Any) -> None:
        pictures = None
        if inputs is not None:
            images = self.load_images(inputs, USER_RESOLUTION)
            self.num_images = len(images)
            pictures = cut_pictures(images.images, self.recipe)
        self.state = init_state(self.recipe, self.config, pictures, self.compute)

    def describe_data(self) -> str:
        pictures = f"{len(self.state.pictures.training):,} pictures"
        if self.num_images is None:
            return f"strokes and {pictures} drawn at the start"
        return f"strokes and {pictures} of {self.num_images:,} images"

    def real_images(self) -> np.ndarray:
        return self.state.pictures.shown.numpy()

    def preview(self) -> np.ndarray:
        return preview(self.state).numpy()

    def measure(self) -> dict[str, float]:
        return measure(self.state, min(self.recipe.train.metric_images, 256))
