"""A network that looks at both sides of a comparison, and what it has seen of the candidate so far.

Inception is one, CLIP's image encoder another; each has its own weights, input, features and cache of the reference's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from gtool import console
from gtool.errors import CheckpointError
from gtool.eval.image_sets import Stored
from gtool.eval.reference import Reference, Summary
from gtool.metrics.features.clip import ClipExtractor, load_clip
from gtool.metrics.features.collector import FeatureCollector, Features
from gtool.metrics.features.inception import InceptionExtractor, load_inception
from gtool.metrics.features.packed import Dtype
from gtool.metrics.features.weights import CLIP, INCEPTION, Network, WeightsFile, find_weights
from gtool.metrics.reference import reference_features

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from gtool.eval.options import Request


class Looks(Protocol):
    """From uint8 images to features (N, size) fp32 on the CPU."""

    mode: str
    dtype: Dtype
    size: int

    def __call__(self, images: Tensor | Sequence[Tensor]) -> Tensor: ...


class Space:
    """The features of one network: those of the candidate are collected, those of the reference made or found.

    part: what its share of `partial` is called. keep_rows: every image's features, not their moments alone.
    """

    def __init__(self, part: str, weights: WeightsFile, extractor: Looks, *, keep_rows: bool) -> None:
        self.part = part
        self.weights = weights
        self.extractor = extractor
        self.keep_rows = keep_rows
        self.collector = self._new_collector()
        self._reference: Features | None = None

    def _new_collector(self) -> FeatureCollector:
        return FeatureCollector(keep_rows=self.keep_rows)

    @property
    def protocol(self) -> str:
        """What all features depend on: resizing, network, and the dtype where it is not fp32."""
        dtype = self.extractor.dtype
        return f"{self.extractor.mode}/{self.weights.label}" + ("" if dtype == "fp32" else f"/{dtype}")

    @property
    def made_with(self) -> dict[str, str]:
        """What a record says of it."""
        return {"dtype": self.extractor.dtype, "weights": self.weights.sha256}

    def reference_features(
        self,
        real: Reference,
        batch_size: int,
        build: Callable[[], Features] | None = None,
        waiting: Callable[[], object] | None = None,
    ) -> Features:
        """Return the features of the reference: of its file, of the cache, or taken from its images now.

        build: takes them in another way than alone. waiting: called now and then while another command takes them.
        """
        if isinstance(real, Summary):
            return real.features
        if self._reference is None:
            self._reference = self._find_reference(real, batch_size, build, waiting)
        return self._reference

    def take_reference(
        self, real: Reference, batch_size: int, start: int = 0, stop: int | None = None
    ) -> FeatureCollector:
        """Return the features of the reference's images `start` to `stop`."""
        assert isinstance(real, Stored)
        collector, part = self._new_collector(), real.part(start, real.count if stop is None else stop)
        with console.progress(f"{self.weights.network.title} features of {real.name}") as update:
            for batch in part.batches(batch_size):
                places = torch.arange(len(batch)) + start + collector.count
                collector.add(self.extractor(batch), places)
                update(collector.count, part.count, f"{collector.count:,} of {part.count:,} images")
        return collector

    def _find_reference(
        self,
        real: Reference,
        batch_size: int,
        build: Callable[[], Features] | None,
        waiting: Callable[[], object] | None,
    ) -> Features:
        build = build or (lambda: self.take_reference(real, batch_size).features())
        key = {**real.key, "mode": self.extractor.mode, "weights": self.weights.sha256}
        if self.weights.network is not INCEPTION:
            key["network"] = self.weights.network.key
        if self.extractor.dtype != "fp32":
            key["dtype"] = self.extractor.dtype
        size = self.extractor.size
        return reference_features(key, build, need_rows=self.keep_rows, size=size, waiting=waiting)


def open_inception(
    request: Request, device: torch.device, *, keep_rows: bool, with_head: bool
) -> tuple[Space, Tensor | None]:
    """Load Inception; return also its last layer (1008, 2048), where the file has one.

    Raises:
        CheckpointError, NetworkError: no weights, others, or without the last layer that is needed.
    """
    weights = _find(INCEPTION, request.weights)
    network = load_inception(weights.path, device)
    if with_head and network.head is None:
        raise CheckpointError(
            f"{weights.path}: has no last layer, which --is needs; leave --is out, or name another copy"
        )
    extractor = InceptionExtractor(network, request.mode, _dtype(request))
    head = None if network.head is None else network.head.cpu()
    return Space("features", weights, extractor, keep_rows=keep_rows), head


def open_clip(request: Request, device: torch.device) -> Space:
    """Load CLIP's image encoder; CheckpointError or NetworkError without its weights."""
    weights = _find(CLIP, request.clip_weights)
    extractor = ClipExtractor(load_clip(weights.path, device), _dtype(request))
    return Space("clip", weights, extractor, keep_rows=False)


def _dtype(request: Request) -> Dtype:
    return "bf16" if request.preview else "fp32"


def _find(network: Network, named: Path | None) -> WeightsFile:
    with console.progress(f"downloading the {network.title} weights") as update:
        return find_weights(network, named, lambda done, total: update(done, total, f"{done >> 20} MiB"))
