"""Training of a GAN: the step, and the trainer. TransGAN and GANsformer differ in networks and recipes only.

One `step` is n_critic discriminator updates and one generator update. The order inside it is what the released
TransGAN code gets wrong and this module gets right: all micro-batches of the discriminator, its update, all
micro-batches of the generator, its update; the discriminator is frozen while the generator learns, so that no
gradient of the generator's loss is left in it.

`gan_state` holds what changes, and the random numbers. Each term of a loss sees one share of the global batch, and
means over shares are means over the batch.

Axis letters: N images of the global batch, n of one share; R resolution.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gtool.config.schema import Recipe
from gtool.data.loader import Batches
from gtool.errors import RecipeError
from gtool.losses import adversarial as losses
from gtool.losses import penalties
from gtool.metrics.weight_free import WeightFreeScorer
from gtool.models.generate import generate as generate_images
from gtool.runtime.device import Compute
from gtool.runtime.random import derive_seed
from gtool.runtime.torch_random import make_generator
from gtool.train.augment.augment import augment
from gtool.train.gan_state import (
    GANState,
    Judged,
    Latents,
    View,
    augment_and_discriminate,
    check_networks,
    discriminate,
    draw_classes,
    generate,
    init_state,
    micro_batches,
    next_real,
    random_of,
)
from gtool.train.state import mean_of, take, take_or_none
from gtool.train.trainer import Trainer

ADAPT_STEPS = 4  # between two changes of the probability of augmentation
# Images (n, 3, R, R) with their graph, what was said of the reals, the classes (n,) of both or None.
Reused = tuple[Tensor, Judged, Tensor | None]


def step(state: GANState) -> dict[str, Tensor]:
    """Update the discriminator n_critic times and the generator once; returns scalar statistics on the device."""
    recipe = state.recipe
    state.set_rates()
    if recipe.train.locality:  # attention neighbourhoods of TransGAN's version 1 widen on a schedule
        widths = (width for until, width in recipe.train.locality if state.nimg < 1000 * until)
        state.bare("generator").set_locality(next(widths, None))
    if recipe.loss.projected:
        state.bare("discriminator").uses_heads = state.progress < recipe.loss.projected_until
    stats: dict[str, Tensor] = {}
    generator_learns = state.generator_learns
    reused = None
    for critic in range(recipe.train.n_critic):
        reused, new = _discriminator_step(state, critic)
        stats |= new
        state.nimg += recipe.train.batch_size
    if generator_learns:
        stats |= _generator_step(state, reused)
        state.update_average()
    state.steps += 1
    if recipe.augment.target is not None:
        stats["augment_p"] = torch.tensor(state.augment_p)
        _adapt_augmentation(state, recipe.augment.target)
    return stats


def _discriminator_step(state: GANState, critic: int) -> tuple[list[Reused] | None, dict[str, Tensor]]:
    """Update the discriminator; returns what the generator step reuses with `train.share_fakes`, and statistics."""
    recipe = state.recipe
    batch = recipe.train.batch_size
    real, classes = next_real(
        state, batch
    )  # generated images have the classes of those they are compared with
    latents = Latents.draw(state, batch, f"discriminator-{critic}")
    purposes = ["real", "fake", *(["mix"] if recipe.loss.gradient_penalty else [])]
    views = [View.draw(state, batch, purpose, critic) for purpose in purposes]
    parts = micro_batches(state, batch)
    mean_logit = _mean_real_logit(state, real, classes, views[0], parts)
    state.bare("discriminator").requires_grad_(True)
    state.discriminator_optimizer.zero_grad(set_to_none=True)

    def loss_of(part: slice) -> tuple[Tensor, tuple[Reused, dict[str, Tensor]]]:
        own_views = [view.of(part) for view in views]
        chunk, own = take(real, part, parts), take_or_none(classes, part, parts)
        fake = _fakes(state, latents, part, own)
        pair = chunk, fake.detach()
        loss, of_real, stats = _discriminator_loss(state, pair, own, own_views[:2], mean_logit)
        if recipe.loss.gradient_penalty and state.steps % recipe.loss.penalty_interval == 0:
            penalty = _gradient_penalty(state, pair, own, own_views[2], part, critic)
            stats["penalty"] = stats["penalty"] + penalty if "penalty" in stats else penalty
        if "penalty" in stats:
            loss = loss + recipe.loss.penalty_interval * stats["penalty"]
        return loss, ((fake, of_real.detach(), own), stats)

    done = state.backward("discriminator", parts, loss_of)
    sums = mean_of([stats for _, stats in done])
    if recipe.augment.target is not None:
        state.real_sign += state.compute.mean(sums["real_sign"])
    sums["discriminator_grad_norm"] = state.clip_and_step("discriminator")
    return [reused for reused, _ in done] if recipe.train.share_fakes else None, sums


def _discriminator_loss(
    state: GANState,
    pair: tuple[Tensor, Tensor],
    classes: Tensor | None,
    views: list[View],
    mean_logit: Tensor | None,
) -> tuple[Tensor, Judged, dict[str, Tensor]]:
    """Return the loss with drift, what was said of the reals, and statistics with R1 + R2 (`penalty`).

    pair: real and generated images (n, 3, R, R), of the same classes (n,), where there are any.
    """
    recipe = state.recipe
    gammas = _gammas(state)
    penalized = [place for place, gamma in enumerate(gammas) if gamma]
    inputs = [x.detach().requires_grad_(gamma > 0) for x, gamma in zip(pair, gammas, strict=True)]
    images = [augment(x, view.draws) for x, view in zip(inputs, views, strict=True)]
    with state.compute.autocast(enabled=not penalized or recipe.train.penalty_precision != "fp32"):
        if len(penalized) == 1:
            # A second derivative is half the work of all: what needs none goes by itself.
            alone = zip(images, views, strict=True)
            judged = [discriminate(state.discriminator, [x], [view], classes)[0] for x, view in alone]
        else:
            judged = discriminate(state.discriminator, images, views, classes)
    loss = _of_all_logits(recipe, losses.discriminator_loss, *judged)
    of_real, of_fake = (of_pixels(one) for one in judged)
    stats = {"discriminator_loss": loss, "real_logit": of_real.mean(), "fake_logit": of_fake.mean()}
    if recipe.augment.target is not None:
        stats["real_sign"] = of_real.sign().mean()
    if recipe.loss.drift:
        mean = of_real.mean().detach() if mean_logit is None else mean_logit
        loss = loss + recipe.loss.drift * losses.drift(of_real, mean)
    if penalized:  # R1 on reals, R2 on fakes: gamma / 2 E[|grad D|^2]
        pixels = [(of_real, of_fake)[i] for i in penalized]
        slopes = penalties.zero_centred(pixels, [inputs[i] for i in penalized])
        terms = [gammas[place] / 2 * slope for place, slope in zip(penalized, slopes, strict=True)]
        stats["penalty"] = torch.stack(terms).sum()
    return loss, judged[0], stats


def _of_all_logits(recipe: Recipe, loss_of: Callable[..., Tensor], *judged: Judged) -> Tensor:
    """Return a loss of the discriminator's logits and, with its weight, the mean of those of its heads.

    judged: images in the order in which `loss_of` takes their logits after the kind of loss.
    """
    pixels, *heads = (
        loss_of(recipe.loss.kind, *one) for one in zip(*(x.logits.unbind(1) for x in judged), strict=True)
    )
    return pixels + recipe.loss.projected * torch.stack(heads).mean() if heads else pixels


def of_pixels(judged: Judged) -> Tensor:
    """Return the logits (n,) of the discriminator itself, without its heads."""
    return judged.logits[:, 0]


def _gammas(state: GANState) -> tuple[float, float]:
    """Return the weights of R1 and R2 in this step, 0 where they are not due.

    loss.gamma_decay is the factor that they have reached at the end of the run.
    """
    loss = state.recipe.loss
    if state.steps % loss.penalty_interval:
        return 0.0, 0.0
    factor = loss.gamma_decay**state.progress
    return loss.r1_gamma * factor, loss.r2_gamma * factor


def _gradient_penalty(
    state: GANState,
    pair: tuple[Tensor, Tensor],
    classes: Tensor | None,
    view: View,
    part: slice,
    critic: int,
) -> Tensor:
    """WGAN-GP with its weight, with respect to the images before augmentation."""
    loss = state.recipe.loss

    def discriminator(images: Tensor) -> Tensor:
        with state.compute.autocast(enabled=state.recipe.train.penalty_precision != "fp32"):
            return of_pixels(
                discriminate(state.discriminator, [augment(images, view.draws)], [view], classes)[0]
            )

    random = random_of(state, "interpolate", critic)
    alpha = torch.rand(state.recipe.train.batch_size, 1, 1, 1, generator=random, device=random.device)
    penalty = penalties.gradient_penalty(discriminator, *pair, alpha[part].to(pair[0]))
    return loss.gradient_penalty * penalty


def _mean_real_logit(
    state: GANState, real: Tensor, classes: Tensor | None, view: View, parts: list[slice]
) -> Tensor | None:
    """Return the mean of D(real) over the global batch, which the drift term of every share needs.

    None when it is unused, or when the one share is the whole batch and its own mean will do.
    """
    if not state.recipe.loss.drift or (len(parts) == 1 and state.compute.world_size == 1):
        return None

    @torch.no_grad()
    def logit_of(part: slice) -> Tensor:
        own = take_or_none(classes, part, parts)
        return of_pixels(augment_and_discriminate(state, take(real, part, parts), view.of(part), own)).mean()

    return state.compute.mean(torch.stack(state.compute.map(logit_of, parts)).mean())


def _generator_step(state: GANState, reused: list[Reused] | None) -> dict[str, Tensor]:
    recipe = state.recipe
    batch = recipe.train.generator_batch_size or recipe.train.batch_size
    relativistic, energy = losses.needs_real_in_generator(recipe.loss.kind), recipe.loss.energy_distance
    compares = relativistic or bool(energy)
    state.bare("discriminator").requires_grad_(False)
    state.generator_optimizer.zero_grad(set_to_none=True)
    sums = add_path_length(state, batch)
    latents = Latents.draw(state, batch, "generator")
    view = View.draw(state, batch, "generated")
    real = None  # for losses that look at reals; they are not counted in nimg
    if reused is None and (compares or recipe.loss.super_resolution):
        real, classes = next_real(state, batch)
    elif reused is None:
        classes = draw_classes(state, batch, "generator")
    parts = micro_batches(state, batch)

    def loss_of(part: slice) -> tuple[Tensor, dict[str, Tensor]]:
        own_view = view.of(part)
        if reused is not None:
            fake, of_real, own = reused[parts.index(part)]
        else:
            own = take_or_none(classes, part, parts)
            fake = _fakes(state, latents, part, own, with_graph=True)
        chunk = None if real is None else take(real, part, parts)
        if chunk is not None and compares:
            with torch.no_grad():
                of_real = augment_and_discriminate(state, chunk, own_view, own)
        of_fake = augment_and_discriminate(state, fake, own_view, own)
        loss = _of_all_logits(recipe, losses.generator_loss, of_fake, *([of_real] if relativistic else []))
        stats = {
            "generator_loss": loss,
            "fake_std": fake.detach().std(dim=0, correction=min(1, len(fake) - 1)).mean(),
        }
        if energy:
            stats["energy_distance"] = losses.energy_distance(of_fake.features, of_real.features)
            loss = loss + energy * stats["energy_distance"]
        if chunk is not None and recipe.loss.super_resolution:
            loss = loss + _super_resolution(state, chunk)
        return loss, stats

    sums |= mean_of(state.backward("generator", parts, loss_of))
    sums["generator_grad_norm"] = state.clip_and_step("generator")
    return sums


def _super_resolution(state: GANState, real: Tensor) -> Tensor:
    """Return the loss of the super-resolution co-training of TransGAN's version 1, with its weight."""
    loss = state.recipe.loss
    with state.compute.autocast():
        enlarged = state.bare("generator").super_resolve(real)
    # Weight 0 after its time instead of no term at all: processes expect a gradient for every parameter.
    weight = loss.super_resolution if state.nimg < 1000 * loss.super_resolution_kimg else 0.0
    return weight * nn.functional.mse_loss(enlarged.float(), real)


