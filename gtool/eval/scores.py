"""The scorer: takes a candidate's images once, compares them with the reference by all metrics, returns the records.

What it has taken of a part of the images can be given to another scorer, so a score can be shared out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gtool import console
from gtool.eval.features import Space, open_clip, open_inception
from gtool.eval.image_sets import Candidate, Stored, one_size
from gtool.eval.reference import Reference, Summary
from gtool.metrics.features.collector import FeatureCollector, Features
from gtool.metrics.features.inception import logits_of
from gtool.metrics.registry import METRICS, SCORES
from gtool.metrics.weight_free import WeightFreeCollector, WeightFreeScorer
from gtool.runtime.precision import has_fast_bf16

if TYPE_CHECKING:
    from gtool.eval.options import Request

BY_ROWS = frozenset({"kid", "pr", "density", "fid_infinity"})  # need every image's features, not the moments
BY_FEATURES = BY_ROWS | {"fid"}
BY_INCEPTION = BY_FEATURES | {"is"}
BY_YARDSTICK = frozenset({"rfd", "swd"})

Record = dict[str, Any]


class Scorer:
    """Takes the candidate's images once and scores them by everything that was asked for.

    num: images of the whole candidate, whether or not all of them are taken here.
    """

    def __init__(self, request: Request, real: Reference, num: int, device: torch.device) -> None:
        self.request = request
        self.real = real
        self.num = num
        self.count = 0  # images taken, here or in parts that were absorbed
        self.wanted = frozenset(request.metrics)
        self.inception: Space | None = None
        self.head: Tensor | None = None  # of Inception
        self.classes: FeatureCollector | None = None
        self.clip: Space | None = None
        self.yardstick: WeightFreeCollector | None = None
        if BY_INCEPTION & self.wanted:
            self._prepare_inception(device)
        if "clip_fid" in self.wanted:
            self.clip = open_clip(request, device)
        if request.preview and self.spaces and not has_fast_bf16(device):
            console.warning(
                "--preview: bf16 is not fast on this device; without it scores come sooner, and count"
            )
        if BY_YARDSTICK & self.wanted:
            assert isinstance(real, Stored)
            yardstick = WeightFreeScorer.build(real.images, num=num, seed=request.seed, device=device)
            self.yardstick = yardstick.collector()

    def _prepare_inception(self, device: torch.device) -> None:
        for name in self.wanted:
            METRICS[name].require_images(self.num)
        if "is" in self.wanted:
            self.classes = FeatureCollector(keep_rows=True)
        keep_rows, with_head = bool(BY_ROWS & self.wanted), self.classes is not None
        self.inception, self.head = open_inception(
            self.request, device, keep_rows=keep_rows, with_head=with_head
        )
        if isinstance(self.real, Summary):
            self.real.require(self.inception.weights, self.inception.extractor.dtype)

    @property
    def spaces(self) -> list[Space]:
        """The networks that look at the images."""
        return [space for space in (self.inception, self.clip) if space is not None]

    @property
    def comparing(self) -> list[Space]:
        """The networks that look at the reference's images too, unless the cache knows what they see."""
        wanted = [space for space in self.spaces if space is self.clip or BY_FEATURES & self.wanted]
        return wanted if isinstance(self.real, Stored) else []

    # Taking images.

    def take(self, fake: Candidate, name: str, positions: Tensor | None = None) -> None:
        """Run all of the candidate's images through everything that looks at them.

        positions: of these images in the whole candidate (n,), when they are a part; in order when left out.
        """
        positions = torch.arange(fake.count) if positions is None else positions
        with console.progress(f"scoring {name}") as update:
            done = 0
            for batch in fake.batches(self.request.batch_size):
                places = positions[done : done + len(batch)]
                if self.yardstick is not None:
                    self.yardstick.add(one_size(batch, name), places)
                for space in self.spaces:
                    self._take_features(space, space.extractor(batch), places)
                done += len(batch)
                update(done, fake.count, f"{done:,} of {fake.count:,} images")
        self.count += done

    def _take_features(self, space: Space, features: Tensor, places: Tensor) -> None:
        if space is self.clip or BY_FEATURES & self.wanted:
            space.collector.add(features, places)
        if space is self.inception and self.classes is not None:
            assert self.head is not None
            self.classes.add(logits_of(self.head, features), places)

    def partial(self) -> dict[str, Tensor]:
        """Return everything taken so far as named tensors, for `absorb` of a scorer of the same request."""
        found = {"count": torch.tensor(self.count)}
        for part, collector in self._collectors().items():
            found |= {f"{part}.{name}": tensor for name, tensor in collector.tensors().items()}
        return found

    def absorb(self, part: Mapping[str, Tensor]) -> None:
        """Take what another scorer of the same request has taken of other images."""
        for name, collector in self._collectors().items():
            start = f"{name}."
            collector.absorb(
                {key.removeprefix(start): tensor for key, tensor in part.items() if key.startswith(start)}
            )
        self.count += int(part["count"])

    def _collectors(self) -> dict[str, Any]:
        """Return whatever holds something about the candidate, each with `tensors` and `absorb`."""
        found: dict[str, Any] = {}
        for space in self.spaces:
            if space is self.clip or BY_FEATURES & self.wanted:
                found[space.part] = space.collector
        if self.classes is not None:
            found["classes"] = self.classes
        if self.yardstick is not None:
            found["yardstick"] = self.yardstick
        return found

    # What was measured.

    def records(self) -> dict[str, Record]:
        """Return what was measured, by name: value, protocol, counts, what it was made with, floor or deviation."""
        found: dict[str, Record] = {}
        if self.inception is not None and BY_FEATURES & self.wanted:
            found |= self._feature_records(
                self.inception, lambda fake, real: self._values("inception", fake, real)
            )
        if self.inception is not None and self.classes is not None:
            found["is"] = self._class_record(self.inception, self.classes)
        if self.clip is not None:
            found |= self._feature_records(self.clip, lambda fake, real: self._values("clip", fake, real))
        if self.yardstick is not None:
            found |= self._yardstick_records(self.yardstick.scores())
        return found

    def _feature_records(
        self, space: Space, score: Callable[[Features, Features], dict[str, Record]]
    ) -> dict[str, Record]:
        fake = space.collector.features()
        real = space.reference_features(self.real, self.request.batch_size)
        tail = f"{space.protocol}/{_counts(fake.count, self.real.name, real.count)}"
        made_with = {"num_fake": fake.count, "num_real": real.count, **self._made_with(space)}
        return {
            name: found | {"protocol": f"{SCORES[name].protocol_head}/{tail}"} | made_with
            for name, found in score(fake, real).items()
        }

    def _values(self, inputs: str, fake: Features, real: Features | None) -> dict[str, Record]:
        """Return values and what stands beside them, by their names in the record."""
        found: dict[str, Record] = {}
        for name, metric in METRICS.items():
            if name in self.wanted and metric.inputs == inputs:
                for key, value in metric.load()(fake, real, self.request.seed).items():
                    score, _, beside = key.partition(".")
                    found.setdefault(score, {})[beside or "value"] = value
        return found

    def _class_record(self, space: Space, classes: FeatureCollector) -> Record:
        score = self._values("logits", classes.features(), None)["is"]
        protocol = f"{SCORES['is'].protocol_head}/{space.protocol}/n{classes.count}"
        return {
            **score,
            "protocol": protocol,
            "num_fake": classes.count,
            "num_real": 0,
            **self._made_with(space),
            "reference": None,  # nothing real takes part
        }

    def _made_with(self, space: Space | None) -> Record:
        network = {"dtype": "fp32", "weights": None} if space is None else space.made_with
        return {**network, "reference": self.real.key["source"], "seed": self.request.seed}

    def _yardstick_records(self, scores: dict[str, float]) -> dict[str, Record]:
        counts = {name: int(scores.pop(name)) for name in ("num_fake", "num_real")}
        tail = _counts(counts["num_fake"], self.real.name, counts["num_real"])
        found = {}
        for name, value in scores.items():
            family, _, side = name.partition("_")
            if family not in self.wanted or name.endswith("_floor"):
                continue
            floor = scores[f"{name}_floor"]
            protocol = f"{family}-v1{'/' + side + 'px' if side else ''}/{tail}"
            ratio = value / floor if floor else None
            found[name] = {"value": value, "floor": floor, "ratio": ratio, "protocol": protocol}
            found[name] |= {**counts, **self._made_with(None)}
        return found


def _counts(num_fake: int, name: str, num_real: int) -> str:
    """Return what a protocol says of the two sets; a count that nobody knows is left out."""
    return f"n{num_fake}/ref-{name}" + (f"-n{num_real}" if num_real else "")
