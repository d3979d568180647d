"""`gtool eval`: score a run, weights or a folder of images against real ones."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gtool import __version__, console
from gtool.errors import CheckpointError, RecipeError
from gtool.eval import paired
from gtool.eval.options import LOOKS, WITHOUT_WEIGHTS, Request, Target, check_only_reference, understand
from gtool.eval.processes import share_reference, take_together
from gtool.eval.report.outputs import Plan, Scored, finish
from gtool.eval.report.record import SCHEMA, Stages, provenance
from gtool.io.run_folder import read_meta

if TYPE_CHECKING:
    from gtool.eval.image_sets import Candidate, Wanted
    from gtool.eval.reference import Reference
    from gtool.eval.report.preview import Gallery
    from gtool.runtime.device import Compute

    Sides = tuple[Candidate, Reference, dict[str, Any]]

NUM_GENERATED = 2000  # for rfd and swd
NUM_GENERATED_FID = 10_000  # below this nobody publishes FIDs


def evaluate(request: Request) -> dict[str, Any]:
    """Score one target by the metrics asked for, print the result and return the record.

    Raises:
        RecipeError: options that do not go together.
        CheckpointError, DataError, NetworkError: weights, images or the Inception file cannot be had.
        GateError: a gate was not met; everything has been printed and written.
    """
    if request.only_reference:
        return _make_statistics(request)
    request, target, plan = understand(request)
    started = time.monotonic()
    compute = _start(request)
    if compute is None:
        return {}
    gallery = _make_gallery(plan)
    record = _head(request, target, compute)
    if request.metrics:
        record |= _score(request, target, compute, gallery)
    if request.paired:
        record |= paired.score(str(target.folder), request, compute)
    for look in request.looks:
        record[look] = import_module(LOOKS[look][0]).score(target.weights, request, compute)
    compute.close()
    if not compute.is_main:
        return record
    record["seconds"] = round(time.monotonic() - started, 1)
    scored = Scored(record, plan, target.weights, gallery)
    return finish(scored, as_json=request.as_json, tables=partial(_print_looks, request.looks))


def _start(request: Request) -> Compute | None:
    """Return where the work runs; None when as many processes as were asked for have done it all."""
    from gtool.runtime.device import make_compute
    from gtool.runtime.processes import launch, launched_processes

    if (request.num_processes or 1) > 1 and launched_processes() is None:
        launch(request.num_processes or 1, sys.argv[1:])
        return None
    compute = make_compute(request.device, request.precision, num_processes=request.num_processes)
    console.set_quiet(console.is_quiet() or not compute.is_main)
    return compute


def _make_statistics(request: Request) -> dict[str, Any]:
    """Write the statistics of a reference, which also fills the cache; nothing is scored."""
    check_only_reference(request)
    compute = _start(request)
    if compute is None:
        return {}
    from gtool.eval.image_sets import open_stored
    from gtool.eval.reference import export_reference
    from gtool.eval.scores import Scorer

    assert request.export_reference is not None
    wanted = named_images(
        request, str(request.reference), request.split or "train", request.resolution, sized=True
    )
    real = open_stored(wanted, request.num, request.seed)
    scorer = Scorer(replace(request, metrics=("fid",)), real, real.count, compute.device)
    share_reference(scorer, compute)
    compute.close()
    if not compute.is_main:
        return {}
    facts = export_reference(scorer, request.export_reference)
    found = {"statistics": str(request.export_reference), **facts, "images": real.makeup}
    if request.as_json:
        console.result_json(found)
    else:
        console.result(found["statistics"])
    return found


def _print_looks(looks: list[str], record: Mapping[str, Any]) -> None:
    for look in looks:
        import_module(LOOKS[look][0]).print_tables(record[look], record["target"])


def _make_gallery(plan: Plan) -> Gallery | None:
    """Return what keeps images for a page, where one will be written."""
    if not plan.wants_pictures:
        return None
    from gtool.eval.report.preview import Gallery

    return Gallery()


# Scoring.


def _score(request: Request, target: Target, compute: Compute, gallery: Gallery | None) -> dict[str, Any]:
    from gtool.eval.reference import export_reference
    from gtool.eval.scores import Scorer

    stages = Stages()
    fake, real, about = open_sides(request, target, compute)
    if gallery is not None:
        fake = gallery.watch(fake, real)
    stages.done("opening")
    scorer = Scorer(request, real, fake.count, compute.device)
    share_reference(scorer, compute)
    stages.done("reference")
    take_together(scorer, fake, target.name, compute)
    stages.done("candidate")
    if not compute.is_main:
        return {}
    metrics = scorer.records()
    stages.done("distances")
    _remark(metrics)
    if request.export_reference is not None:
        export_reference(scorer, request.export_reference)
    return {
        **about,
        "reference": _reference_record(real) if request.needs_reference else None,
        "images": {
            side: makeup
            for side, images in (("fake", fake), ("real", real))
            if (makeup := getattr(images, "makeup", None))
        },
        "metrics": metrics,
        "stages": stages.seconds,
    }


def _reference_record(real: Reference) -> dict[str, Any]:
    return {
        "name": real.name,
        "fingerprint": real.key["source"],
        "resolution": real.key["resolution"],
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


def open_sides(request: Request, target: Target, compute: Compute) -> Sides:
    """Return the candidate, the reference, and what is known about the candidate."""
    from gtool.eval.image_sets import open_stored
    from gtool.eval.reference import Nothing, open_reference

    if target.weights is None:
        # Two folders are compared as they are, all images of both, unless the user wants otherwise.
        wanted = named_images(request, str(target.folder), "train", request.resolution, sized=True)
        fake = open_stored(wanted, request.num, request.seed)
        about = {"candidate": fake.key}
        if not request.needs_reference:
            return fake, Nothing(), about
        against = named_images(
            request, str(request.reference), request.split or "train", request.resolution, sized=True
        )
        return fake, open_reference(request, against, request.num), about
    return _open_generated(request, target.weights, compute)


def _open_generated(request: Request, path: Path, compute: Compute) -> Sides:
    """A model is compared with the pixels it was trained on, or with others brought to its resolution."""
    from gtool.eval.image_sets import Generated
    from gtool.eval.reference import Nothing, open_reference
    from gtool.models.generate import load_model

    if read_meta(path).get("model") == "vqgan":
        raise RecipeError(
            f"{path}: weights of vqgan, which makes no images by itself; score it by --reconstruction"
        )
    model = load_model(path, compute=compute)
    meta = model.meta
    few = set(request.metrics) <= set(WITHOUT_WEIGHTS)
    num = request.num or (NUM_GENERATED if few else NUM_GENERATED_FID)
    refuse_resolution(request, meta, path)
    real: Reference = Nothing()
    if request.needs_reference:
        real = open_reference(request, reference_of(request, meta, path), num)
    about = {"nimg": meta.get("nimg"), "precision": compute.precision}
    if model.samples_from == "latents":
        return Generated(model.network, compute, request.seed, num), real, about
    from gtool.eval.composed import open_composed

    fake = open_composed(model, request.seed, num)
    return fake, real, about | fake.about


def named_images(
    request: Request,
    dataset: str,
    split: str,
    resolution: int | None,
    crop: str = "center",
    *,
    sized: bool = False,
) -> Wanted:
    """Return how to open images that the user has named, `sized` where the resolution is the user's word."""
    from gtool.eval.image_sets import Wanted

    crop = "fit" if request.fit else crop
    sized = sized and resolution is not None
    return Wanted(
        dataset, split, resolution, crop, skip_bad=request.skip_bad, strict=request.strict, sized=sized
    )


