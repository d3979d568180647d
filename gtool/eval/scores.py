"""The scoring core: image sets in, the features of each network taken once for all metrics, scores out.

A metric is an entry of gtool.metrics.registry; nothing here knows one by name. Several processes each take a share of
the images, and the main one computes the scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gtool import console
from gtool.errors import CheckpointError
from gtool.eval.image_sets import ImageSet, StoredImages, one_size
from gtool.eval.processes import gather, share_of
from gtool.eval.reference import StatisticsReference
from gtool.metrics.features.clip import ClipExtractor, load_clip
from gtool.metrics.features.collector import FeatureCollector, Features
from gtool.metrics.features.inception import InceptionExtractor, load_inception, logits_of
from gtool.metrics.features.weights import CLIP, INCEPTION, Network, WeightsFile, find_weights
from gtool.metrics.reference import reference_features
from gtool.metrics.registry import METRIC_OF, METRICS, SCORES, Metric
from gtool.metrics.weight_free import WeightFreeScorer
from gtool.runtime.device import Compute
from gtool.runtime.precision import has_fast_bf16

Record = dict[str, Any]
Reference = StoredImages | StatisticsReference


@dataclass(frozen=True)
class FeatureNetwork:
    """A network that looks at images; `head` (classes, size) is the last layer of Inception, where it is needed."""

    weights: WeightsFile
    extractor: InceptionExtractor | ClipExtractor
    head: Tensor | None = None

    @property
    def protocol(self) -> str:
        """What all features depend on: resizing, network, and the dtype where it is not fp32."""
        dtype = self.extractor.dtype
        return f"{self.extractor.mode}/{self.weights.label}" + ("" if dtype == "fp32" else f"/{dtype}")


def open_networks(
    metrics: Iterable[str],
    device: torch.device,
    *,
    mode: str = "clean",
    inception_weights: Path | None = None,
    clip_weights: Path | None = None,
    bf16: bool = False,
) -> dict[str, FeatureNetwork]:
    """Load the networks that metrics need, by what the registry calls their features: `inception`, `clip`.

    Raises:
        CheckpointError, NetworkError: no weights, others, or without the last layer that is needed.
    """
    inputs = {METRICS[name].inputs for name in metrics}
    networks = {}
    if inputs & {"inception", "logits"}:
        weights = _find(INCEPTION, inception_weights)
        network = load_inception(weights.path, device)
        if "logits" in inputs and network.head is None:
            raise CheckpointError(
                f"{weights.path}: has no last layer, which --is needs; leave --is out, or name another copy"
            )
        head = network.head.cpu() if "logits" in inputs and network.head is not None else None
        extractor = InceptionExtractor(network, mode, "bf16" if bf16 else "fp32")
        networks["inception"] = FeatureNetwork(weights, extractor, head)
    if "clip" in inputs:
        weights = _find(CLIP, clip_weights)
        encoder = ClipExtractor(load_clip(weights.path, device), "bf16" if bf16 else "fp32")
        networks["clip"] = FeatureNetwork(weights, encoder)
    if bf16 and networks and not has_fast_bf16(device):
        console.warning(
            "--preview: bf16 is not fast on this device; without it scores come sooner, and count"
        )
    return networks


def _find(network: Network, named: Path | None) -> WeightsFile:
    with console.progress(f"downloading the {network.title} weights") as update:
        return find_weights(network, named, lambda done, total: update(done, total, f"{done >> 20} MiB"))


def score(
    fake: ImageSet,
    real: Reference | None,
    metrics: Sequence[str],
    networks: Mapping[str, FeatureNetwork],
    compute: Compute,
    *,
    seed: int = 0,
    batch_size: int = 32,
    on_stage: Callable[[str], object] = lambda name: None,
) -> dict[str, Record]:
    """Return a record of each score by its name; an empty dictionary in all processes but the main one.

    Args:
        fake: the images to score.
        real: what they are compared with; None for metrics without a reference.
        metrics: names of the registry's entries.
        networks: as `open_networks` loads them.
        compute: device and processes.
        seed: of the subsets that metrics draw.
        batch_size: images a forward; changes no result.
        on_stage: called when the features of the reference, those of the images, and the scores are there.

    Raises:
        DataError: too few images, images of several sizes, or features that are not finite.
        RecipeError: statistics that were made with another network.
    """
    entries = [METRICS[name] for name in metrics]
    for entry in entries:
        entry.require_images(fake.count)
    compared = {}
    for inputs, network in networks.items():
        kept = {entry.real for entry in entries if entry.inputs == inputs} - {None}
        if kept:
            need_rows = "rows" in kept
            compared[inputs] = reference_of(
                real, network, compute, need_rows=need_rows, batch_size=batch_size
            )
    on_stage("reference")
    collectors = _open_collectors(entries, fake.count, real, networks, compute.device, seed)
    _collect(fake, collectors, networks, compute, batch_size, "scoring")
    on_stage("candidate")
    records: dict[str, Record] = {}
    if compute.is_main:
        pixel_scores = collectors["pixels"].scores() if "pixels" in collectors else {}
        for entry in entries:
            if entry.has_floor:
                found = _pixel_records(entry, pixel_scores, real)
            else:
                found = _feature_records(entry, collectors, compared, real, networks, seed)
            records |= {name: one | {"seed": seed} for name, one in found.items()}
    on_stage("distances")
    return records


def reference_of(
    real: Reference | None, network: FeatureNetwork, compute: Compute, *, need_rows: bool, batch_size: int
) -> Features | None:
    """Return the features of a reference: those of its file, of the cache, or taken from its images now.

    Where images have to be taken, each process takes its share; the main one alone has the result, and looks into the
    cache and holds its lock.

    Raises:
        RecipeError: statistics that were made with another network.
    """
    if isinstance(real, StatisticsReference):
        real.require(network.weights, network.extractor.dtype)
        return real.features
    assert real is not None
    collector = FeatureCollector(keep_rows=need_rows)
    has_taken = False

    def take() -> Features:
        nonlocal has_taken
        has_taken = compute.share(True)
        title = f"{network.weights.network.title} features of {real.name}"
        _collect(real, {"reference": collector}, {"reference": network}, compute, batch_size, title)
        return collector.features()

    if not compute.is_main:
        if compute.share(None):
            _collect(real, {"reference": collector}, {"reference": network}, compute, batch_size, "")
        return None
    key = {**real.key, "mode": network.extractor.mode, "weights": network.weights.sha256}
    if network.weights.network is not INCEPTION:
        key["network"] = network.weights.network.key
    if network.extractor.dtype != "fp32":
        key["dtype"] = network.extractor.dtype
    features = reference_features(key, take, need_rows=need_rows, size=network.extractor.size)
    if not has_taken:
        compute.share(False)
    return features


def _open_collectors(
    entries: Sequence[Metric],
    count: int,
    real: Reference | None,
    networks: Mapping[str, FeatureNetwork],
    device: torch.device,
    seed: int,
) -> dict[str, Any]:
    """Return what keeps the features of `count` images: by their network, or of `pixels`."""
    collectors: dict[str, Any] = {}
    for entry in entries:
        if entry.has_floor:
            assert isinstance(real, StoredImages)
            scorer = WeightFreeScorer.build(real.images, num=count, seed=seed, device=device)
            collectors["pixels"] = scorer.collector()
        elif entry.inputs not in collectors:
            keep_rows = any(one.fake == "rows" for one in entries if one.inputs == entry.inputs)
            collectors[entry.inputs] = FeatureCollector(keep_rows=keep_rows)
    return collectors


def _collect(
    images: ImageSet,
    collectors: Mapping[str, Any],
    networks: Mapping[str, FeatureNetwork],
    compute: Compute,
    batch_size: int,
    title: str,
) -> None:
    """Run images through all networks, each process its share; the main process's collectors then hold all."""
    start, stop = share_of(images.count, compute, batch_size, images.grain)

    def work() -> dict[str, dict[str, Tensor]]:
        done = start
        with console.progress(title) as update:
            for batch in images.batches(batch_size, start, stop):
                positions = torch.arange(done, done + len(batch))
                done += len(batch)
                features = {name: network.extractor(batch) for name, network in networks.items()}
                if "logits" in collectors:
                    head = networks["inception"].head
                    assert head is not None
                    features["logits"] = logits_of(head, features["inception"])
                if "pixels" in collectors:
                    features["pixels"] = one_size(batch, title)
                for name, collector in collectors.items():
                    collector.add(features[name], positions)
                update(done - start, stop - start, f"{done - start:,} of {stop - start:,} images")
        return {} if compute.is_main else {name: one.tensors() for name, one in collectors.items()}

    for share in gather(work, compute):
        for name, tensors in share.items() if compute.is_main else ():
            collectors[name].absorb(tensors)


