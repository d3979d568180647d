"""What a recipe can say: frozen, strictly typed sections, each field with its meaning.

The `[model]` table stays a plain mapping here: its schema belongs to the model (`gtool.models.*.config`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[float, Field(gt=0, le=1e30)]
NonNegative = Annotated[float, Field(ge=0, le=1e30)]
Count = Annotated[int, Field(ge=1, lt=2**31)]
Share = Annotated[float, Field(ge=0, le=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Labels = Annotated[int, Field(ge=1, le=65534)]
# Of classes, by their numbers: what a conditional GAN was trained on.
ClassNames = Annotated[tuple[str, ...], Field(strict=False, max_length=65534)]
Schedule = Annotated[tuple[Annotated[tuple[float, int], Field(strict=False)], ...], Field(strict=False)]
Metrics = Annotated[tuple[Literal["rfd", "swd"], ...], Field(strict=False)]


class Section(BaseModel):
    """A table of a recipe; unknown keys and values of another type are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class DataRecipe(Section):
    """Which images are read, and how they become squares."""

    dataset: str = "scenes"  # a built-in name, a folder, zip or parquet file, or a hub id
    split: str = "train"  # split of the data set
    resolution: Annotated[int, Field(ge=8, le=1024)] = 32  # pixels per side of the training images
    image_column: str | None = None  # columns of tables and hub data sets; none: found by their types
    label_column: str | None = None
    segmentation_column: str | None = None
    depth_column: str | None = None
    # What folders of images are where names leave it open: splits, classes, or plain (neither, and no maps).
    folders: Literal["auto", "splits", "classes", "plain"] = "auto"
    segmentation_folder: str | None = None  # that holds the label maps; none: found by its name
    condition: Literal["none", "class", "segmentation", "depth"] = "none"  # what images are generated from
    num_labels: Labels | None = None  # number of classes or of segmentation labels; none: counted
    crop: Literal["center", "fit"] = "center"  # the center square, or the whole image squeezed to a square
    flip: bool = False  # random horizontal flips
    num_images: Count | None = None  # use a random subset of so many images
    cache_gb: NonNegative = 4.0  # largest cache of decoded images, in 10^9 bytes; beyond it none is kept

    @model_validator(mode="after")
    def _labels_need_a_condition(self) -> DataRecipe:
        if self.num_labels is not None and self.condition not in ("class", "segmentation"):
            raise ValueError('data.num_labels belongs to data.condition = "class" or "segmentation"')
        return self


class AugmentRecipe(Section):
    """Differentiable augmentation of what a discriminator sees, real and generated (DiffAugment, StyleGAN2-ADA)."""

    policy: str = ""  # operations, as `translation,cutout,color`; see gtool/train/augment/policies.py
    p: Share = 1.0  # probability, per image, of each operation
    target: Share | None = None  # adaptive p (ADA): the value of E[sign D(real)] that p is steered towards
    kimg: Positive = 500.0  # adaptive p: kimg that p takes to go from 0 to 1

    @model_validator(mode="after")
    def _p_is_fixed_or_adaptive(self) -> AugmentRecipe:
        if self.target is not None and self.p != 1.0:
            raise ValueError("augment.target adapts the probability, augment.p fixes it; leave one out")
        if self.target is not None and self.policy.strip().lower() in ("", "none"):
            raise ValueError("augment.target needs operations in augment.policy, such as `ada`")
        return self


class OptimRecipe(Section):
    """Optimizer of all networks of a run, and the schedule of its learning rate."""

    kind: Literal["adam", "adamw"] = "adam"
    learning_rate: Positive = 1e-4
    discriminator_learning_rate: Positive | None = None  # none: learning_rate
    betas: Annotated[tuple[Beta, Beta], Field(strict=False)] = (0.0, 0.99)
    eps: Positive = 1e-8
    weight_decay: NonNegative = 0.0
    # StyleGAN2's correction for lazy regularization: with a regularizer every i > 1 steps, the learning rate is
    # multiplied by i / (i + 1) and the betas are raised to that power.
    lazy_rescale: bool = False
    generator_reg_interval: Count | None = None  # that i of the generator; none: loss.path_length_interval
    clip_grad_norm: Positive | None = None  # maximum norm of the gradients of a network
    warmup_steps: Annotated[int, Field(ge=0)] = 0  # steps of linear warm-up
    decay: Literal["none", "linear", "cosine"] = "none"  # decay of the learning rate
    decay_start: Share = 0.6  # share of the run after which it decays
    decay_to: Share = 0.0  # final learning rate as a share of the full one


