"""One score from machines that share nothing.

A shard makes and looks at its own images and keeps what the metrics need of them: moments, rows of features with
their positions, sums. Image i depends on (seed, i) alone, so shards make exactly the images that one process makes,
and what they keep adds up: moments to 1e-9, rows and sums to the rounding of a forward.

A part is a safetensors file. Its header says what must be equal among parts that belong together, and how to open
the reference; whoever merges compares with it, once.

Nothing heavy is imported before it is needed.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gtool import __version__, console
from gtool.errors import CheckpointError, DataError, RecipeError
from gtool.eval.report.outputs import Demands, require_place
from gtool.io import checkpoint

if TYPE_CHECKING:
    from gtool.eval.image_sets import Candidate
    from gtool.eval.options import Request, Target
    from gtool.eval.scores import Scorer
    from gtool.runtime.device import Compute

KIND = "part of a score"
SUFFIX = ".safetensors"
# What parts of one score have in common, and what to call it.
COMMON = {
    "gtool": "version of gtool",
    "shards": "number of shards",
    "count": "number of images",
    "seed": "seed",  # before the target: of a folder, it chooses the images
    "subject": "target",
    "metrics": "metrics",
    "mode": "mode",
    "preview": "precision of features",
    "inception": "Inception weights",
    "clip": "CLIP weights",
    "reference": "reference",
    "about": "candidate",
}


@dataclass(frozen=True)
class Shard:
    """Shard `number` of `total`, counted from 1."""

    number: int
    total: int

    def part(self, count: int, grain: int = 1) -> tuple[int, int]:
        """Return the first image and the one after the last, which may be none; parts begin at multiples of `grain`."""
        return self._cut(self.number - 1, count, grain), self._cut(self.number, count, grain)

    def bounds(self, count: int, grain: int = 1) -> tuple[int, int]:
        """Return the same.

        Raises:
            DataError: no image is left for this shard.
        """
        start, stop = self.part(count, grain)
        if start >= stop:
            raise DataError(
                f"part {self.number}/{self.total}: no image of {count:,} is left for it; use fewer shards or processes"
            )
        return start, stop

    def _cut(self, number: int, count: int, grain: int) -> int:
        return count if number == self.total else count * number // self.total // grain * grain


def parse_shard(text: str) -> Shard:
    """Return what `2/8` means; RecipeError for anything else."""
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise RecipeError(f"--shard {text}: write NUMBER/ALL, the first of eight is 1/8")
    return Shard(int(found[1]), int(found[2]))


def check_sharing(request: Request) -> None:
    """Refuse ways of sharing out a score that do not go together.

    Raises:
        RecipeError: names the flags.
    """
    several = (request.num_processes or 1) > 1
    if request.files and not request.merge:
        raise RecipeError(f"{request.files[0]}: a third target; several files are merged by --merge")
    if request.shard is not None:
        parse_shard(request.shard)
        if request.part is None:
            raise RecipeError(f"--shard {request.shard}: say where the part goes: -o part{SUFFIX}")
        if several or request.merge:
            raise RecipeError("--shard scores a part by one process; leave out --num-processes and --merge")
        if request.demands != Demands():
            raise RecipeError("--shard scores a part; gates and results belong to --merge")
    elif request.part is not None:
        raise RecipeError(f"-o {request.part}: parts are written by --shard NUMBER/ALL")
    alone = [*request.looks, *(["paired"] if request.paired else [])]
    if alone and (several or request.shard or request.merge):
        raise RecipeError(f"--{alone[0].replace('_', '-')} is not shared out; give it in a call of its own")
    if not request.merge:  # where the parts say which metrics there are
        check_export(request)


def check_export(request: Request) -> None:
    """Refuse statistics that cannot be written where `--export-reference` says.

    Raises:
        RecipeError: another suffix, or no metric that makes them.
        CheckpointError: a file could not be written there in the end.
    """
    path = request.export_reference
    if path is None:
        return
    if path.suffix.lower() != ".npz":
        raise RecipeError(f"--export-reference {path}: statistics are an .npz file")
    require_place(path)
    if not request.only_reference and not {"fid", "kid", "pr", "density", "fid_infinity"} & set(
        request.metrics
    ):
        raise RecipeError(
            "--export-reference writes Inception statistics: give --fid too, or --reference and nothing to score"
        )


def take_share(scorer: Scorer, fake: Candidate, name: str, shard: Shard) -> tuple[int, int]:
    """Take the images of one shard; return the first of them and the one after the last."""
    import torch

    grain = grain_of(fake.count, shard, scorer.request.batch_size)
    start, stop = shard.bounds(fake.count, math.lcm(grain, getattr(fake, "grain", 1)))
    scorer.take(fake.part(start, stop), name, torch.arange(start, stop))
    return start, stop


def grain_of(count: int, shard: Shard, batch_size: int) -> int:
    """Return of what the parts are multiples: of whole batches, where there is enough for everyone.

    Then the forwards are those of one process, bit for bit.
    """
    return batch_size if count >= shard.total * batch_size else 1


def score_part(request: Request, target: Target, compute: Compute) -> dict[str, Any]:
    """Take the images of one shard and write what was found; returns what the file says of itself."""
    from gtool.eval.run import open_sides
    from gtool.eval.scores import Scorer

    assert request.shard is not None
    assert request.part is not None
    shard = parse_shard(request.shard)
    fake, real, about = open_sides(request, target, compute)
    scorer = Scorer(request, real, fake.count, compute.device)
    start, stop = take_share(scorer, fake, target.name, shard)
    facts = _facts(request, target, scorer, about)
    facts |= {"shard": shard.number, "shards": shard.total, "start": start, "stop": stop}
    checkpoint.save_weights(request.part, scorer.partial(), {"kind": KIND, **facts})
    if request.as_json:
        console.result_json({"part": str(request.part), **facts})
    else:
        console.notice(
            f"images {start:,} to {stop - 1:,} of {fake.count:,}; when all are there: gtool eval --merge"
        )
        console.result(str(request.part))
    return facts


def _facts(request: Request, target: Target, scorer: Scorer, about: dict[str, Any]) -> dict[str, Any]:
    """Return what a part says of itself, in JSON's types."""
    from gtool.metrics.features.weights import digest_of

    real = scorer.real
    opened = getattr(real, "opened", None)
    reference = {"name": real.name, "resolution": real.key["resolution"], "source": real.key["source"]}
    stands_alone = opened is None and request.needs_reference
    if opened is not None:
        wanted, num = opened
        reference |= {"split": wanted.split, "crop": wanted.crop, "num": num}
    return {
        "gtool": __version__,
        "target": target.name,
        "subject": about.get("candidate") or digest_of(Path(target.name)),
        "count": scorer.num,
        "seed": request.seed,
        "metrics": list(request.metrics),
        "mode": request.mode,
        "preview": request.preview,
        "inception": None if scorer.inception is None else scorer.inception.weights.sha256,
        "clip": None if scorer.clip is None else scorer.clip.weights.sha256,
        "about": about,
        "reference": reference,
        "open": None if opened is None else {"wanted": asdict(opened[0]), "num": opened[1]},
        "statistics": request.reference if stands_alone else None,
    }


