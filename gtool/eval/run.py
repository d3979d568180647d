"""`gtool eval`: score a run, weights or a folder of images against real ones, judge the gates, report."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gtool import __version__, console
from gtool.errors import CheckpointError, DataError, GateError, RecipeError
from gtool.eval import gates
from gtool.eval.diagnostics import attention, map_agreement, reconstruction
from gtool.eval.image_sets import (
    ImageSet,
    ImageSpec,
    StoredImages,
    open_generated,
    open_stored,
    spec_of_training,
)
from gtool.eval.options import EvalOptions, find_target
from gtool.eval.pairs import score_pairs
from gtool.eval.reference import open_statistics
from gtool.eval.report import record as records
from gtool.eval.report import table as tables
from gtool.eval.report.files import write_all, write_to_github
from gtool.eval.report.page import page
from gtool.eval.report.preview import ImageSampler
from gtool.eval.scores import FeatureNetwork, Reference, open_networks, reference_of, score
from gtool.io import run_folder
from gtool.metrics.registry import METRIC_OF, METRICS
from gtool.metrics.statistics import write_statistics
from gtool.models import registry
from gtool.runtime.device import Compute, make_compute
from gtool.runtime.processes import launch, launched_processes

STYLES = {tables.PASS: "green", tables.FAIL: "bold red", tables.WARN: "yellow"}
PRINTERS = {
    "attention": attention.print_tables,
    "reconstruction": reconstruction.print_tables,
    "map_agreement": map_agreement.print_tables,
}


def run(options: EvalOptions) -> dict[str, Any]:
    """Score one target by the metrics asked for, print the result and return the record.

    options: as `gtool.eval.options.complete` returns them.

    Raises:
        RecipeError: options that do not go together.
        CheckpointError, DataError, NetworkError: weights, images or the Inception file cannot be had.
        GateError: a gate was not met; everything has been printed and written.
    """
    if (options.num_processes or 1) > 1 and launched_processes() is None:
        launch(options.num_processes or 1, sys.argv[1:])  # runs this again in each process
        return {}
    started = time.monotonic()
    compute = make_compute(options.device, options.precision, num_processes=options.num_processes)
    console.set_quiet(console.is_quiet() or not compute.is_main)
    if options.only_reference:
        return make_statistics(options, compute)
    weights, folder = find_target(options.target)
    record: dict[str, Any] = {
        "schema": records.SCHEMA,
        "target": str(weights or folder),
        "seed": options.seed,
        "device": compute.describe(),
        "gtool": __version__,
        **records.provenance(weights),
    }
    sampler, real = None, None
    if options.paired:
        fake_spec, real_spec = (_spec(options, str(name)) for name in (folder, options.reference))
        record |= score_pairs(fake_spec, real_spec, options.paired, compute, seed=options.seed)
    elif options.metrics:
        scores, sampler, real = _score(options, weights, folder, compute)
        record |= scores
    for name in options.diagnostics:
        assert weights is not None
        record[name] = _diagnose(name, options, weights, compute)
    compute.close()
    if compute.is_main:
        record["seconds"] = round(time.monotonic() - started, 1)
        finish(record, options, weights, lambda: sampler and sampler.preview(real))
    return record


def make_statistics(options: EvalOptions, compute: Compute) -> dict[str, Any]:
    """Write the statistics of a reference, which also fills the cache; nothing is scored."""
    real = open_stored(_spec(options, str(options.reference), options.split), options.num, options.seed)
    network = _open_networks(options, ("fid",), compute)["inception"]
    facts = _export(real, network, options, compute)
    compute.close()
    if not compute.is_main:
        return {}
    found = {"statistics": str(options.export_reference), **facts, "images": real.makeup}
    if options.as_json:
        console.result_json(found)
    else:
        console.result(found["statistics"])
    return found


def _export(
    real: Reference, network: FeatureNetwork, options: EvalOptions, compute: Compute
) -> dict[str, Any]:
    """Write the statistics of a reference to `--export-reference`; return what the file says of them."""
    features = reference_of(real, network, compute, need_rows=False, batch_size=options.batch_size)
    if features is None or options.export_reference is None:
        return {}
    facts = {
        "count": features.count,
        "mode": network.extractor.mode,
        "name": real.name,
        "dtype": network.extractor.dtype,
        "weights": network.weights.sha256,
        "fingerprint": real.key["source"],
    }
    write_statistics(options.export_reference, features, facts)
    console.notice(f"statistics of {real.name}, {features.count:,} images: {options.export_reference}")
    return facts


# Scoring.


def _score(
    options: EvalOptions, weights: Path | None, folder: str | None, compute: Compute
) -> tuple[dict[str, Any], ImageSampler | None, StoredImages | None]:
    """Return what the record says of the scores, and what a page shows images of."""
    seconds: dict[str, float] = {}
    last = time.monotonic()

    def on_stage(name: str) -> None:
        nonlocal last
        now = time.monotonic()
        seconds[name], last = round(now - last, 2), now

    fake, real, about = open_image_sets(options, weights, folder, compute)
    sampler = None
    if any(path.suffix.lower() == ".html" for path in options.outputs):
        fake = sampler = ImageSampler(fake)
    on_stage("opening")
    for name in options.metrics:
        METRICS[name].require_images(fake.count)  # before any network is downloaded
    networks = _open_networks(options, options.metrics, compute)
    metrics = score(
        fake,
        real,
        options.metrics,
        networks,
        compute,
        seed=options.seed,
        batch_size=options.batch_size,
        on_stage=on_stage,
    )
    if options.export_reference is not None and real is not None:
        _export(real, networks["inception"], options, compute)
    _warn(metrics, networks)
    reference = None
    if real is not None:
        key = real.key
        reference = {"name": real.name, "fingerprint": key["source"], "resolution": key["resolution"]}
    makeup = {"fake": about.pop("makeup", None), "real": getattr(real, "makeup", None)}
    record = {
        **about,
        "reference": reference,
        "images": {side: one for side, one in makeup.items() if one},
        "metrics": metrics,
        "stages": seconds,
    }
    return record, sampler, real if isinstance(real, StoredImages) else None


def open_image_sets(
    options: EvalOptions, weights: Path | None, folder: str | None, compute: Compute
) -> tuple[ImageSet, Reference | None, dict[str, Any]]:
    """Return the images to score, the reference, and what is known of the former."""
    num = options.num
    if weights is None:
        # Two folders are compared as they are, all images of both, unless the user wants otherwise.
        stored = open_stored(_spec(options, str(folder)), num, options.seed)
        fake: ImageSet = stored
        about: dict[str, Any] = {"candidate": stored.key, "makeup": stored.makeup}
        spec: ImageSpec | None = _spec(options, str(options.reference), options.split)
    else:
        meta = run_folder.read_meta(weights)
        model = registry.MODELS.get(str(meta.get("model")))
        if model is not None and model.reconstructs and model.samples_from is None:
            raise RecipeError(
                f"{weights}: weights of {meta['model']}, which makes no images by itself; score it by --reconstruction"
            )
        num = num or max(METRICS[name].num_images for name in options.metrics)
        fake, about = open_generated(weights, compute, num=num, seed=options.seed)
        about = {"nimg": meta.get("nimg"), "precision": compute.precision, **about}
        spec = _spec_for_model(options, meta, weights) if options.needs_reference else None
    real: Reference | None = None
    if options.needs_reference and options.against_statistics:
        real = open_statistics(str(options.reference), options.mode)
    elif options.needs_reference and spec is not None:
        real = open_stored(spec, num, options.seed)
    return fake, real, about


def _spec(options: EvalOptions, dataset: str, split: str | None = None) -> ImageSpec:
    """Return how to open images that the user has named."""
    return ImageSpec(
        dataset,
        split or "train",
        options.resolution,
        "fit" if options.fit else "center",
        skip_bad=options.skip_bad,
        strict=options.strict,
        sized=options.resolution is not None,
    )


def _spec_for_model(options: EvalOptions, meta: dict[str, Any], path: Path) -> ImageSpec:
    """Return how to open the data set that weights were trained on, or the one named, at the weights' resolution."""
    resolution = meta["config"]["resolution"]
    if options.resolution not in (None, resolution):
        raise RecipeError(f"--resolution {options.resolution}: {path} makes images of {resolution} px")
    if options.reference is None:
        return spec_of_training(meta, path, options.split)
    crop = "fit" if options.fit else meta.get("recipe", {}).get("data", {}).get("crop", "center")
    spec = _spec(options, options.reference, options.split)
    return replace(spec, resolution=resolution, crop=crop, sized=False)