class LossRecipe(Section):
    """Adversarial loss of a GAN, penalties on the discriminator's gradient, regularizers of the generator."""

    kind: Literal["wgan-eps", "wgan", "hinge", "lsgan", "non-saturating", "relativistic"] = "wgan-eps"
    gradient_penalty: NonNegative = 0.0  # weight of the WGAN-GP penalty
    drift: NonNegative = 0.0  # weight of the drift penalty D(real)^2 (wgan-eps)
    r1_gamma: NonNegative = 0.0  # weight of the R1 penalty, on real images
    r2_gamma: NonNegative = 0.0  # weight of the R2 penalty, on generated images
    gamma_decay: Positive = 1.0  # factor that both gammas have reached at the end of the run
    penalty_interval: Count = 1  # penalties are computed every so many steps (lazy regularization)
    energy_distance: NonNegative = (
        0.0  # weight of that between features of real and generated images (Cramer GAN)
    )
    projected: NonNegative = (
        0.0  # weight of discriminators on features of EfficientNet-Lite0 (Projected GANs)
    )
    projected_until: Share = 1.0  # share of the run after which these judge no more
    path_length: NonNegative = 0.0  # weight of the path length penalty (StyleGAN2)
    path_length_interval: Count = 4  # computed every so many steps
    path_length_decay: Share = 0.01  # of the running mean of path lengths
    path_length_batch_shrink: Count = 2  # it sees 1 / n of the generator's batch
    style_mixing: Share = 0.0  # probability, per image, that later layers get other latents
    component_mixing: Share = 0.0  # the same of later components (GANsformer)
    super_resolution: NonNegative = 0.0  # weight of the super-resolution co-training (TransGAN, version 1)
    super_resolution_kimg: NonNegative = 0.0  # it ends after so many kimg

    @model_validator(mode="after")
    def _drift_belongs_to_wgan_eps(self) -> LossRecipe:
        if self.drift and self.kind != "wgan-eps":
            raise ValueError(f"loss.drift is a term of `wgan-eps`, not of `{self.kind}`")
        return self


class StrokesRecipe(Section):
    """Losses and training images of a stroke predictor.

    It learns first from patches painted with random strokes, whose parameters are known (supervised), then from
    pictures as well, rewarded for the error that its strokes take away.
    """

    count: Annotated[int, Field(ge=1, le=64)] = 8  # strokes painted on a patch of 32 x 32 pixels
    brush: str = "flat"
    supervised_until: Share = 0.1  # share of the run with supervised patches only
    supervised_share: Share = 0.3  # share of supervised patches in a batch after that
    supervised_weight: NonNegative = 0.3  # and the weight of their loss after that
    l1: NonNegative = 5.0  # weights of the supervised loss: L1 of x, y, width and height
    angle: NonNegative = 1.0  # angle
    wasserstein: NonNegative = 5.0  # Wasserstein distance between strokes as Gaussians
    decision: NonNegative = 1.0  # cross-entropy of the decision whether a stroke is there
    decision_pos_weight: Positive = 2.0  # weight of strokes that are there in a decision's cross-entropy
    pixel: NonNegative = 0.0  # L1 of the patches as painted
    picture_decision: NonNegative = 1.0  # pictures: cross-entropy of the decision, towards the chosen strokes
    # Pictures: strokes are chosen by the error that they take away times their decision's probability to this power.
    # Among strokes of about equal gain those chosen before are chosen again, so that the decision can learn which.
    confidence_power: NonNegative = 1.0
    proposal_dropout: Share = 0.5  # pictures: share of patches where half of the proposals are hidden
    reward_eps: Positive = 0.02  # pictures: added to the error of a patch by which a reward is divided
    num_pictures: Annotated[int, Field(ge=16)] = 2048  # pictures made at the start of the run
    scenes_share: Share = 0.3  # share of built-in scenes among synthetic pictures; the others are dead leaves