def add_path_length(state: GANState, batch: int) -> dict[str, Tensor]:
    """Add the gradients of the path length penalty to those of the generator, where it is due; returns statistics.

    StyleGAN2 (Karras et al. 2020, section 3.2), on latents of its own. There the running mean that lengths are
    compared with has moved by this batch already; here it moves afterwards, so that no share has to know the
    lengths of the others. With a decay of 0.01 that is a hundredth of a gradient.
    """
    loss = state.recipe.loss
    if not loss.path_length or state.steps % loss.path_length_interval:
        return {}
    batch = batch // loss.path_length_batch_shrink
    latents = Latents.draw(state, batch, "path-length")
    resolution = state.recipe.data.resolution
    random = random_of(state, "direction-path-length")
    direction = torch.randn(batch, 3, resolution, resolution, generator=random, device=random.device)
    parts, classes = micro_batches(state, batch), draw_classes(state, batch, "path-length")

    def loss_of(part: slice) -> tuple[Tensor, dict[str, Tensor]]:
        own = take_or_none(classes, part, parts)
        with state.compute.autocast(enabled=state.recipe.train.penalty_precision != "fp32"):
            images, ws = generate(state, latents, part, own, with_ws=True)
        lengths = penalties.path_lengths(images, ws, direction[part].to(images.device))
        term = loss.path_length * (lengths - state.path_length).square().mean()
        return loss.path_length_interval * term, {"path_length": lengths.mean(), "path_penalty": term}

    # Gradients of processes meet in the backward pass of the adversarial loss, which is still to come.
    sums = mean_of(state.backward("generator", parts, loss_of, is_last=False))
    sums["path_length"] = state.compute.mean(sums["path_length"])
    state.path_length.lerp_(sums["path_length"], loss.path_length_decay)
    return sums


