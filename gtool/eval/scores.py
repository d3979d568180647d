"""The scoring core: image sets in, the features of each network taken once for all metrics, scores out.

A metric is an entry of gtool.metrics.registry; nothing here knows one by name. Several processes each take a share of
the images, and the main one computes the scores.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gtool import console
from gtool.errors import CheckpointError, DataError, GToolError, RecipeError
from gtool.eval.image_sets import ImageSet, StoredImages, one_size
from gtool.metrics.features.clip import ClipExtractor, load_clip
from gtool.metrics.features.collector import FeatureCollector, Features
from gtool.metrics.features.dinov2 import Dinov2Extractor, load_dinov2
from gtool.metrics.features.inception import Dtype, InceptionExtractor, load_inception, logits_of
from gtool.metrics.features.published import PREFIX
from gtool.metrics.features.weights import (
    CLIP,
    CLIP_LARGE,
    DINOV2,
    INCEPTION,
    WeightsFile,
    are_same_weights,
    find_weights,
)
from gtool.metrics.intervals import Values
from gtool.metrics.reference import reference_features
from gtool.metrics.registry import METRICS, SCORES, Metric
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
    extractor: InceptionExtractor | ClipExtractor | Dinov2Extractor
    head: Tensor | None = None


def open_networks(
    metrics: Iterable[str],
    device: torch.device,
    *,
    mode: str = "clean",
    dinov2: str = "vit-b-14",
    files: Mapping[str, Path | None] = {},
    bf16: bool = False,
) -> dict[str, FeatureNetwork]:
    """Load the networks that metrics need, by what the registry calls their features: `inception`, `clip`.

    mode, dinov2: Inception's resizing, and which of DINOv2's networks.
    files: weights that the user names, by network.

    Raises:
        CheckpointError, NetworkError: no weights, others, or without the last layer that is needed.
    """
    inputs = {METRICS[name].inputs for name in metrics}
    dtype: Dtype = "bf16" if bf16 else "fp32"
    published = {"inception": INCEPTION, "clip": CLIP, "clip_large": CLIP_LARGE, "dinov2": DINOV2[dinov2]}
    networks = {}
    for name, kind in published.items():
        if not inputs & {name, "logits" if name == "inception" else name}:
            continue
        weights, head = find_weights(kind, files.get(name)), None
        if name == "inception":
            network = load_inception(weights.path, device)
            if "logits" in inputs and network.head is None:
                raise CheckpointError(
                    f"{weights.path}: has no last layer, which --is needs; leave --is out, or name another copy"
                )
            head = network.head.cpu() if "logits" in inputs and network.head is not None else None
            extractor: Any = InceptionExtractor(network, mode, dtype)
        elif name == "dinov2":
            extractor = Dinov2Extractor(load_dinov2(weights.path, dinov2, device), dtype)
        else:
            extractor = ClipExtractor(load_clip(weights.path, device, large=name == "clip_large"), dtype)
        networks[name] = FeatureNetwork(weights, extractor, head)
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
) -> dict[str, Record]:
    """Return a record of each score by its name; an empty dictionary in all processes but the main one.

    Args:
        fake: the images to score.
        real: what they are compared with; None for metrics without a reference.
        metrics: names of the registry's entries.
        networks: as `open_networks` loads them.
        compute: device and processes.
        seed: of the subsets that metrics draw.
        batch_size: images a forward; changes no more than rounding.

    Raises:
        DataError: too few images, images of several sizes, or features that are not finite.
        RecipeError: statistics that were made with another network.
    """
    entries = [METRICS[name] for name in metrics]
    for entry in entries:
        entry.require_images(fake.count)
    collected: set[str] = {entry.inputs for entry in entries}
    scorer: WeightFreeScorer | None = None
    if any(entry.has_floor for entry in entries):
        scorer = _open_scorer(fake, real, compute, seed)
        collected |= {"random", "patches"}
    collectors = {name: FeatureCollector(keep_rows=True) for name in collected}
    compared: dict[str, Features | None] = {}
    for inputs, network in networks.items():
        kept = {entry.real for entry in entries if entry.inputs == inputs} - {None}
        if kept and real is not None:
            need_rows = "rows" in kept
            compared[inputs] = reference_of(
                real, network, compute, need_rows=need_rows, batch_size=batch_size
            )
    _collect(fake, collectors, networks, compute, batch_size, "scoring", scorer)
    if not compute.is_main:
        return {}
    features = {name: one.features() for name, one in collectors.items()}
    floors = _beside_floors(scorer.score_features(features, intervals=True)) if scorer else {}
    values: Values = {}
    for entry in entries:
        pair = features[entry.inputs], compared.get(entry.inputs)
        values |= floors if entry.has_floor else entry.load()(*pair, seed)
    records: dict[str, Record] = {}
    planned = plan(fake, real, metrics, networks)
    for name in (name for name in values if name in planned):
        beside = {one: values.get(f"{name}.{one}") for one in SCORES[name].numbers}
        records[name] = {"value": values[name], **beside, **planned[name], "seed": seed}
    return records


def _beside_floors(found: Mapping[str, float]) -> Values:
    """Return scores with `.floor` and `.ratio` beside them, by the names that metrics give them."""
    values: Values = dict(found)
    for name in (name for name in found if f"{name}_floor" in found):
        floor = found[f"{name}_floor"]
        values |= {f"{name}.floor": floor, f"{name}.ratio": found[name] / floor if floor else None}
    return values


def _open_scorer(fake: ImageSet, real: Reference | None, compute: Compute, seed: int) -> WeightFreeScorer:
    """Prepare rfd and swd, and say of how many images they are."""
    assert isinstance(real, StoredImages)
    scorer = WeightFreeScorer.build(real.images, num=fake.count, seed=seed, device=compute.device)
    if scorer.limit < fake.count:
        console.notice(
            f"rfd and swd score {scorer.limit:,} of {fake.count:,} images: half of the {len(real.images):,} real "
            "ones are the reference, the other half is the floor"
        )
    return scorer


def reference_of(
    real: Reference, network: FeatureNetwork, compute: Compute, *, need_rows: bool, batch_size: int
) -> Features | None:
    """Return the features of a reference: those of its file, of the cache, or taken from its images now.

    Where images have to be taken, each process takes its share; the main one alone has the result, and looks into the
    cache and holds its lock.

    Raises:
        RecipeError: statistics that were made with another network.
    """
    weights = network.weights
    if isinstance(real, Statistics):
        is_other = real.weights is not None and not are_same_weights(real.weights, weights.sha256)
        if is_other or (str(real.name).startswith(PREFIX) and not weights.is_published):
            raise RecipeError(
                f"--reference {real.name}: made with other Inception weights than {weights.path}, "
                "so the two cannot be compared"
            )
        if network.extractor.dtype != "fp32":
            raise RecipeError(f"--preview: {real.name} was made from fp32 features; leave --preview out")
        return real.features
    collector = FeatureCollector(keep_rows=need_rows)
    title = f"{weights.network.title} features of {real.name}"
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
    key = {**real.key, "mode": network.extractor.mode, "weights": weights.sha256}
    if weights.network is not INCEPTION:
        key["network"] = weights.network.key
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
    collectors: Mapping[str, FeatureCollector],
    networks: Mapping[str, FeatureNetwork],
    compute: Compute,
    batch_size: int,
    title: str,
    scorer: WeightFreeScorer | None = None,
) -> None:
    """Run images through all networks, each process its share; the main process's collectors then hold all.

    Raises:
        GToolError: of any process, in all of them; the main one reports it.
    """
    start, stop = share_of(images.count, compute, batch_size, images.grain)
    done, failure, size = start, None, None
    try:
        with console.progress(title) as update:
            for batch in images.batches(batch_size, start, stop):
                compute.follow_load()
                positions = torch.arange(done, done + len(batch))
                done += len(batch)
                features = {name: network.extractor(batch) for name, network in networks.items()}
                if "logits" in collectors and (head := networks["inception"].head) is not None:
                    features["logits"] = logits_of(head, features["inception"])
                if scorer is not None:
                    pixels = one_size(batch, title)
                    size = size or pixels.shape[1:]
                    if size != pixels.shape[1:]:
                        raise DataError("the images of a set must have one size for rfd and swd")
                    features |= scorer.features(pixels, positions)
                for name, collector in collectors.items():
                    if len(rows := features[name]):
                        collector.add(rows, positions[: len(rows)])
                update(done - start, stop - start)
    except GToolError as failed:
        failure = failed
    for others, problem in compute.gather((None if compute.is_main else collectors, failure)):
        if problem is not None:
            raise problem
        if others is not None and compute.is_main:
            for name, collector in collectors.items():
                collector.absorb(others[name])


def plan(
    fake: ImageSet, real: Reference | None, metrics: Sequence[str], networks: Mapping[str, FeatureNetwork]
) -> dict[str, Record]:
    """Return what the records of `score` say by the names of scores, but for the numbers."""
    records: dict[str, Record] = {}
    for entry in (METRICS[name] for name in metrics):
        if entry.has_floor:  # read beside what other real images get
            assert isinstance(real, StoredImages)
            count = min(fake.count, len(real.images) // 2)
            common: Record = {"num_fake": count, "num_real": count, "dtype": "fp32", "weights": None}
            common["reference"], tail = real.key["source"], f"n{count}/ref-{real.name}-n{count}"
        else:
            network = networks["inception" if entry.inputs == "logits" else entry.inputs]
            common, tail = _about(entry, fake.count, real if entry.real else None, network)
        for one in entry.scores:
            records[one.name] = {"protocol": f"{one.protocol or one.name}/{tail}", **common}
    return records


def _about(
    entry: Metric, num_fake: int, real: Reference | None, network: FeatureNetwork
) -> tuple[Record, str]:
    """Return what all records of a metric over a network's features say, and the tail of their protocols.

    real: what is compared with; None for a metric without a reference.
    """
    dtype = network.extractor.dtype
    # Statistics of others may come without the number of images behind them.
    num_real = 0 if real is None else real.features.count if isinstance(real, Statistics) else real.count
    common: Record = {"num_fake": num_fake, "num_real": num_real, "dtype": dtype}
    common |= {"weights": network.weights.sha256, "reference": None}
    precision = "" if dtype == "fp32" else f"/{dtype}"
    tail = f"{network.extractor.mode}/{network.weights.label}{precision}/n{num_fake}"
    if real is not None:
        common["reference"] = real.key["source"]
        tail += f"/ref-{real.name}" + (f"-n{num_real}" if num_real else "")
    if entry.comparable_from:
        count = min(filter(None, (num_fake, num_real)))
        common["comparable"] = count >= entry.comparable_from and dtype == "fp32"
    return common, tail
