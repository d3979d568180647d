"""Gates of `gtool eval`: what a score must reach, or by how much it may fall behind a baseline.

Everything that is typed is understood before anything is scored; the verdicts become part of the record. A name is a
metric (`fid`), a number beside its value (`rfd.ratio`), or one in a look into a model (`reconstruction.psnr`).
Nothing heavy is imported here.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gtool import console
from gtool.errors import DataError, RecipeError, did_you_mean
from gtool.metrics.features.weights import are_same_weights
from gtool.metrics.registry import SCORES

# Numbers of looks into a model of which more is better: shares of objects, of wanted pixels, of codes in use.
HIGHER_IN_LOOKS = {score.name for score in SCORES.values() if score.higher_is_better} | {
    "codes_used",
    "perplexity",
    "pixels",
    "mean_iou",
    "attention",
    "margin",
}
RECONSTRUCTION = ("psnr", "ssim", "l1", "rfd", "rfd_ratio", "codes_used", "perplexity")
LEVELS = ("error", "warn")
_NUMBER = re.compile(r"(?P<number>[^%]*)(?P<percent>%?)")


@dataclass(frozen=True)
class Gate:
    """One condition. `bound` is the limit itself or, of a regression, how much worse than the baseline is allowed."""

    metric: str
    kind: str  # max, min, max_regress
    bound: float
    is_relative: bool
    level: str
    typed: str  # as on the command line

    @property
    def flag(self) -> str:
        return f"--{self.kind.replace('_', '-')} {self.typed}"

    @property
    def head(self) -> str:
        """The metric's own name, or that of the look."""
        return self.metric.split(".")[0]


@dataclass(frozen=True)
class Baseline:
    """An earlier record."""

    path: Path
    record: Mapping[str, Any]


# From words to gates.


def parse_gates(
    maxima: Sequence[str], minima: Sequence[str], regressions: Sequence[str], looks: Iterable[str]
) -> tuple[Gate, ...]:
    """Understand `fid=20`, `kid=0.01:warn`, and `fid=5%` of regressions; `looks` are known by name.

    Raises:
        RecipeError: a word that means nothing, or a gate that could never be met.
    """
    typed = [("max", word) for word in maxima]
    typed += [("min", word) for word in minima]
    typed += [("max_regress", word) for word in regressions]
    gates = tuple(_parse(kind, word, tuple(looks)) for kind, word in typed)
    _refuse_idle(gates)
    return gates


def _parse(kind: str, word: str, looks: tuple[str, ...]) -> Gate:
    flag = f"--{kind.replace('_', '-')} {word}"
    text, _, level = word.partition(":")
    name, equals, number = text.partition("=")
    if not equals or not name or not number:
        form = "METRIC=5% or METRIC=0.3" if kind == "max_regress" else "METRIC=NUMBER"
        raise RecipeError(f"{flag}: write {form}, and :warn behind it where it is only a warning")
    if ":" in word and level not in LEVELS:
        raise RecipeError(f"{flag}: `:{level}` is no level{did_you_mean(level, LEVELS)}")
    metric = name.strip().replace("-", "_")
    _require_known(metric, flag, looks)
    found = _NUMBER.fullmatch(number.strip())
    try:
        bound = float(found["number"]) if found else math.nan
    except ValueError:
        bound = math.nan
    if found is None or not math.isfinite(bound):
        raise RecipeError(f"{flag}: `{number}` is no number")
    is_relative = bool(found["percent"])
    gate = Gate(metric, kind, bound / 100 if is_relative else bound, is_relative, level or "error", word)
    _require_sense(gate)
    return gate


def _require_known(metric: str, flag: str, looks: tuple[str, ...]) -> None:
    head, dot, tail = metric.partition(".")
    if head in looks:
        if not dot:
            raise RecipeError(f"{flag}: {head} has many numbers; name one: `{head}.NAME=...`")
        if head == "reconstruction" and tail not in RECONSTRUCTION:
            raise RecipeError(f"{flag}: {head} has no number {tail}{did_you_mean(tail, RECONSTRUCTION)}")
        return
    if head == "swd":
        raise RecipeError(f"{flag}: swd has a value a level; name one: `swd_16`, `swd_32`, ...")
    if head not in SCORES:
        raise RecipeError(f"{flag}: unknown metric {head}{did_you_mean(head.lower(), (*SCORES, *looks))}")
    fields = ("value", *SCORES[head].beside)
    if dot and tail not in fields:
        raise RecipeError(f"{flag}: {head} has no number {tail}{did_you_mean(tail, fields)}")


