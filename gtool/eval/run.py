"""`gtool eval`: score a run, weights or a folder of images against real ones, judge the gates, report."""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gtool import __version__, console
from gtool.errors import CheckpointError, DataError, GateError, RecipeError
from gtool.eval import verdicts
from gtool.eval.checks import find_target
from gtool.eval.diagnostics import attention, copies, map_agreement, per_class, reconstruction
from gtool.eval.image_sets import ImageSet, ImageSpec, open_generated, open_stored, spec_of_training
from gtool.eval.options import EvalOptions
from gtool.eval.pairs import score_pairs
from gtool.eval.report import record as records
from gtool.eval.report import table as tables
from gtool.eval.report.files import write_all, write_to_github
from gtool.eval.report.page import page
from gtool.eval.report.preview import ImageSampler
from gtool.eval.scores import FeatureNetwork, Reference, open_networks, plan, reference_of, score
from gtool.eval.sheets import sheet_here, sheet_path
from gtool.io.files import sampled_digest
from gtool.metrics.registry import METRIC_OF, METRICS
from gtool.metrics.statistics import open_statistics, write_statistics
from gtool.models import registry
from gtool.models.description import read_description
from gtool.runtime.device import Compute, make_compute
from gtool.runtime.processes import launch, launched_processes

STYLES = {tables.PASS: "green", tables.FAIL: "bold red", tables.WARN: "yellow"}
PRINTERS = {
    one.__name__.rpartition(".")[2]: one.print_tables
    for one in (attention, reconstruction, map_agreement, copies, per_class)
}


def run(options: EvalOptions) -> dict[str, Any]:
    """Score one target by the metrics asked for, print the result and return the record.

    options: as `gtool.eval.checks.check` returns them.

    Raises:
        GToolError: what is asked for cannot be had, or a gate was not met, when all has been printed and written.
    """
    if (options.num_processes or 1) > 1 and launched_processes() is None:
        launch(options.num_processes or 1, sys.argv[1:])  # runs this again in each process
        return {}
    started = time.monotonic()
    asked = options.num_processes
    compute = make_compute(options.device, options.precision, num_processes=asked, timeout=options.timeout)
    console.set_repeats(False)
    console.set_quiet(console.is_quiet() or not compute.is_main)
    if options.only_reference:
        return make_statistics(options, compute)
    weights, folder = find_target(options.target)
    if compute.peers and weights:
        compute.agree({"the weights": sampled_digest(weights)})
    record: dict[str, Any] = {
        "schema": records.SCHEMA,
        "target": str(weights or folder),
        "seed": options.seed,
        "device": compute.describe(),
        "gtool": __version__,
        **records.provenance(weights),
    }
    sampler: ImageSampler | None = None
    if options.paired:
        fake_spec, real_spec = (_spec(options, str(name)) for name in (folder, options.reference))
        record |= score_pairs(fake_spec, real_spec, options.paired, compute, seed=options.seed)
    elif options.metrics:
        scores, sampler = _score(options, weights, folder, compute)
        record |= scores
    for name in options.diagnostics:
        record[name] = _diagnose(name, options, weights, folder, compute)
    compute.close()
    if compute.is_main:
        record["seconds"] = round(time.monotonic() - started, 1)
        finish(record, options, weights, sampler)
    return record


def _diagnose(
    name: str, options: EvalOptions, weights: Path | None, folder: str | None, compute: Compute
) -> dict[str, Any]:
    """Return the record of one diagnostic."""
    if name == "copies":
        return _find_copies(options, weights, folder, compute)
    assert weights is not None
    common: dict[str, Any] = {"num": options.num, "seed": options.seed}
    if name == "attention":
        return attention.score(weights, compute, **common, batch_size=options.batch_size)
    if name == "map_agreement":
        return map_agreement.score(weights, compute, **common)
    spec = _spec_for_model(options, read_description(weights)[0], weights)
    if name == "per_class":
        return per_class.score(weights, open_stored(spec, None, options.seed), compute, **common)
    # Without a data set that is named, the images that training has kept aside.
    named = spec if options.reference or options.split else None
    return reconstruction.score(weights, compute, named, **common, batch_size=options.batch_size)


