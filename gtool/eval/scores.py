"""The scoring core: image sets in, the features of each network taken once for all metrics, scores out.

A metric is an entry of gtool.metrics.registry; nothing here knows one by name. Several processes each take a share of
the images, and the main one computes the scores.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gtool import console
from gtool.errors import CheckpointError, GToolError
from gtool.eval.image_sets import ImageSet, StoredImages, one_size
from gtool.eval.reference import require_same_network
from gtool.metrics.features.clip import ClipExtractor, load_clip
from gtool.metrics.features.collector import FeatureCollector, Features
from gtool.metrics.features.inception import Dtype, InceptionExtractor, load_inception, logits_of
from gtool.metrics.features.weights import CLIP, INCEPTION, WeightsFile, find_weights
from gtool.metrics.reference import reference_features
from gtool.metrics.registry import METRIC_OF, METRICS, SCORES, Metric
from gtool.metrics.statistics import Statistics
from gtool.metrics.weight_free import WeightFreeScorer
from gtool.runtime.device import Compute
from gtool.runtime.precision import has_fast_bf16

Record = dict[str, Any]
Reference = StoredImages | Statistics


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

    @property
    def made_with(self) -> Record:
        """What records say of it."""
        return {"dtype": self.extractor.dtype, "weights": self.weights.sha256}


def open_networks(
    metrics: Iterable[str],
    device: torch.device,
    *,
    mode: str = "clean",
    files: Mapping[str, Path | None] = {},
    bf16: bool = False,
) -> dict[str, FeatureNetwork]:
    """Load the networks that metrics need, by what the registry calls their features: `inception`, `clip`.

    files: weights that the user names, by network.

    Raises:
        CheckpointError, NetworkError: no weights, others, or without the last layer that is needed.
    """
    inputs = {METRICS[name].inputs for name in metrics}
    dtype: Dtype = "bf16" if bf16 else "fp32"
    networks = {}
    if inputs & {"inception", "logits"}:
        weights = find_weights(INCEPTION, files.get(INCEPTION.key))
        network = load_inception(weights.path, device)
        if "logits" in inputs and network.head is None:
            raise CheckpointError(
                f"{weights.path}: has no last layer, which --is needs; leave --is out, or name another copy"
            )
        head = network.head.cpu() if "logits" in inputs and network.head is not None else None
        networks["inception"] = FeatureNetwork(weights, InceptionExtractor(network, mode, dtype), head)
    if "clip" in inputs:
        weights = find_weights(CLIP, files.get(CLIP.key))
        networks["clip"] = FeatureNetwork(weights, ClipExtractor(load_clip(weights.path, device), dtype))
    if bf16 and networks and not has_fast_bf16(device):
        console.warning(
            "--preview: bf16 is not fast on this device; without it scores come sooner, and count"
        )
    return networks


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
    collectors = _open_collectors(entries, fake.count, real, compute, seed)
    compared: dict[str, Features | None] = {}
    for inputs, network in networks.items():
        kept = {entry.real for entry in entries if entry.inputs == inputs} - {None}
        if kept and real is not None:
            need_rows = "rows" in kept
            compared[inputs] = reference_of(
                real, network, compute, need_rows=need_rows, batch_size=batch_size
            )
    on_stage("reference")
    _collect(fake, collectors, networks, compute, batch_size, "scoring")
    on_stage("candidate")
    records: dict[str, Record] = {}
    if compute.is_main:
        pixels = collectors["pixels"].scores() if "pixels" in collectors else {}
        for entry in entries:
            if entry.has_floor:
                records |= _pixel_records(entry, pixels, real)
            else:
                network = networks["inception" if entry.inputs == "logits" else entry.inputs]
                features = collectors[entry.inputs].features(), compared.get(entry.inputs)
                values = entry.load()(*features, seed)
                records |= _records(entry, values, features, real, network)
        records = {name: record | {"seed": seed} for name, record in records.items()}
    on_stage("distances")
    return records


def _open_collectors(
    entries: Sequence[Metric], count: int, real: Reference | None, compute: Compute, seed: int
) -> dict[str, Any]:
    """Return what keeps the features of `count` images: by their network, or of `pixels`."""
    collectors: dict[str, Any] = {}
    for entry in entries:
        if not entry.has_floor:
            keep_rows = any(one.fake == "rows" for one in entries if one.inputs == entry.inputs)
            collectors[entry.inputs] = FeatureCollector(keep_rows=keep_rows)
        elif "pixels" not in collectors:
            assert isinstance(real, StoredImages)
            scorer = WeightFreeScorer.build(real.images, num=count, seed=seed, device=compute.device)
            collectors["pixels"] = scorer.collector()
    return collectors


def reference_of(
    real: Reference, network: FeatureNetwork, compute: Compute, *, need_rows: bool, batch_size: int
) -> Features | None:
    """Return the features of a reference: those of its file, of the cache, or taken from its images now.

    Where images have to be taken, each process takes its share; the main one alone has the result, and looks into the
    cache and holds its lock.

    Raises:
        RecipeError: statistics that were made with another network.
    """
    if isinstance(real, Statistics):
        require_same_network(real, network.weights, network.extractor.dtype)
        return real.features
    collector = FeatureCollector(keep_rows=need_rows)
    title = f"{network.weights.network.title} features of {real.name}"
    has_taken = False

    def take() -> Features:
        nonlocal has_taken
        has_taken = compute.share(True)
        _collect(real, {"reference": collector}, {"reference": network}, compute, batch_size, title)
        return collector.features()

    if not compute.is_main:
        if compute.share(None):
            _collect(real, {"reference": collector}, {"reference": network}, compute, batch_size, title)
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


def share_of(count: int, compute: Compute, batch_size: int, grain: int = 1) -> tuple[int, int]:
    """Return the first image of this process and the one after its last; shares begin at multiples of `grain`.

    Shares are whole batches where there is one for every process: then the forwards are those of one process, bit
    for bit.
    """
    rank, size = compute.rank, compute.world_size
    grain = math.lcm(grain, batch_size if count >= size * batch_size else 1)
    start, stop = (count if cut == size else count * cut // size // grain * grain for cut in (rank, rank + 1))
    return start, stop


def _collect(
    images: ImageSet,
    collectors: Mapping[str, Any],
    networks: Mapping[str, FeatureNetwork],
    compute: Compute,
    batch_size: int,
    title: str,
) -> None:
    """Run images through all networks, each process its share; the main process's collectors then hold all.

    Raises:
        GToolError: of any process, in all of them; the main one reports it.
    """
    start, stop = share_of(images.count, compute, batch_size, images.grain)
    done, failure = start, None
    found: dict[str, dict[str, Tensor]] = {}
    try:
        with console.progress(title) as update:
            for batch in images.batches(batch_size, start, stop):
                positions = torch.arange(done, done + len(batch))
                done += len(batch)
                features = {name: network.extractor(batch) for name, network in networks.items()}
                if "logits" in collectors and (head := networks["inception"].head) is not None:
                    features["logits"] = logits_of(head, features["inception"])
                if "pixels" in collectors:
                    features["pixels"] = one_size(batch, title)
                for name, collector in collectors.items():
                    collector.add(features[name], positions)
                update(done - start, stop - start, f"{done - start:,} of {stop - start:,} images")
        if not compute.is_main:
            found = {name: one.tensors() for name, one in collectors.items()}
    except GToolError as failed:
        failure = failed
    shares = compute.gather((found, failure))
    for share, problem in shares:
        if problem is not None:
            raise problem
        for name, tensors in share.items() if compute.is_main else ():
            collectors[name].absorb(tensors)


def _records(
    entry: Metric,
    values: Mapping[str, float | None],
    features: tuple[Features, Features | None],
    real: Reference | None,
    network: FeatureNetwork,
) -> dict[str, Record]:
    """Return the records of a metric over a network's features."""
    fake, reference = features
    num_real = 0 if reference is None else reference.count
    common = {"num_fake": fake.count, "num_real": num_real, **network.made_with, "reference": None}
    tail = f"{network.protocol}/n{fake.count}"
    if reference is not None and real is not None:
        common["reference"] = real.key["source"]
        # Statistics of others may come without the number of images behind them.
        tail += f"/ref-{real.name}" + (f"-n{num_real}" if num_real else "")
    if entry.comparable_from:
        count = min(filter(None, (fake.count, num_real)))
        common["comparable"] = count >= entry.comparable_from and common["dtype"] == "fp32"
    return {name: _record(name, values, tail, common) for name in values if name in SCORES}


def _pixel_records(entry: Metric, found: Mapping[str, float], real: Reference | None) -> dict[str, Record]:
    """Return the scores of a metric of pixels, each beside what other real images get."""
    assert real is not None
    counts = {name: int(found[name]) for name in ("num_fake", "num_real")}
    common = {**counts, "dtype": "fp32", "weights": None, "reference": real.key["source"]}
    tail = f"n{counts['num_fake']}/ref-{real.name}-n{counts['num_real']}"
    records = {}
    for name in (name for name in found if METRIC_OF.get(name) is entry):
        value, floor = found[name], found[f"{name}_floor"]
        values = {name: value, f"{name}.floor": floor, f"{name}.ratio": value / floor if floor else None}
        records[name] = _record(name, values, tail, common)
    return records


def _record(name: str, values: Mapping[str, float | None], tail: str, common: Record) -> Record:
    """Return a score's record: its value, the numbers beside it, its protocol, and what all of them have."""
    beside = {one: values.get(f"{name}.{one}") for one in SCORES[name].beside}
    return {"value": values[name], **beside, "protocol": f"{SCORES[name].protocol_head}/{tail}", **common}