class ReconstructionRecipe(Section):
    """Losses of a tokenizer (VQGAN): reconstruction, codebook, and a patch discriminator in the later part."""

    l1: NonNegative = 1.0  # weight of the L1 loss
    perceptual: NonNegative = 1.0  # weight of the perceptual loss
    # Of gradients of images, of features of EfficientNet-Lite0 (in the package), or LPIPS, which needs VGG16's weights.
    perceptual_kind: Literal["gradients", "efficientnet", "lpips"] = "gradients"
    codebook: NonNegative = 1.0  # weight of the codebook loss
    restart_interval: Annotated[int, Field(ge=0)] = 20  # steps between restarts of unused codes; 0: never
    restart_until: Share = 0.8  # share of the run after which codes are not restarted
    adversarial: NonNegative = 0.8  # weight of the adversarial loss
    adaptive_weight: bool = True  # times the ratio of gradient norms at the last layer (VQGAN, Eq. 7)
    # Upper bound of that ratio. The release allows 10000, but a discriminator that cannot tell anything has hardly any
    # gradient, and the ratio then amplifies its noise.
    adaptive_weight_max: Positive = 0.2
    discriminator_start: Share = 0.45  # share of the run after which the discriminator is trained
    adversarial_start: Share = 0.5  # share of the run after which the decoder gets its adversarial loss
    adversarial_ramp: Share = 0.1  # share of the run in which that loss grows to its full weight

    @model_validator(mode="after")
    def _check(self) -> ReconstructionRecipe:
        if self.adversarial and self.discriminator_start > self.adversarial_start:
            raise ValueError(
                f"reconstruction.discriminator_start = {self.discriminator_start:g} comes after "
                f"reconstruction.adversarial_start = {self.adversarial_start:g}"
            )
        return self


class PriorRecipe(Section):
    """Inputs of an autoregressive prior over the codes of a tokenizer."""

    tokenizer: str | None = None  # a run, a weights file or a hub id; none: the newest of the data set
    token_keep_prob: Annotated[float, Field(gt=0, le=1)] = 1.0  # else an input code is random (pkeep)
    encode_flipped: bool = False  # also learn the codes of the horizontally flipped images
    condition_dropout: Share = 0.0  # probability, per image, that its condition is dropped
    # With model.prior.orders = any: probability, per image, that it is learned in a random order. It falls from 1 at
    # the start of the run to this at its end; the other images are learned row by row.
    random_orders: Share = 0.5
    preview_top_k: Count | None = None  # top-k sampling of the previews


class TrainRecipe(Section):
    """Length, batches, averaging, snapshots. One kimg is a thousand real images shown to the network."""

    weights: str | None = None  # to begin with: a run, a file, a hub id, `transgan` and others of the package
    # Of a GAN that begins with weights beside which there is no discriminator: kimg in which that learns alone.
    discriminator_kimg: NonNegative = 2.0
    kimg: Positive = 1000.0  # length of the run
    minutes: Positive | None = None  # limit of its time; schedules follow whichever is nearer its end
    batch_size: Count = 64  # images per optimizer step, over all processes
    generator_batch_size: Count | None = None  # none: batch_size
    micro_batch: Count | None = None  # images per forward and process (gradient accumulation)
    n_critic: Count = 1  # discriminator steps per generator step
    share_fakes: bool = False  # the generator step reuses the images of the discriminator step
    ema_kimg: NonNegative = 500.0  # half-life of the moving average of weights
    ema_rampup: NonNegative = 0.1  # half-life at most this share of the images so far; 0: no ramp-up
    ema_decay: Share | None = None  # decay per step in place of a half-life
    locality: Schedule = ()  # [until kimg, width] of the attention neighbourhood (TransGAN, version 1)
    tick_kimg: Positive = 4.0  # between two lines of the log
    snapshot_kimg: Positive = 200.0  # between two snapshots: weights, state, preview, scores
    keep_snapshots: Count = 3  # newest snapshots that are kept, beside the weights of the best
    metrics: Metrics = ("rfd", "swd")  # scores of a GAN's snapshots
    metric_images: Annotated[int, Field(ge=16)] = 2000  # images that scores of snapshots are computed from
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto: bf16 where the hardware is fast at it
    penalty_precision: Literal["fp32", "auto"] = "fp32"  # of gradient penalties; auto: that of the run
    compile: bool = False  # torch.compile the networks; not under a gradient penalty or path length
    recompute: bool = False  # blocks are computed again in the backward pass, which saves memory
    # On a GPU, kernels that add in a fixed order: a resumed run ends with the bits of one that never stopped, as it
    # always does on a CPU. What it costs has not been measured.
    deterministic: bool = False
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _batches_fit(self) -> TrainRecipe:
        generator = self.generator_batch_size or self.batch_size
        for name, batch in (("batch_size", self.batch_size), ("generator_batch_size", generator)):
            if self.micro_batch and batch % min(self.micro_batch, batch):
                raise ValueError(
                    f"train.{name} = {batch} is not a multiple of train.micro_batch = {self.micro_batch}"
                )
        if self.share_fakes and (
            generator != self.batch_size or (self.micro_batch or self.batch_size) < self.batch_size
        ):
            raise ValueError(
                "train.share_fakes needs equal batches of both networks and no train.micro_batch"
            )
        return self