def _find_copies(
    options: EvalOptions, weights: Path | None, folder: str | None, compute: Compute
) -> dict[str, Any]:
    """Compare the images to score with all training images, not with as many as there are images."""
    if weights is None:
        fake: ImageSet = open_stored(_spec(options, str(folder)), options.num, options.seed)
        spec, path = _spec(options, str(options.reference), options.split), sheet_here("copies")
    else:
        fake, _ = open_generated(weights, compute, num=options.num or copies.NUM_IMAGES, seed=options.seed)
        spec, path = (
            _spec_for_model(options, read_description(weights)[0], weights),
            sheet_path(weights, "copies"),
        )
    training = open_stored(spec, None, options.seed)
    return copies.score(fake, training, compute, path, batch_size=options.batch_size)


# What is scored, and against what.


def open_image_sets(
    options: EvalOptions, weights: Path | None, folder: str | None, compute: Compute
) -> tuple[ImageSet, Reference | None, dict[str, Any]]:
    """Return the images to score, the reference, and what the record says of the former."""
    num = options.num
    if weights is None:
        # Two folders are compared as they are, all images of both, unless the user wants otherwise.
        stored = open_stored(_spec(options, str(folder)), num, options.seed)
        fake: ImageSet = stored
        about: dict[str, Any] = {"candidate": stored.key, "images": {"fake": stored.summary}}
        spec = _spec(options, str(options.reference), options.split)
    else:
        meta, _ = read_description(weights)
        model = registry.find_model(meta["model"])
        if model.reconstructs and model.samples_from is None:
            raise RecipeError(
                f"{weights}: weights of {meta['model']}, which makes no images by itself; score it by --reconstruction"
            )
        num = num or max(METRICS[name].num_images for name in options.metrics)
        fake, about = open_generated(weights, compute, num=num, seed=options.seed)
        about = {"nimg": meta.get("nimg"), "precision": compute.precision, **about, "images": {}}
        spec = _spec_for_model(options, meta, weights) if options.needs_reference else ImageSpec("")
    if not options.needs_reference:
        return fake, None, about
    if options.against_statistics:
        return fake, open_statistics(str(options.reference), options.mode), about
    real = open_stored(spec, num, options.seed)
    about["images"] |= {"real": real.summary}
    if options.num is not None and options.num > (least := min(fake.count, real.count)):
        console.notice(f"--num {options.num:,}: one side has {least:,} images; all of them are used")
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


# Scores.


def _score(
    options: EvalOptions, weights: Path | None, folder: str | None, compute: Compute
) -> tuple[dict[str, Any], ImageSampler | None]:
    """Return what the record says of the scores, and what has kept images for a page."""
    fake, real, record = open_image_sets(options, weights, folder, compute)
    has_page = ".html" in [path.suffix.lower() for path in options.outputs]
    sampler = ImageSampler(fake, real) if has_page else None
    for name in options.metrics:
        METRICS[name].require_images(fake.count)  # before any network is downloaded
    networks = _open_networks(options, options.metrics, compute)
    reference = real and {
        "name": real.name,
        "fingerprint": real.key["source"],
        "resolution": real.key["resolution"],
    }
    if options.baseline is not None:  # what cannot be compared ends here, not after hours
        planned = {**record, "metrics": plan(fake, real, options.metrics, networks)}
        planned |= {"seed": options.seed, "reference": reference}
        if apart := verdicts.incomparable(options.gates, planned, records.read_baseline(options.baseline)):
            raise DataError("; ".join(apart))
    record["metrics"] = score(
        sampler or fake,
        real,
        options.metrics,
        networks,
        compute,
        seed=options.seed,
        batch_size=options.batch_size,
    )
    record["reference"] = reference
    if real is not None:
        _export(real, networks.get("inception"), options, compute)
    _warn(record["metrics"], networks)
    record["images"] = {side: summary for side, summary in record["images"].items() if summary}
    return record, sampler


def _open_networks(
    options: EvalOptions, metrics: Sequence[str], compute: Compute
) -> dict[str, FeatureNetwork]:
    files = {
        "inception": options.weights,
        "clip": options.clip_weights,
        "clip_large": options.clip_large_weights,
        "dinov2": options.dinov2_weights,
    }
    which: dict[str, Any] = {"mode": options.mode, "dinov2": options.dinov2}
    return open_networks(metrics, compute.device, **which, files=files, bf16=options.preview)