def understand_parts(request: Request) -> tuple[Request, Target]:
    """Check that parts belong together and make up the whole; return what they were asked, and of what.

    Raises:
        RecipeError: options that the parts have decided already.
        CheckpointError: a part that is missing, doubled, damaged, or of another score; names it.
    """
    from gtool.eval.options import Target

    paths = _paths(request)
    if request.metrics:
        raise _decided(request.metrics[0])
    found = [_read_facts(path) for path in paths]
    first = found[0]
    _refuse_decided(request, first)
    for path, facts in zip(paths[1:], found[1:], strict=True):
        for key, what in COMMON.items():
            if facts[key] != first[key]:
                raise CheckpointError(
                    f"{path}: another {what} than {paths[0]}: {_shown(facts[key])}, not {_shown(first[key])}"
                )
    _require_all(paths, found)
    asked = {"metrics": tuple(first["metrics"]), "seed": first["seed"], "mode": first["mode"]}
    request = replace(request, **asked, preview=first["preview"], files=tuple(map(str, paths)))
    if request.reference is None and first["statistics"]:
        request = replace(request, reference=first["statistics"])
    check_export(request)
    return request, Target(_same_weights(first), first["target"])


def _refuse_decided(request: Request, facts: dict[str, Any]) -> None:
    """Refuse options that say otherwise than the parts; what was not typed has its default."""
    decided: dict[str, tuple[Any, Any]] = {
        "num": (None, facts["count"]),
        "resolution": (None, facts["reference"]["resolution"]),
        "seed": (0, facts["seed"]),
        "mode": ("clean", facts["mode"]),
        "preview": (False, facts["preview"]),
    }
    for name, allowed in decided.items():
        if getattr(request, name) not in allowed:
            raise _decided(name)


