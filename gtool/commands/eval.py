"""`gtool eval`: score a run, weights or a folder of images against real ones; print and keep the record."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gtool import __version__, checkpoint, console
from gtool.commands import eval_paired
from gtool.commands.shards import check_sharing, merge_parts, score_part, take_together, understand_parts
from gtool.data.names import ARCHIVES, find_dataset
from gtool.errors import CheckpointError, RecipeError, did_you_mean
from gtool.metrics.published import check_statistics, is_statistics, refuse_beyond_statistics

if TYPE_CHECKING:
    from gtool.commands.scoring_sides import Candidate, Stored, Unopened, Wanted
    from gtool.commands.scoring_statistics import Summary
    from gtool.device import Compute

    Sides = tuple[Candidate, Stored | Summary | Unopened, dict[str, Any]]

SCHEMA = 1
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
    num_processes: int | None = None
    shard: str | None = None  # 2/8
    merge: bool = False
    files: tuple[str, ...] = ()  # parts to merge
    part: Path | None = None  # where this shard goes
    export_reference: Path | None = None
    fit: bool = False
    strict: bool = False
    skip_bad: int = 0
    as_json: bool = False

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
    """
    check_sharing(request)
    request, target = understand_parts(request) if request.merge else _understand(request)
    from gtool.device import launch, launched_processes, make_compute

    if (request.num_processes or 1) > 1 and launched_processes() is None:
        launch(request.num_processes or 1, sys.argv[1:])
        return {}
    started = time.monotonic()
    compute = make_compute(request.device, request.precision, num_processes=request.num_processes)
    console.set_quiet(console.is_quiet() or not compute.is_main)
    if request.shard:
        return score_part(request, target, compute)
    record = _score(request, target, compute) if request.metrics else _head(request, target, compute)
    if request.paired:
        record |= eval_paired.score(str(target.folder), request, compute)
    for look in request.looks:
        record[look] = import_module(LOOKS[look][0]).score(target.weights, request, compute)
    compute.close()
    if not compute.is_main:
        return record
    record["seconds"] = round(time.monotonic() - started, 1)
    _keep(record, target)
    _print(record, request)
    return record


# What was asked for; nothing heavy is imported here.


def _understand(request: Request) -> tuple[Request, Target]:
    """Fill in the defaults and refuse what cannot work before anything is loaded."""
    if request.mode not in MODES:
        raise RecipeError(f"--mode {request.mode}: unknown{did_you_mean(request.mode, MODES)}")
    if request.other is not None and request.reference is not None:
        raise RecipeError("a second folder and --reference both say what to compare with; give one")
    if request.other is not None:
        request = replace(request, reference=str(request.other))
    target = find_target(request.target)
    if request.looks and target.weights is None:
        raise RecipeError(
            f"{target.folder}: {_flag(request.looks[0])} looks into a model; name a run or weights"
        )
    if target.folder is not None and request.reference is None:
        raise RecipeError(
            f"{target.folder}: a folder is compared with another; name it second, or --reference NAME"
        )
    if request.reference is not None and is_statistics(request.reference):
        check_statistics(request.reference, request.mode)
    elif request.reference is not None:
        find_dataset(request.reference)  # raises when the name leads nowhere
    if request.weights is not None and not request.weights.is_file():
        raise CheckpointError(f"{request.weights}: no such file (--weights)")
    eval_paired.refuse_unpaired(request, target.folder)
    _refuse_idle(request)
    if not request.metrics and not request.looks and not request.paired:
        console.notice("no metric was named: rfd and swd, which need no weights (--fid and --kid need them)")
        request = replace(request, metrics=WITHOUT_WEIGHTS)
    if request.reference is not None and is_statistics(request.reference):
        refuse_beyond_statistics(request)
    return request, target


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
        path, spec = Path(spec).expanduser(), str(spec)
        is_run = (path / "recipe.toml").is_file() or any(path.glob("weights-*.safetensors"))
        if (path.is_dir() and not is_run) or path.suffix.lower() in ARCHIVES:
            find_dataset(spec)
            return Target(None, spec)
    return Target(checkpoint.find_weights(spec), None)


# Scoring.


def _score(request: Request, target: Target, compute: Compute) -> dict[str, Any]:
    from gtool.commands.scoring import Scorer
    from gtool.commands.scoring_statistics import export_reference

    if request.merge:
        scorer, real, about = merge_parts(request, compute)
        fake: Candidate | None = None
    else:
        fake, real, about = open_sides(request, target, compute)
        scorer = Scorer(request, real, fake.count, compute.device)
        take_together(scorer, fake, target.name, compute)
    if not compute.is_main:
        return {}
    metrics = scorer.records()
    _remark(metrics)
    if request.export_reference is not None:
        export_reference(scorer, request.export_reference)
    return _head(request, target, compute) | {
        **about,
        "reference": {
            "name": real.name,
            "fingerprint": real.key["source"],
            "resolution": real.key["resolution"],
        },
        "images": {
            side: makeup
            for side, images in (("fake", fake), ("real", real))
            if (makeup := getattr(images, "makeup", None))
        },
        "metrics": metrics,
    }