def _require_sense(gate: Gate) -> None:
    """Refuse a gate that cannot be met, and say which looks like the other kind."""
    if gate.kind == "max_regress":
        if gate.bound < 0:
            raise RecipeError(f"{gate.flag}: how much worse a score may be is not negative")
        return
    if gate.is_relative:
        raise RecipeError(f"{gate.flag}: a share of what? Percent goes with --max-regress")
    score = SCORES.get(gate.metric)
    low, high = (score.low, score.high) if score else (-math.inf, math.inf)
    if (gate.kind == "max" and gate.bound < low) or (gate.kind == "min" and gate.bound > high):
        edge = f"is never below {low:g}" if gate.kind == "max" else f"is never above {high:g}"
        raise RecipeError(f"{gate.flag}: {gate.metric} {edge}, so this can never be met")
    if gate.kind == "max" and is_better_higher(gate.metric):
        console.notice(f"{gate.flag}: more is better of {gate.metric}; --min is the usual gate")
    if gate.kind == "min" and score and not is_better_higher(gate.metric):
        console.notice(f"{gate.flag}: less is better of {gate.metric}; --max is the usual gate")


def _refuse_idle(gates: Sequence[Gate]) -> None:
    """Refuse gates that say the same, and pairs that exclude each other."""
    seen: dict[tuple[str, str, float, bool], Gate] = {}
    for gate in gates:
        same = seen.setdefault((gate.metric, gate.kind, gate.bound, gate.is_relative), gate)
        if same is not gate:
            raise RecipeError(f"{same.flag} and {gate.flag} are one gate")
    for low in (gate for gate in gates if gate.kind == "min"):
        for high in (gate for gate in gates if gate.kind == "max" and gate.metric == low.metric):
            if low.bound > high.bound:
                raise RecipeError(f"{low.flag} and {high.flag} can never both be met")


def is_better_higher(name: str) -> bool:
    """Say whether more is better of a metric (`fid`), or of a number in a look (`reconstruction.psnr`)."""
    name = name.removesuffix(".value")
    if "." in name:
        return name.rpartition(".")[2] in HIGHER_IN_LOOKS
    return name in SCORES and SCORES[name].higher_is_better


# The baseline.


def read_baseline(path: Path, gates: Sequence[Gate]) -> Baseline:
    """Read a record that `-o FILE.json` wrote, or the last one of an `eval.jsonl`.

    Raises:
        DataError: no such file, not a record, or without a metric that `--max-regress` names.
    """
    from gtool.eval.report.record import read_records

    records = read_records(path)
    if not records:
        raise DataError(f"{path}: no record of `gtool eval` (--baseline); write one with -o {path.stem}.json")
    baseline = Baseline(path, records[-1])
    for gate in gates:
        if gate.kind == "max_regress" and not isinstance(find_number(baseline.record, gate.metric), float):
            raise DataError(f"{path}: has no {gate.metric}, which {gate.flag} compares with")
    return baseline


def scores_of(baseline: Baseline) -> list[str]:
    """Return the names of the scores that a baseline has."""
    return list(baseline.record.get("metrics", {}))


def find_number(record: Mapping[str, Any], name: str) -> float | None:
    """Return a number of a record by its name, or None; NaN is a number here."""
    head, _, tail = name.partition(".")
    found: Any = record.get("metrics", {}).get(head)
    if found is None:
        found = record.get(head)
    found = _dig(found, *(tail.split(".") if tail else ()))
    if isinstance(found, Mapping):
        found = found.get("value")
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    return float(found)