def _feature_records(
    entry: Metric,
    collectors: Mapping[str, Any],
    compared: Mapping[str, Features | None],
    real: Reference | None,
    networks: Mapping[str, FeatureNetwork],
    seed: int,
) -> dict[str, Record]:
    """Compute the scores of a metric over a network's features."""
    fake, reference = collectors[entry.inputs].features(), compared.get(entry.inputs)
    network = networks["inception" if entry.inputs == "logits" else entry.inputs]
    values = entry.load()(fake, reference, seed)
    tail = f"{network.protocol}/n{fake.count}"
    if reference is not None and real is not None:
        tail += _counted(real.name, reference.count)
    common: Record = {
        "num_fake": fake.count,
        "num_real": 0 if reference is None else reference.count,
        "dtype": network.extractor.dtype,
        "weights": network.weights.sha256,
        "reference": None if reference is None or real is None else real.key["source"],
    }
    if entry.comparable_from:
        # Published statistics may come without the number of images behind them.
        count = min(filter(None, (common["num_fake"], common["num_real"])))
        common["comparable"] = count >= entry.comparable_from and common["dtype"] == "fp32"
    return _records(values, tail, common)


def _pixel_records(entry: Metric, found: Mapping[str, float], real: Reference | None) -> dict[str, Record]:
    """Return the scores of a metric of pixels, each beside what other real images get."""
    assert real is not None
    values: dict[str, float | None] = {}
    for name in (name for name in found if METRIC_OF.get(name) is entry):
        floor = found[f"{name}_floor"]
        values |= {name: found[name], f"{name}.floor": floor}
        values[f"{name}.ratio"] = found[name] / floor if floor else None
    num_fake, num_real = int(found["num_fake"]), int(found["num_real"])
    common = {"num_fake": num_fake, "num_real": num_real, "dtype": "fp32", "weights": None}
    tail = f"n{num_fake}{_counted(real.name, num_real)}"
    return _records(values, tail, common | {"reference": real.key["source"]})


def _records(values: Mapping[str, float | None], tail: str, common: Mapping[str, Any]) -> dict[str, Record]:
    """Return a record of each score: its value, the numbers beside it, protocol, and what all have in common."""
    return {
        name: {
            "value": value,
            **{beside: values.get(f"{name}.{beside}") for beside in SCORES[name].beside},
            "protocol": f"{SCORES[name].protocol_head}/{tail}",
            **common,
        }
        for name, value in values.items()
        if name in SCORES
    }


def _counted(name: str, count: int) -> str:
    """Return what a protocol says of the reference; a count that nobody knows is left out."""
    return f"/ref-{name}" + (f"-n{count}" if count else "")