def _warn(metrics: dict[str, dict[str, Any]], networks: dict[str, FeatureNetwork]) -> None:
    """Say what the number of images allows to conclude."""
    for name, found in metrics.items():
        if "comparable" not in found:
            continue
        entry, count = METRIC_OF[name], min(filter(None, (found["num_fake"], found["num_real"])))
        if found["value"] == 0:
            console.notice(
                f"{name} came out at zero, or below it by rounding, and is given as 0: equal images?"
            )
        if found["dtype"] != "fp32":
            console.warning(
                f"{name} of a bf16 preview is not comparable with any other; leave out --preview for that"
            )
        if count < (size := networks[entry.inputs].extractor.size):  # the covariance is singular
            console.warning(
                f"{name} from {count:,} images, fewer than its {size:,} dimensions: mostly bias; trust kid"
            )
        if count < (least := entry.comparable_from):
            console.warning(
                f"{name} from {count:,} images is not comparable with published numbers ({least:,} or more)"
            )


def make_statistics(options: EvalOptions, compute: Compute) -> dict[str, Any]:
    """Write the statistics of a reference, which also fills the cache; nothing is scored."""
    real = open_stored(_spec(options, str(options.reference), options.split), options.num, options.seed)
    facts = _export(real, _open_networks(options, ("fid",), compute)["inception"], options, compute)
    compute.close()
    if not compute.is_main:
        return {}
    found = {"statistics": str(options.export_reference), **facts, "images": real.summary}
    if options.as_json:
        console.result_json(found)
    else:
        console.result(found["statistics"])
    return found


def _export(
    real: Reference, network: FeatureNetwork | None, options: EvalOptions, compute: Compute
) -> dict[str, Any]:
    """Write the statistics of a reference where they are asked for; return what the file says of them."""
    if network is None or options.export_reference is None:
        return {}
    features = reference_of(real, network, compute, need_rows=False, batch_size=options.batch_size)
    if features is None:
        return {}
    facts = {
        "count": features.count,
        "mode": network.extractor.mode,
        "name": real.name,
        "weights": network.weights.sha256,
        "fingerprint": real.key["source"],
    }
    write_statistics(options.export_reference, features, facts)
    console.notice(f"statistics of {real.name}, {features.count:,} images: {options.export_reference}")
    return facts


# The result.


def finish(
    record: dict[str, Any], options: EvalOptions, weights: Path | None, sampler: ImageSampler | None
) -> None:
    """Judge, keep, print and write a record; raises at the very end, so that a gate that was missed hides nothing.

    Raises:
        GateError: a gate was not met.
        DataError: a gate's number is missing, or not comparable with the baseline's.
        CheckpointError: a file cannot be written.
    """
    baseline = None
    if options.baseline is not None:
        baseline = records.read_baseline(options.baseline)
        record["baseline"] = str(options.baseline)
    incomparable = verdicts.judge(options.gates, record, baseline)
    before = [verdicts.comparable_part(record, one) for one in records.history(weights)]
    records.keep(record, weights)
    if options.as_json:
        console.result_json(records.plain(record))
    else:
        for name in options.diagnostics:
            PRINTERS[name](record[name], record["target"])
        shown = records.shown(record)
        if record.get("metrics"):
            heads, *rows = tables.score_rows(shown)
            console.table(heads, rows, tables.title_of(shown))
        if record.get("gates"):
            heads, *rows = tables.gate_rows(shown)
            console.table(heads, rows, styles=STYLES)
    unwritten = write_all(
        record,
        options.outputs,
        options.gitlab_metrics,
        lambda: page(record, sampler.preview() if sampler else None, before),
    )
    write_to_github(record)
    if unwritten:
        raise CheckpointError("; ".join(unwritten))
    if incomparable:
        raise DataError("; ".join(incomparable))
    verdicts.require_numbers(options.gates, record)
    for gate in verdicts.failures(record, "warn"):
        console.warning(tables.missed(gate))
    if failed := verdicts.failures(record):
        count = f"{len(failed)} of {len(record['gates'])} gates not met"
        text = f"{count}: {'; '.join(tables.missed(gate) for gate in failed)}"
        if not options.exit_zero:
            raise GateError(text)
        console.warning(text)