def _open_networks(
    options: EvalOptions, metrics: Sequence[str], compute: Compute
) -> dict[str, FeatureNetwork]:
    return open_networks(
        metrics,
        compute.device,
        mode=options.mode,
        inception_weights=options.weights,
        clip_weights=options.clip_weights,
        bf16=options.preview,
    )


def _warn(metrics: dict[str, dict[str, Any]], networks: dict[str, FeatureNetwork]) -> None:
    """Say what the number of images and the precision allow to conclude."""
    for name, found in metrics.items():
        entry = METRIC_OF[name]
        if "comparable" not in found:
            continue
        count, size = (
            min(filter(None, (found["num_fake"], found["num_real"]))),
            networks[entry.inputs].extractor.size,
        )
        if found["value"] == 0:
            console.notice(
                f"{name} came out at zero, or below it by rounding, and is given as 0: equal images?"
            )
        if found["dtype"] != "fp32":
            console.warning(
                f"{name} of a bf16 preview is not comparable with any other; leave out --preview for that"
            )
        if count < size:  # the covariance is singular
            console.warning(
                f"{name} from {count:,} images, fewer than its {size:,} dimensions: mostly bias; trust kid"
            )
        if count < entry.comparable_from:
            least = f"{entry.comparable_from:,} or more"
            console.warning(
                f"{name} from {count:,} images is not comparable with published numbers ({least})"
            )