def reference_of(request: Request, meta: dict[str, Any], path: Path) -> Wanted:
    """Return the data set that weights were trained on, or the one named, at the weights' resolution."""
    from gtool.eval.image_sets import Wanted

    resolution = meta["config"]["resolution"]
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


# What the numbers allow.


def _remark(metrics: dict[str, dict[str, Any]]) -> None:
    """Say what the number of images allows to conclude."""
    from gtool.metrics.features import clip, inception
    from gtool.metrics.registry import METRICS

    for name, size in (("fid", inception.SIZE), ("clip_fid", clip.SIZE)):
        if name not in metrics:
            continue
        found = metrics[name]
        # Published statistics may come without the number of images behind them.
        count = min(filter(None, (found["num_fake"], found["num_real"])))
        if found["value"] == 0:
            console.notice(
                f"{name} came out at zero, or below it by rounding, and is given as 0: equal images?"
            )
        is_fp32 = found["dtype"] == "fp32"
        found["comparable"] = count >= METRICS[name].comparable_from and is_fp32
        if not is_fp32:
            console.warning(
                f"{name} of a bf16 preview is not comparable with any other; leave out --preview for that"
            )
        if count < size:  # the covariance is singular
            console.warning(
                f"{name} from {count:,} images, fewer than its {size:,} dimensions: mostly bias; trust kid"
            )
        if count < METRICS[name].comparable_from:
            console.warning(
                f"{name} from {count:,} images is not comparable with published numbers (10,000 or more)"
            )