class SampleRecipe(Section):
    """Previews that a run makes of itself."""

    num: Count = 64  # images of a preview
    columns: Count | None = None  # images per row; none: about square
    fps: Positive = 8.0  # of the animation of all previews


class Recipe(Section):
    """A whole recipe; `model` is checked by the config class of the model it names."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    model_name: str
    model: dict[str, Any] = Field(default_factory=dict)
    data: DataRecipe = DataRecipe()
    augment: AugmentRecipe = AugmentRecipe()
    optim: OptimRecipe = OptimRecipe()
    loss: LossRecipe = LossRecipe()
    strokes: StrokesRecipe = StrokesRecipe()
    reconstruction: ReconstructionRecipe = ReconstructionRecipe()
    prior: PriorRecipe = PriorRecipe()
    train: TrainRecipe = TrainRecipe()
    sample: SampleRecipe = SampleRecipe()

    @model_validator(mode="after")
    def _path_length_needs_fakes_of_its_own(self) -> Recipe:
        if self.train.share_fakes and self.loss.path_length:
            raise ValueError("train.share_fakes and loss.path_length exclude each other")
        return self

    @model_validator(mode="after")
    def _compiled_networks_are_differentiated_once(self) -> Recipe:
        loss = self.loss
        if self.train.compile and (
            loss.gradient_penalty or loss.r1_gamma or loss.r2_gamma or loss.path_length
        ):
            raise ValueError(
                "train.compile: torch's compiler has no second derivatives, which loss.gradient_penalty, r1_gamma, "
                "r2_gamma and path_length take; set them to 0, or train.compile to false"
            )
        return self


_GAMMAS = ("loss.r1_gamma", "loss.r2_gamma")
_PENALTIES = (*_GAMMAS, "loss.gradient_penalty")
# Keys that have an effect only where one of others is on: not 0, false, empty or none.
NEEDS = {
    "augment.p": ("augment.policy",),
    "augment.kimg": ("augment.target",),
    "optim.decay_start": ("optim.decay",),
    "optim.decay_to": ("optim.decay",),
    "optim.generator_reg_interval": ("optim.lazy_rescale",),
    "loss.gamma_decay": _GAMMAS,
    "loss.penalty_interval": _PENALTIES,
    "loss.projected_until": ("loss.projected",),
    "loss.path_length_interval": ("loss.path_length",),
    "loss.path_length_decay": ("loss.path_length",),
    "loss.path_length_batch_shrink": ("loss.path_length",),
    "loss.super_resolution_kimg": ("loss.super_resolution",),
    "reconstruction.restart_until": ("reconstruction.restart_interval",),
    "reconstruction.perceptual_kind": ("reconstruction.perceptual",),
    "reconstruction.discriminator_start": ("reconstruction.adversarial",),
    "reconstruction.adversarial_start": ("reconstruction.adversarial",),
    "reconstruction.adversarial_ramp": ("reconstruction.adversarial",),
    "reconstruction.adaptive_weight": ("reconstruction.adversarial",),
    "reconstruction.adaptive_weight_max": ("reconstruction.adaptive_weight",),
    "train.discriminator_kimg": ("train.weights",),
    "train.penalty_precision": (*_PENALTIES, "loss.path_length"),
}