def _head(request: Request, target: Target, compute: Compute) -> dict[str, Any]:
    """What every record says."""
    return {
        "schema": SCHEMA,
        "target": target.name,
        "seed": request.seed,
        "device": compute.describe(),
        "gtool": __version__,
    }


def open_sides(request: Request, target: Target, compute: Compute) -> Sides:
    """Return the candidate, the reference, and what is known about the candidate."""
    from gtool.commands.scoring_sides import open_stored
    from gtool.commands.scoring_statistics import open_reference

    if target.weights is None:
        # Two folders are compared as they are, all images of both, unless the user wants otherwise.
        fake = open_stored(
            named_images(request, str(target.folder), "train", request.resolution), request.num, request.seed
        )
        against = named_images(request, str(request.reference), request.split or "train", request.resolution)
        return fake, open_reference(request, against, request.num), {"candidate": fake.key}
    return _open_generated(request, target.weights, compute)


def _open_generated(request: Request, path: Path, compute: Compute) -> Sides:
    """A model is compared with the pixels it was trained on, or with others brought to its resolution."""
    from gtool.commands.scoring_sides import Generated
    from gtool.commands.scoring_statistics import open_reference
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
    real = open_reference(request, reference_of(request, meta, path), num)
    about = {"nimg": meta.get("nimg"), "precision": compute.precision}
    if not composes:
        return Generated(network, compute, request.seed, num), real, about
    fake = open_composed(network, meta, path, request, num, compute)
    return fake, real, about | fake.about


def named_images(
    request: Request, dataset: str, split: str, resolution: int | None, crop: str = "center"
) -> Wanted:
    """Return how to open images that the user has named."""
    from gtool.commands.scoring_sides import Wanted

    crop = "fit" if request.fit else crop
    return Wanted(dataset, split, resolution, crop, skip_bad=request.skip_bad, strict=request.strict)


def reference_of(request: Request, meta: dict[str, Any], path: Path) -> Wanted:
    """Return the data set that weights were trained on, or the one named, at the weights' resolution."""
    from gtool.commands.scoring_sides import Wanted

    resolution = meta["config"]["resolution"]
    refuse_resolution(request, meta, path)
    data = meta.get("recipe", {}).get("data", {})
    if request.reference is not None:
        return named_images(
            request, request.reference, request.split or "train", resolution, data.get("crop", "center")
        )
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
        skip_bad=None,  # what training could not read is left out here too
    )


def refuse_resolution(request: Request, meta: dict[str, Any], path: Path) -> None:
    """Refuse another size than the weights' own."""
    resolution = meta["config"]["resolution"]
    if request.resolution not in (None, resolution):
        raise RecipeError(f"--resolution {request.resolution}: {path} makes images of {resolution} px")


# What comes out.


def _remark(metrics: dict[str, dict[str, Any]]) -> None:
    """Say what the number of images allows to conclude."""
    from gtool.metrics.fid import COMPARABLE, NEEDED

    if "fid" not in metrics:
        return
    # Published statistics may come without the number of images behind them.
    count = min(filter(None, (metrics["fid"]["num_fake"], metrics["fid"]["num_real"])))
    if metrics["fid"]["value"] == 0:
        console.notice("fid came out at zero, or below it by rounding, and is given as 0: equal images?")
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


def _keep(record: dict[str, Any], target: Target) -> None:
    """Append the record to the run's eval.jsonl, where the weights lie in a run."""
    if target.weights is None or not (target.weights.parent / "recipe.toml").is_file():
        return
    path = target.weights.parent / "eval.jsonl"
    try:
        with path.open("a", encoding="utf-8") as out:
            out.write(json.dumps(record, sort_keys=True) + "\n")
    except OSError as bad:
        console.warning(f"{path}: the record could not be kept: {bad.strerror}")


def _print(record: dict[str, Any], request: Request) -> None:
    if request.as_json:
        console.result_json(record)
        return
    for look in request.looks:
        import_module(LOOKS[look][0]).print_tables(record[look], record["target"])
    if "metrics" not in record:
        return
    rows = [
        [found["protocol"], _number(found["value"]), _floor(found), _ratio(found)]
        for found in record["metrics"].values()
    ]
    title = f"{record['target']} against {record['reference']['name']}"
    if "sampling" in record:
        title += f"; top-k {record['sampling']['top_k']}, from {record['sampling']['conditions']}"
    console.table(["metric", "value", "real v real", "ratio"], rows, title)


def _number(value: float) -> str:
    return f"{value:.5f}" if abs(value) < 1 else f"{value:.3f}"


def _floor(found: dict[str, Any]) -> str:
    if "floor" in found:
        return _number(found["floor"])
    return f"sd {_number(found['deviation'])}" if found.get("deviation") is not None else ""


def _ratio(found: dict[str, Any]) -> str:
    return f"{found['ratio']:.2f}" if found.get("ratio") is not None else ""