def _fakes(
    state: GANState, latents: Latents, part: slice, classes: Tensor | None, with_graph: bool = False
) -> Tensor:
    """Generate a slice of the batch in fp32; the graph is kept only where it will be used."""
    keep = with_graph or (state.recipe.train.share_fakes and state.generator_learns)
    with nullcontext() if keep else torch.no_grad(), state.compute.autocast():
        images: Tensor = generate(state, latents, part, classes)
    return images.float()


def _adapt_augmentation(state: GANState, target: float) -> None:
    """Steer the probability of augmentation (Karras et al. 2020, StyleGAN2-ADA, section 3).

    The discriminator overfits where r = E[sign D(x)] over augmented reals is above the target: then the probability
    rises, else it falls, by the images of the last ADAPT_STEPS steps over `augment.kimg`.
    """
    if state.steps % ADAPT_STEPS:
        return
    train = state.recipe.train
    r = float(state.real_sign) / (ADAPT_STEPS * train.n_critic)
    images = ADAPT_STEPS * train.n_critic * train.batch_size
    direction = (r > target) - (r < target)
    change = direction * images / (1000 * state.recipe.augment.kimg)
    state.augment_p = min(1.0, max(0.0, state.augment_p + change))
    state.real_sign.zero_()


class GANTrainer(Trainer):
    """A generator and a discriminator in training, shown as grids of samples, scored by rfd and swd."""

    ranked_by = "rfd"
    check = staticmethod(check_networks)
    step = staticmethod(step)
    scorer: WeightFreeScorer | None = None

    @staticmethod
    def step_flops(recipe: Recipe, forward: dict[str, float]) -> float:
        """Return the floating-point operations of training per real image, from those of the two forwards.

        A forward with its backward costs three forwards; a penalty costs about 6.3 forwards of the discriminator
        (counted for the CIFAR-10 networks), the path length as many of the generator, as often as they are due.
        """
        generator, discriminator = forward["generator"], forward["discriminator"]
        loss, train = recipe.loss, recipe.train
        penalty = 6.3 * sum(1 for weight in (loss.gradient_penalty, loss.r1_gamma, loss.r2_gamma) if weight)
        path = 6.3 / (loss.path_length_batch_shrink * loss.path_length_interval) if loss.path_length else 0.0
        ratio = (train.generator_batch_size or train.batch_size) / (train.n_critic * train.batch_size)
        fakes = 0.0 if train.share_fakes else generator
        for_discriminator = fakes + (6.0 + penalty / loss.penalty_interval) * discriminator
        return for_discriminator + ratio * (3.0 * (generator + discriminator) + path * generator)

    @staticmethod
    def blank_state(recipe: Recipe, config: Any, compute: Compute, images: Batches) -> GANState:
        labels = torch.zeros(1, dtype=torch.int64, device="cpu") if config.classes else None
        return init_state(recipe, config, images, compute, labels)

    def prepare(self, inputs: Any) -> None:
        recipe, compute = self.recipe, self.compute
        self.images = self.load_images(inputs)
        train, flip = recipe.train, recipe.data.flip
        batches = Batches(
            self.images, seed=train.seed, flip=flip, rank=compute.rank, world_size=compute.world_size
        )
        labels = self._classes() if recipe.data.condition == "class" else None
        self.state = init_state(self.recipe, self.config, batches, compute, labels)

    def _classes(self) -> Tensor:
        """Return the class of each image, int64 (N,); the names go into the config, and grids have a row a class."""
        images, count = self.images, self.images.num_labels or 0
        names = (*(images.label_names or ())[:count], *map(str, range(len(images.label_names or ()), count)))
        if self.config.classes not in ((), names):
            raise RecipeError(
                f"data: {count} classes, {', '.join(names[:3])}, ...; model.classes says otherwise"
            )
        labels = torch.from_numpy(np.array(images.labels))
        self.config = self.config.model_copy(update={"classes": names})
        model = self.config.model_dump(mode="json", exclude_none=True)
        self.recipe = self.recipe.model_copy(update={"model": model})
        num = self.recipe.sample.num
        self.preview_columns = self.real_columns = max(1, num // min(count, max(1, num // 4)))
        return labels

    def _in_rows(self, num: int) -> Tensor:
        """Return the classes of a grid of images, int64 (n,): a row a class, of as many as there is room for."""
        columns = self.preview_columns or 1
        return torch.arange(min(len(self.config.classes), max(1, num // columns))).repeat_interleave(columns)

    def real_images(self) -> np.ndarray:
        num = self.recipe.sample.num
        chosen = np.arange(min(num, len(self.images)))
        if self.state.labels is not None:
            labels, row = self.state.labels.numpy(), np.arange(self.real_columns or 1)
            of_class = [np.flatnonzero(labels == one) for one in dict.fromkeys(self._in_rows(num).tolist())]
            chosen = np.concatenate([found[row % len(found)] for found in of_class if len(found)])
        return np.asarray(self.images.images[chosen])

    def preview(self) -> np.ndarray:
        num, seed = self.recipe.sample.num, self.recipe.train.seed
        classes = None if self.state.labels is None else self._in_rows(num)
        return self._generate(num if classes is None else len(classes), seed, classes)

    def measure(self) -> dict[str, float]:
        train = self.recipe.train
        if not train.metrics or len(self.images) < 4:
            return {}
        if self.scorer is None:
            self.scorer = WeightFreeScorer.build(
                self.images.images, num=train.metric_images, device=self.compute.device
            )
        labels, count, seed = self.state.labels, train.metric_images, derive_seed("metrics", train.seed)
        if labels is not None:  # as often as the data have them
            labels = labels[torch.randint(len(labels), (count,), generator=make_generator(seed, "classes"))]
        scores = self.scorer.score(self._generate(count, seed, labels))
        wanted = tuple(train.metrics)
        return {name: value for name, value in scores.items() if name.startswith(wanted) or name == "rfd"}

    def _generate(self, count: int, seed: int, classes: Tensor | None = None) -> np.ndarray:
        chunks = generate_images(self.state.ema, seed, torch.arange(count), self.compute, classes=classes)
        return torch.cat(list(chunks)).numpy()