def _entry(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the part of a record that carries a number's protocol."""
    head = name.split(".")[0]
    found = record.get("metrics", {}).get(head, record.get(head))
    return found if isinstance(found, Mapping) else {}


def why_apart(record: Mapping[str, Any], baseline: Baseline, name: str) -> str | None:
    """Say why a number and the baseline's cannot be compared; None when they can.

    They can when protocol, weights of the metric and content of the reference are the same; seeds may differ. What a
    record does not say of weights and content, as earlier ones do not, is passed over.
    """
    ours, theirs = _entry(record, name), _entry(baseline.record, name)
    if ours.get("protocol") != theirs.get("protocol"):
        return (
            f"{name} was measured by {ours.get('protocol')} and in {baseline.path} by {theirs.get('protocol')}, "
            "which are not comparable"
        )
    pairs: list[tuple[str, Any, Any, Callable[[str, str], bool]]] = [
        ("with weights", ours.get("weights"), theirs.get("weights"), are_same_weights)
    ]
    if not _chosen_apart(record, baseline.record):
        mine, other = (_content(one, name) for one in (record, baseline.record))
        pairs.append(("against a reference of content", mine, other, operator.eq))
    for what, mine, other, agree in pairs:
        if isinstance(mine, str) and isinstance(other, str) and mine and other and not agree(mine, other):
            return (
                f"{name} was measured by {ours.get('protocol')} {what} {mine[:12]} and in {baseline.path} by the same "
                f"{what} {other[:12]}, which are not comparable"
            )
    return None


def _content(record: Mapping[str, Any], name: str) -> Any:
    """Return the fingerprint of what a metric compared with; None where it compares with nothing, or is a look."""
    entry = _dig(record, "metrics", name.split(".")[0])
    if not isinstance(entry, Mapping):
        return None
    return entry["reference"] if "reference" in entry else _dig(record, "reference", "fingerprint")


def _dig(record: Any, *keys: str) -> Any:
    """Return what lies under keys of keys, None where there is nothing."""
    for key in keys:
        record = record.get(key) if isinstance(record, Mapping) else None
    return record


def _chosen_apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Say whether both references are parts of sets of one size, chosen by different seeds: then contents differ."""
    totals = [_dig(record, "images", "real", "chosen_from") for record in (one, other)]
    return totals[0] is not None and totals[0] == totals[1] and one.get("seed") != other.get("seed")


def comparable_part(record: Mapping[str, Any], earlier: Mapping[str, Any]) -> dict[str, Any]:
    """Return an earlier record with those of its metrics alone that can be compared with this record's."""
    baseline = Baseline(Path(), earlier)
    metrics = {
        name: found
        for name, found in earlier.get("metrics", {}).items()
        if name in record.get("metrics", {}) and why_apart(record, baseline, name) is None
    }
    return {**earlier, "metrics": metrics}


# Verdicts.


def judge(gates: Sequence[Gate], record: dict[str, Any], baseline: Baseline | None) -> list[str]:
    """Add to a record what became of its gates and what the baseline had; return why numbers are not comparable.

    Each metric that the baseline has by the same protocol gets `baseline` and `delta`; a gate whose numbers cannot be
    compared, or is not there, or is NaN, is not passed.
    """
    apart = _add_baseline(record, baseline) if baseline else {}
    if baseline is not None:
        record["baseline"] = str(baseline.path)
    record["gates"] = [_verdict(gate, record, baseline) for gate in gates]
    wanted = [gate.metric for gate in gates if gate.kind == "max_regress"]
    if baseline is None:
        return []
    for name in wanted:
        if name not in apart and (reason := why_apart(record, baseline, name)):
            apart[name] = reason
    if not wanted and not any("baseline" in found for found in record.get("metrics", {}).values()):
        return list(apart.values()) or [f"{baseline.path}: has no metric that was measured now"]
    return (
        [apart[name] for name in dict.fromkeys(wanted) if name in apart] if wanted else list(apart.values())
    )


def _add_baseline(record: dict[str, Any], baseline: Baseline) -> dict[str, str]:
    apart = {}
    for name, found in record.get("metrics", {}).items():
        before = find_number(baseline.record, name)
        if before is None:
            continue
        if reason := why_apart(record, baseline, name):
            apart[name] = reason
            continue
        found["baseline"] = before
        found["delta"] = found["value"] - before
    return apart


def _verdict(gate: Gate, record: Mapping[str, Any], baseline: Baseline | None) -> dict[str, Any]:
    value = find_number(record, gate.metric)
    verdict: dict[str, Any] = {"metric": gate.metric, "kind": gate.kind, "level": gate.level}
    limit: float | None = gate.bound
    if gate.kind == "max_regress":
        assert baseline is not None
        limit = None
        if why_apart(record, baseline, gate.metric) is None:
            before = find_number(baseline.record, gate.metric)
            assert before is not None
            allowed = abs(before) * gate.bound if gate.is_relative else gate.bound
            limit = before - allowed if is_better_higher(gate.metric) else before + allowed
            verdict |= {"baseline": before, "delta": None if value is None else value - before}
        verdict["allowed"] = gate.typed.partition(":")[0].partition("=")[2]
    from_below = gate.kind == "min" or (gate.kind == "max_regress" and is_better_higher(gate.metric))
    passed = value is not None and limit is not None and (value >= limit if from_below else value <= limit)
    needs = "at least" if from_below else "at most"
    return verdict | {"needs": needs, "limit": limit, "value": value, "passed": passed}


def require_measured(gates: Sequence[Gate], record: Mapping[str, Any]) -> None:
    """Raise DataError for a gate whose number the record does not have."""
    for gate in gates:
        if find_number(record, gate.metric) is None:
            known = list(record.get("metrics", {})) + list(_numbers(record, gate.head))
            raise DataError(f"{gate.flag}: {gate.metric} was not measured{did_you_mean(gate.metric, known)}")


def _numbers(record: Mapping[str, Any], head: str) -> Iterable[str]:
    """Yield the names of the numbers in a look, at any depth."""
    look = record.get(head)
    for key in look if isinstance(look, Mapping) else ():
        if find_number(record, f"{head}.{key}") is not None:
            yield f"{head}.{key}"
        elif isinstance(look, Mapping) and isinstance(look[key], Mapping):
            yield from (
                name for name in (f"{head}.{key}.{k}" for k in look[key]) if find_number(record, name)
            )


def failures(record: Mapping[str, Any], level: str = "error") -> list[Mapping[str, Any]]:
    """Return the verdicts of a level that were not passed."""
    return [gate for gate in record.get("gates", ()) if gate["level"] == level and not gate["passed"]]
