"""`gtool eval`: score a run, weights or a folder of images against real ones."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gtool import __version__, checkpoint, console
from gtool.commands import eval_paired
from gtool.commands.eval_outputs import Demands, Plan, Scored, finish, understand_demands
from gtool.commands.gates import flags_of, metrics_of
from gtool.commands.results import SCHEMA, Stages, provenance
from gtool.data.names import ARCHIVES, find_dataset
from gtool.errors import CheckpointError, RecipeError, did_you_mean

if TYPE_CHECKING:
    from gtool.commands.eval_gallery import Gallery
    from gtool.commands.scoring_sides import Candidate, Stored, Wanted
    from gtool.device import Compute

METRICS = ("fid", "kid", "is", "pr", "density", "fid_infinity", "rfd", "swd")
WITHOUT_WEIGHTS = ("rfd", "swd")
MODES = ("clean", "legacy_tensorflow", "legacy_pytorch")
# What looks into a model: the module that scores it and prints its table; whether it compares with a data set.
LOOKS = {
    "attention": ("gtool.commands.eval_attention", False),
    "reconstruction": ("gtool.commands.eval_reconstruction", True),
    "map_agreement": ("gtool.commands.eval_map_agreement", False),
}
NUM_GENERATED = 2000  # for rfd and swd
NUM_GENERATED_FID = 10_000  # below this nobody publishes FIDs


@dataclass(frozen=True, kw_only=True)
class Request:
    """The command line of `gtool eval`, as typed."""

    target: str | None = None  # run, weights or folder; None = the newest run
    other: str | None = None  # a second folder, in place of --reference
    metrics: tuple[str, ...] = ()
    attention: bool = False
    reconstruction: bool = False
    map_agreement: bool = False
    paired: bool = False
    lpips_vgg: Path | None = None
    lpips_heads: Path | None = None
    num: int | None = None
    reference: str | None = None
    split: str | None = None
    mode: str = "clean"
    weights: Path | None = None
    seed: int = 0
    preview: bool = False
    batch_size: int = 32
    resolution: int | None = None
    device: str = "auto"
    precision: str = "auto"
    as_json: bool = False
    demands: Demands = field(default_factory=Demands)

    @property
    def looks(self) -> list[str]:
        """What is asked for besides metrics, by its name in the record."""
        return [name for name in LOOKS if getattr(self, name)]


@dataclass(frozen=True)
class Target:
    """What is scored: a weights file, or a folder (or archive) of images."""

    weights: Path | None
    folder: str | None

    @property
    def name(self) -> str:
        return str(self.weights or self.folder)


def evaluate(request: Request) -> dict[str, Any]:
    """Score one target by the metrics asked for, print the result and return the record.

    Raises:
        RecipeError: options that do not go together.
        CheckpointError, DataError, NetworkError: weights, images or the Inception file cannot be had.
        GateError: a gate was not met; everything has been printed and written.
    """
    request, target, plan = _understand(request)
    from gtool.device import make_compute

    started = time.monotonic()
    compute = make_compute(request.device, request.precision)
    gallery = _make_gallery(plan)
    record = _head(request, target, compute)
    if request.metrics:
        record |= _score(request, target, compute, gallery)
    if request.paired:
        record |= eval_paired.score(str(target.folder), request, compute)
    for look in request.looks:
        record[look] = import_module(LOOKS[look][0]).score(target.weights, request, compute)
    record["seconds"] = round(time.monotonic() - started, 1)
    scored = Scored(record, plan, target.weights, gallery)
    return finish(scored, as_json=request.as_json, tables=partial(_print_looks, request.looks))


def _print_looks(looks: list[str], record: Mapping[str, Any]) -> None:
    for look in looks:
        import_module(LOOKS[look][0]).print_tables(record[look], record["target"])


def _make_gallery(plan: Plan) -> Gallery | None:
    """Return what keeps images for a page, where one will be written."""
    if not plan.wants_pictures:
        return None
    from gtool.commands.eval_gallery import Gallery

    return Gallery()


# What was asked for; nothing heavy is imported here.


def _understand(request: Request) -> tuple[Request, Target, Plan]:
    """Fill in the defaults and refuse what cannot work before anything is loaded."""
    plan = understand_demands(request.demands, tuple(LOOKS))
    request = _ask_for_gates(request, plan)
    if request.mode not in MODES:
        raise RecipeError(f"--mode {request.mode}: unknown{did_you_mean(request.mode, MODES)}")
    if request.other is not None and request.reference is not None:
        raise RecipeError("a second folder and --reference both say what to compare with; give one")
    if request.other is not None:
        request = replace(request, reference=request.other)
    target = find_target(request.target)
    if request.looks and target.weights is None:
        raise RecipeError(
            f"{target.folder}: {_flag(request.looks[0])} looks into a model; name a run or weights"
        )
    if target.folder is not None and request.reference is None:
        raise RecipeError(
            f"{target.folder}: a folder is compared with another; name it second, or --reference NAME"
        )
    if request.reference is not None:
        find_dataset(request.reference)  # raises when the name leads nowhere
    if request.weights is not None and not request.weights.is_file():
        raise CheckpointError(f"{request.weights}: no such file (--weights)")
    eval_paired.refuse_unpaired(request, target.folder)
    _refuse_idle(request)
    if not request.metrics and not request.looks and not request.paired:
        console.notice("no metric was named: rfd and swd, which need no weights (--fid and --kid need them)")
        request = replace(request, metrics=WITHOUT_WEIGHTS)
    return request, target, plan


def _ask_for_gates(request: Request, plan: Plan) -> Request:
    """Ask for what gates are about; where nothing is asked for at all, for what the baseline has."""
    wanted = [gate.metric for gate in plan.gates]
    if not wanted and not request.metrics and not request.looks and plan.baseline is not None:
        wanted = metrics_of(plan.baseline)
    flags = flags_of(wanted)
    # Looks, and whatever else is scored beside METRICS, are switches of the request.
    switches: dict[str, Any] = {
        name: True
        for name in (*flags, *LOOKS)
        if name in Request.__dataclass_fields__
        and (name in flags or any(one.startswith(f"{name}.") for one in wanted))
    }
    metrics = (*request.metrics, *(flag for flag in flags if flag not in request.metrics))
    return replace(request, metrics=tuple(name for name in METRICS if name in metrics), **switches)


def _refuse_idle(request: Request) -> None:
    """Refuse what says what to compare with where nothing is compared."""
    if request.metrics or not request.looks:
        return
    compares = any(LOOKS[look][1] for look in request.looks)
    for name in ("weights",) if compares else ("reference", "split", "resolution", "weights"):
        if getattr(request, name) is not None:
            why = "needs no Inception" if compares else "compares with nothing real"
            raise RecipeError(
                f"--{name}: {_flag(request.looks[0])} {why}; give a metric too, or leave it out"
            )


def _flag(look: str) -> str:
    return f"--{look.replace('_', '-')}"


def find_target(spec: str | None) -> Target:
    """Return the weights or the folder that a word means; CheckpointError when it means nothing."""
    if spec is not None:
        path = Path(spec).expanduser()
        is_run = (path / "recipe.toml").is_file() or any(path.glob("weights-*.safetensors"))
        if (path.is_dir() and not is_run) or path.suffix.lower() in ARCHIVES:
            find_dataset(spec)
            return Target(None, spec)
    return Target(checkpoint.find_weights(spec), None)


# Scoring.


def _score(request: Request, target: Target, compute: Compute, gallery: Gallery | None) -> dict[str, Any]:
    from gtool.commands.scoring import Scorer

    stages = Stages()
    fake, real, about = _open(request, target, compute)
    if gallery is not None:
        fake = gallery.watch(fake, real)
    stages.done("opening")
    scorer = Scorer(request, real, fake.count, compute.device)
    stages.done("reference")
    scorer.take(fake, target.name)
    stages.done("candidate")
    metrics = scorer.records()
    stages.done("distances")
    _remark(metrics)
    return {
        **about,
        "reference": {
            "name": real.name,
            "fingerprint": real.key["source"],
            "resolution": real.key["resolution"],
        },
        "metrics": metrics,
        "stages": stages.seconds,
    }


def _head(request: Request, target: Target, compute: Compute) -> dict[str, Any]:
    """What every record says."""
    return {
        "schema": SCHEMA,
        "target": target.name,
        "seed": request.seed,
        "device": compute.describe(),
        "gtool": __version__,
        **provenance(target.weights),
    }


def _open(request: Request, target: Target, compute: Compute) -> tuple[Candidate, Stored, dict[str, Any]]:
    """Return the candidate, the reference, and what is known about the candidate."""
    from gtool.commands.scoring_sides import Wanted, open_stored

    if target.weights is None:
        # Two folders are compared as they are, all images of both, unless the user wants otherwise.
        wanted = Wanted(str(target.folder), "train", request.resolution)
        fake = open_stored(wanted, request.num, request.seed)
        against = Wanted(str(request.reference), request.split or "train", request.resolution)
        return fake, open_stored(against, request.num, request.seed), {"candidate": fake.key}
    return _open_generated(request, target.weights, compute)


def _open_generated(
    request: Request, path: Path, compute: Compute
) -> tuple[Candidate, Stored, dict[str, Any]]:
    """A model is compared with the pixels it was trained on, or with others brought to its resolution."""
    from gtool.commands.scoring_sides import Generated, open_stored
    from gtool.engines.generation import load_generator

    model = checkpoint.read_meta(path).get("model")
    composes = model == "prior"
    if model == "vqgan":
        raise RecipeError(
            f"{path}: weights of vqgan, which makes no images by itself; score it by --reconstruction"
        )
    if composes:
        from gtool.commands.scoring_composed import open_composed
        from gtool.engines.composed import load_composer

        network, meta = load_composer(path, compute)
    else:
        network, meta = load_generator(path, compute)
    few = set(request.metrics) <= set(WITHOUT_WEIGHTS)
    num = request.num or (NUM_GENERATED if few else NUM_GENERATED_FID)
    real = open_stored(reference_of(request, meta, path), num, request.seed)
    about = {"nimg": meta.get("nimg"), "precision": compute.precision}
    if not composes:
        return Generated(network, compute, request.seed, num), real, about
    fake = open_composed(network, meta, path, request, num, compute)
    return fake, real, about | fake.about


def reference_of(request: Request, meta: dict[str, Any], path: Path) -> Wanted:
    """Return the data set that weights were trained on, or the one named, at the weights' resolution."""
    from gtool.commands.scoring_sides import Wanted

    resolution = meta["config"]["resolution"]
    refuse_resolution(request, meta, path)
    data = meta.get("recipe", {}).get("data", {})
    if request.reference is not None:
        return Wanted(request.reference, request.split or "train", resolution, data.get("crop", "center"))
    if "dataset" not in data:
        raise CheckpointError(
            f"{path}: does not say what it was trained on; name a data set with --reference"
        )
    split = request.split or data["split"]
    columns = tuple(data.get(f"{kind}_column") for kind in ("image", "label", "segmentation"))
    return Wanted(
        data["dataset"],
        split,
        resolution,
        data["crop"],
        columns,
        data.get("num_images") if split == data["split"] else None,
        data["cache_gb"],
    )


def refuse_resolution(request: Request, meta: dict[str, Any], path: Path) -> None:
    """Refuse another size than the weights' own."""
    resolution = meta["config"]["resolution"]
    if request.resolution not in (None, resolution):
        raise RecipeError(f"--resolution {request.resolution}: {path} makes images of {resolution} px")


# What the numbers allow.


def _remark(metrics: dict[str, dict[str, Any]]) -> None:
    """Say what the number of images allows to conclude."""
    from gtool.metrics.fid import COMPARABLE, NEEDED

    if "fid" not in metrics:
        return
    count = min(metrics["fid"]["num_fake"], metrics["fid"]["num_real"])
    is_fp32 = metrics["fid"]["dtype"] == "fp32"
    metrics["fid"]["comparable"] = count >= COMPARABLE and is_fp32
    if not is_fp32:
        console.warning(
            "fid of a bf16 preview is not comparable with any other; leave out --preview for that"
        )
    if count < NEEDED:
        console.warning(
            f"fid from {count:,} images, fewer than its {NEEDED:,} dimensions: mostly bias; trust kid"
        )
    if count < COMPARABLE:
        console.warning(
            f"fid from {count:,} images is not comparable with published numbers (10,000 or more)"
        )