def _diagnose(name: str, options: EvalOptions, weights: Path, compute: Compute) -> dict[str, Any]:
    """Return the record of a diagnostic of a model."""
    num, seed, batch_size = options.num, options.seed, options.batch_size
    if name == "attention":
        return attention.score(weights, compute, num=num, seed=seed, batch_size=batch_size)
    if name == "map_agreement":
        return map_agreement.score(weights, compute, num=num, seed=seed)
    spec: ImageSpec | None = _spec_for_model(options, run_folder.read_meta(weights), weights)
    if options.reference is None and options.split is None:
        spec = None  # the images that training has kept aside
    return reconstruction.score(weights, compute, spec, num=num, seed=seed, batch_size=batch_size)


# The result.


def finish(
    record: dict[str, Any],
    options: EvalOptions,
    weights: Path | None,
    preview: Callable[[], Any],
) -> None:
    """Judge, keep, print and write a record; raises at the very end, so that a gate that was missed hides nothing.

    preview: returns what a page shows of images.

    Raises:
        GateError: a gate was not met.
        DataError: a gate's number is missing, or not comparable with the baseline's.
        CheckpointError: a file cannot be written.
    """
    baseline = None
    if options.baseline is not None:
        baseline = records.read_baseline(options.baseline)
        record["baseline"] = str(options.baseline)
    incomparable = gates.judge(options.gates, record, baseline)
    before = [gates.comparable_part(record, one) for one in records.history(weights)]
    records.keep(record, weights)
    if options.as_json:
        console.result_json(records.plain(record))
    else:
        for name in options.diagnostics:
            PRINTERS[name](record[name], record["target"])
        print_scores(records.shown(record))

    unwritten = write_all(
        record, options.outputs, options.gitlab_metrics, lambda: page(record, preview(), before)
    )
    write_to_github(record)
    if unwritten:
        raise CheckpointError("; ".join(unwritten))
    if incomparable:
        raise DataError("; ".join(incomparable))
    gates.require_measured(options.gates, record)
    _require_passed(record, exit_zero=options.exit_zero)


def print_scores(record: dict[str, Any]) -> None:
    """Print the metrics and the gates."""
    if record.get("metrics"):
        heads, *rows = tables.score_rows(record)
        console.table(heads, rows, tables.title_of(record))
    if record.get("gates"):
        heads, *rows = tables.gate_rows(record)
        console.table(heads, rows, styles=STYLES)


def _require_passed(record: dict[str, Any], *, exit_zero: bool) -> None:
    for gate in gates.failures(record, "warn"):
        console.warning(tables.missed(gate))
    failed = gates.failures(record)
    if not failed:
        return
    count = f"{len(failed)} of {len(record['gates'])} gates not met"
    text = f"{count}: {'; '.join(tables.missed(gate) for gate in failed)}"
    if not exit_zero:
        raise GateError(text)
    console.warning(text)
