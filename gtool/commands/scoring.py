"""The scorer: takes a candidate's images once, compares them with the reference by all metrics, returns the records."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gtool import console
from gtool.commands.scoring_sides import Candidate, Stored, one_size
from gtool.metrics.fid import Extractor, FeatureCollector, Features, fid
from gtool.metrics.inception import load_inception
from gtool.metrics.kid import kid
from gtool.metrics.reference import reference_features
from gtool.metrics.weights import InceptionFile, find_inception
from gtool.metrics.yardstick import Candidate as Measured
from gtool.metrics.yardstick import Yardstick

if TYPE_CHECKING:
    from gtool.commands.eval import Request


class Scorer:
    """Takes the candidate's images once and scores them by everything that was asked for."""

    def __init__(self, request: Request, real: Stored, num: int, device: torch.device) -> None:
        self.request = request
        self.real = real
        self.candidate: Measured | None = None
        self.extractor: Extractor | None = None
        self.needs_rows = "kid" in request.metrics
        self.collector = FeatureCollector(keep_rows=self.needs_rows)
        if {"fid", "kid"} & set(request.metrics):
            self.weights = _find_weights(request.weights)
            self.extractor = Extractor(load_inception(self.weights.path, device), request.mode)
        if {"rfd", "swd"} & set(request.metrics):
            yardstick = Yardstick.build(real.images, num=num, seed=request.seed, device=device)
            self.candidate = yardstick.candidate()

    def take(self, fake: Candidate, name: str) -> None:
        """Run all of the candidate's images through everything that looks at them."""
        with console.progress(f"scoring {name}") as update:
            done = 0
            for batch in fake.batches(self.request.batch_size):
                if self.candidate is not None:
                    self.candidate.add(one_size(batch, name))
                if self.extractor is not None:
                    self.collector.add(self.extractor(batch))
                done += len(batch)
                update(done, fake.count, f"{done:,} of {fake.count:,} images")

    def records(self) -> dict[str, dict[str, Any]]:
        """Return what was measured, by name: value, protocol, counts, and floor or deviation."""
        found: dict[str, dict[str, Any]] = {}
        if self.extractor is not None:
            found |= self._inception_records()
        if self.candidate is not None:
            found |= self._yardstick_records(self.candidate.scores())
        return found

    def _inception_records(self) -> dict[str, dict[str, Any]]:
        fake, real = self.collector.features(), self._real_features()
        tail = f"{self.request.mode}/{self.weights.label}/{_counts(fake.count, self.real.name, real.count)}"
        counts = {"num_fake": fake.count, "num_real": real.count}
        found: dict[str, dict[str, Any]] = {}
        if "fid" in self.request.metrics:
            found["fid"] = {"value": fid(fake, real), "protocol": f"fid/{tail}", **counts}
        if "kid" in self.request.metrics:
            assert fake.rows is not None
            assert real.rows is not None
            measured = kid(fake.rows, real.rows, seed=self.request.seed)
            found["kid"] = {"value": measured.value, "deviation": measured.deviation}
            found["kid"] |= {"protocol": f"kid/{tail}", **counts}
        return found

    def _real_features(self) -> Features:
        extractor = self.extractor
        assert extractor is not None

        def build() -> Features:
            collector = FeatureCollector(keep_rows=self.needs_rows)
            with console.progress(f"features of {self.real.name}") as update:
                for batch in self.real.batches(self.request.batch_size):
                    collector.add(extractor(batch))
                    update(
                        collector.count, self.real.count, f"{collector.count:,} of {self.real.count:,} images"
                    )
            return collector.features()

        key = {**self.real.key, "mode": self.request.mode, "weights": self.weights.sha256}
        return reference_features(key, build, need_rows=self.needs_rows)

    def _yardstick_records(self, scores: dict[str, float]) -> dict[str, dict[str, Any]]:
        counts = {name: int(scores.pop(name)) for name in ("num_fake", "num_real")}
        tail = _counts(counts["num_fake"], self.real.name, counts["num_real"])
        found = {}
        for name, value in scores.items():
            family, _, side = name.partition("_")
            if family not in self.request.metrics or name.endswith("_floor"):
                continue
            floor = scores[f"{name}_floor"]
            protocol = f"{family}-v1{'/' + side + 'px' if side else ''}/{tail}"
            ratio = value / floor if floor else None
            found[name] = {"value": value, "floor": floor, "ratio": ratio, "protocol": protocol, **counts}
        return found


def _counts(num_fake: int, name: str, num_real: int) -> str:
    return f"n{num_fake}/ref-{name}-n{num_real}"


def _find_weights(named: Path | None) -> InceptionFile:
    with console.progress("downloading the Inception weights") as update:
        return find_inception(named, lambda done, total: update(done, total, f"{done >> 20} MiB"))
