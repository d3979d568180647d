"""What a `gtool eval` command line can say. The flags of metrics follow from gtool.metrics.registry."""

from dataclasses import dataclass
from pathlib import Path

from gtool import flags
from gtool.eval.gates import DIAGNOSTICS, Gate
from gtool.flags import DEVICE, OUTPUT, argument, examples, option
from gtool.metrics.features.published import is_statistics
from gtool.metrics.registry import METRICS

EXAMPLES = examples(
    "`gtool eval` : the newest run against its own data set, by rfd and swd, which need no download",
    "`gtool eval --fid` : FID of the newest run, 10,000 images, clean-fid's protocol",
    "`gtool eval runs/transgan-cifar10-000 --fid --kid --num 50000` : the published convention for CIFAR-10",
    "`gtool eval samples/ photos/ --kid --json` : two folders",
    "`gtool eval RUN --fd-dinov2 --mind` : what agrees best with people, and what takes few images",
    "`gtool eval RUN --copies` : an alarm where its images repeat training images, with the pairs",
    "`gtool eval --attention` : a table of scores beside four baselines, and a sheet of images",
    "`gtool eval runs/vqgan-scenes-000 --reconstruction` : a tokenizer, or that of a prior, on held-out images",
    "`gtool eval runs/prior-scenes-000 --map-agreement` : with two ceilings (originals, reconstructions) "
    "and a baseline",
    "`gtool eval samples/ --reference cifar10 --split test --rfd`",
    "`gtool eval --reference cifar10 --resolution 32 --export-reference cifar10.npz` : statistics alone, "
    "for later scores",
    "`gtool eval painted/ originals/ --paired --lpips` : PSNR, SSIM, L1 and LPIPS, picture by picture",
    "`gtool eval RUN --max fid=20 --max kid=0.01:warn -o result.json -o junit.xml -o report.html` : "
    "gates for pipelines",
    "`gtool eval RUN --baseline main.json --max-regress fid=5%` : no worse than an earlier result",
)

IMAGES, METRIC, REFERENCE, GATES = "Images", "Metrics", "Reference", "Gates"


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """Score images: FID and KID by clean-fid's protocol, or rfd and swd, which work offline.

    A gate computes its metric without the metric's flag. The exit status is 4 when a gate is not met.
    """

    target: str | None = argument("A run, weights, or a folder of images; the newest run when left out.")
    other: str | None = argument("What a folder is compared with, in place of --reference.")
    metrics: tuple[str, ...] = flags.flags(METRIC, {name: metric.help for name, metric in METRICS.items()})
    diagnostics: tuple[str, ...] = flags.flags(METRIC, DIAGNOSTICS)
    num: int | None = option(
        IMAGES,
        "Number of images of each set. Default: all of a folder; 10000 generated ones, 5000 for cmmd and mind alone, "
        "2000 for rfd and swd alone, --reconstruction and --copies, up to 1000 for --attention, 500 of each class for "
        "--per-class, 256 for --map-agreement.",
        min=2,
    )
    seed: int = option(IMAGES, "Random seed of the images and of the subsets.", default=0)
    resolution: int | None = option(
        IMAGES, "Crop and resize the images of folders to this many pixels.", min=16
    )
    fit: bool = option(IMAGES, "Squeeze images that are not square instead of cropping.", default=False)
    strict: bool = option(IMAGES, "Refuse folders that contain files other than images.", default=False)
    skip_bad: int = option(IMAGES, "Leave out up to this many images that cannot be read.", default=0, min=0)
    reference: str | None = option(
        REFERENCE,
        "Real images: a data set's name, a folder, or statistics (.npz, or `clean-fid:cifar10-32-train`). "
        "Default: the run's own data.",
    )
    split: str | None = option(REFERENCE, "Split of the reference data set. Default: the one trained on.")
    mode: str = option(
        REFERENCE,
        "Resizing for Inception: `clean`, `legacy_tensorflow` or `legacy_pytorch`.",
        default="clean",
    )
    weights: Path | None = option(REFERENCE, "File with the Inception weights.")
    clip_weights: Path | None = option(REFERENCE, "File with the CLIP ViT-B/32 weights.")
    clip_large_weights: Path | None = option(REFERENCE, "File with the CLIP ViT-L/14 (336 px) weights.")
    dinov2: str = option(
        REFERENCE,
        "DINOv2's network: `vit-s-14`, `vit-b-14` or `vit-l-14`, of which published numbers are.",
        default="vit-b-14",
    )
    dinov2_weights: Path | None = option(REFERENCE, "File with the weights of that network.")
    export_reference: Path | None = option(
        REFERENCE,
        "Also write mean and covariance of the reference's Inception features to this .npz; with "
        "neither target nor metric, nothing is scored.",
    )
    maximum: tuple[str, ...] = option(
        GATES,
        "Exit with status 4 where a score is higher: `fid=20`; only warn: `fid=20:warn`; repeatable.",
        "--max",
        default=(),
        metavar="METRIC=X",
    )
    minimum: tuple[str, ...] = option(
        GATES,
        "The same where it is lower: `recall=0.3`; repeatable.",
        "--min",
        default=(),
        metavar="METRIC=X",
    )
    baseline: Path | None = option(
        GATES, "An earlier result to compare with: .json, or the last line of .jsonl."
    )
    max_regress: tuple[str, ...] = option(
        GATES,
        "How much worse than the baseline a score may be: `fid=5%` or `fid=0.3`; repeatable.",
        default=(),
        metavar="METRIC=X",
    )
    exit_zero: bool = option(GATES, "Exit with status 0 even where gates fail.", default=False)
    outputs: tuple[Path, ...] = option(
        OUTPUT,
        "Also write the result, by suffix: `.json`, `.jsonl` (adds a line), `.xml` (JUnit), `.md` or `.html`; "
        "repeatable.",
        "--output",
        "-o",
        default=(),
        metavar="FILE",
    )
    gitlab_metrics: Path | None = option(OUTPUT, "Write `name value` lines, for GitLab's metrics report.")
    as_json: bool = flags.as_json()
    device: str = flags.device()
    precision: str = flags.precision()
    preview: bool = option(
        DEVICE, "Compute features in bf16: faster, and not comparable with other scores.", default=False
    )
    batch_size: int = option(
        DEVICE, "Images per forward; another number changes no more than rounding.", default=32, min=1
    )
    num_processes: int | None = option(DEVICE, "Number of processes on this machine.", min=1)
    timeout: float = flags.timeout()
    gates: tuple[Gate, ...] = ()  # of --max, --min and --max-regress

    @property
    def paired(self) -> tuple[str, ...]:
        """The metrics that compare pictures of the same name."""
        return tuple(name for name in self.metrics if METRICS[name].is_paired)

    @property
    def only_reference(self) -> bool:
        """Whether nothing is scored: a reference is named, and where its statistics go, and nothing else."""
        named = self.reference is not None and self.export_reference is not None
        asked = self.metrics or self.diagnostics or self.gates or self.outputs or self.baseline
        return named and self.target is None and not (asked or self.gitlab_metrics)

    @property
    def needs_reference(self) -> bool:
        """Whether anything real takes part; of a model's images alone there are scores too."""
        return not self.metrics or any(METRICS[name].real for name in self.metrics)

    @property
    def against_statistics(self) -> bool:
        """Whether the reference is a mean and covariance, without images."""
        return self.reference is not None and is_statistics(self.reference)