def _decided(name: str) -> RecipeError:
    return RecipeError(f"--{name.replace('_', '-')}: the parts say what was scored, and how; leave it out")


def _paths(request: Request) -> list[Path]:
    names = [name for name in (request.target, request.other, *request.files) if name is not None]
    if not names:
        raise RecipeError(f"--merge: name the parts: gtool eval --merge part-*{SUFFIX}")
    return [Path(name) for name in names]


def _read_facts(path: Path) -> dict[str, Any]:
    facts = checkpoint.read_meta(path)
    if facts.get("kind") != KIND or not {*COMMON, "shard", "open", "statistics", "target"} <= facts.keys():
        raise CheckpointError(f"{path}: no part of a score, as --shard writes them")
    return facts


def _require_all(paths: list[Path], found: list[dict[str, Any]]) -> None:
    by_number: dict[int, Path] = {}
    for path, facts in zip(paths, found, strict=True):
        number = facts["shard"]
        if number in by_number:
            raise CheckpointError(
                f"{path}: shard {number}/{facts['shards']} is there twice; {by_number[number]} too"
            )
        by_number[number] = path
    missing = [number for number in range(1, found[0]["shards"] + 1) if number not in by_number]
    if missing:
        which = ", ".join(f"{number}/{found[0]['shards']}" for number in missing)
        raise CheckpointError(f"--merge: {len(paths)} parts, and without shard {which}")


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _same_weights(facts: dict[str, Any]) -> Path | None:
    """Return the weights that were scored, where they lie here too: their run keeps the record."""
    from gtool.metrics.features.weights import digest_of

    path = Path(facts["target"])
    return path if path.is_file() and digest_of(path) == facts["subject"] else None


def merge_parts(request: Request, compute: Compute) -> tuple[Scorer, Any, dict[str, Any]]:
    """Return a scorer that has taken all images, its reference, and what is known of the candidate.

    Raises:
        CheckpointError: a part that is damaged, or other weights of a network here.
        DataError: the reference is another here, and metrics depend on it.
    """
    from gtool.eval.scores import Scorer

    paths = [Path(name) for name in request.files]
    first = _read_facts(paths[0])
    real = _open_reference(request, first)
    scorer = Scorer(request, real, int(first["count"]), compute.device)
    for weights in (space.weights for space in scorer.spaces):
        network = weights.network
        if weights.sha256 != first[network.key]:
            raise CheckpointError(
                f"{weights.path}: other {network.title} weights than those of {paths[0]}; "
                f"name them by {network.flag}"
            )
    for path in sorted(paths, key=lambda path: int(_read_facts(path)["shard"])):
        try:
            scorer.absorb(checkpoint.load_weights(path).tensors)
        except (KeyError, RuntimeError, ValueError) as bad:
            raise CheckpointError(f"{path}: does not hold what its header promises: {bad}") from None
    if scorer.count != first["count"]:
        raise CheckpointError(f"--merge: the parts hold {scorer.count:,} images of {first['count']:,}")
    return scorer, real, {**first["about"], "merged": len(paths)}


def _open_reference(request: Request, facts: dict[str, Any]) -> Any:
    """Open the reference as the parts would have, or the folder that `--reference` says it lies in here."""
    from gtool.eval.image_sets import Wanted, open_stored
    from gtool.eval.reference import Nothing, open_summary
    from gtool.metrics.features.published import is_statistics, refuse_beyond_statistics

    if not request.needs_reference:
        return Nothing()
    if request.reference is not None and is_statistics(request.reference):
        refuse_beyond_statistics(request)
        return open_summary(request)
    opened = facts["open"]
    wanted = Wanted(**{**opened["wanted"], "columns": tuple(opened["wanted"]["columns"])})
    if request.reference is not None:
        wanted = replace(wanted, dataset=request.reference, split=request.split or wanted.split)
    real = open_stored(wanted, opened["num"], request.seed)
    source = facts["reference"]["source"]
    if source and source != real.key["source"]:
        raise DataError(
            f"{wanted.dataset}: not the images that the parts were compared with; name those by --reference"
        )
    return real
