"""Gates of `gtool eval`: what a score must reach, or by how much it may fall behind a baseline.

A name is a score (`fid`), a number beside its value (`rfd.ratio`), or one of a diagnostic (`reconstruction.psnr`).
Gates are parsed before anything is scored; the verdicts become part of the record. Nothing heavy is imported here.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gtool import console
from gtool.errors import DataError, RecipeError, did_you_mean
from gtool.metrics.features.weights import are_same_weights
from gtool.metrics.registry import SCORES

# Diagnostics of models -> their help.
DIAGNOSTICS = {
    "attention": "How well attention segments the objects of the built-in scenes",
    "reconstruction": "Reconstructions of a tokenizer against the originals, and the use of its codes",
    "map_agreement": "Agreement of a prior's images of scenes with their label maps",
}
RECONSTRUCTION = ("psnr", "ssim", "l1", "rfd", "rfd_ratio", "codes_used", "perplexity")
# Numbers of diagnostics of which more is better: shares of objects, of wanted pixels, of codes in use.
HIGHER_IN_DIAGNOSTICS = {score.name for score in SCORES.values() if score.higher_is_better} | {
    "codes_used",
    "perplexity",
    "pixels",
    "mean_iou",
    "attention",
    "margin",
}
LEVELS = ("error", "warn")
Record = Mapping[str, Any]


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


# From words to gates.


def parse_gates(maxima: Sequence[str], minima: Sequence[str], regressions: Sequence[str]) -> tuple[Gate, ...]:
    """Parse `fid=20`, `kid=0.01:warn`, and `fid=5%` of regressions.

    Raises:
        RecipeError: a word that means nothing, a gate that could never be met, or two that say the same.
    """
    typed = [("max", word) for word in maxima]
    typed += [("min", word) for word in minima]
    typed += [("max_regress", word) for word in regressions]
    gates = tuple(_parse(kind, word) for kind, word in typed)
    seen: dict[tuple[str, str, float, bool], Gate] = {}
    for gate in gates:
        same = seen.setdefault((gate.metric, gate.kind, gate.bound, gate.is_relative), gate)
        if same is not gate:
            raise RecipeError(f"{same.flag} and {gate.flag} are one gate")
        for other in gates:
            if (gate.kind, other.kind, gate.metric) == (
                "min",
                "max",
                other.metric,
            ) and gate.bound > other.bound:
                raise RecipeError(f"{gate.flag} and {other.flag} can never both be met")
    return gates


def _parse(kind: str, word: str) -> Gate:
    flag = f"--{kind.replace('_', '-')} {word}"
    text, colon, level = word.partition(":")
    name, _, number = text.partition("=")
    if not name or not number:
        form = "METRIC=5% or METRIC=0.3" if kind == "max_regress" else "METRIC=NUMBER"
        raise RecipeError(f"{flag}: write {form}, and :warn behind it where it is only a warning")
    if colon and level not in LEVELS:
        raise RecipeError(f"{flag}: `:{level}` is no level{did_you_mean(level, LEVELS)}")
    metric = name.strip().replace("-", "_")
    _require_known(metric, flag)
    found = re.fullmatch(r"([^%]*)(%?)", number.strip())
    try:
        bound = float(found[1]) if found else math.nan
    except ValueError:
        bound = math.nan
    if found is None or not math.isfinite(bound):
        raise RecipeError(f"{flag}: `{number}` is no number")
    is_relative = bool(found[2])
    gate = Gate(metric, kind, bound / 100 if is_relative else bound, is_relative, level or "error", word)
    _require_possible(gate)
    return gate


def _require_known(metric: str, flag: str) -> None:
    head, dot, tail = metric.partition(".")
    if head in DIAGNOSTICS:
        if not dot:
            raise RecipeError(f"{flag}: {head} has many numbers; name one: `{head}.NAME=...`")
        if head == "reconstruction" and tail not in RECONSTRUCTION:
            raise RecipeError(f"{flag}: {head} has no number {tail}{did_you_mean(tail, RECONSTRUCTION)}")
        return
    if head not in SCORES:
        several = [name for name in SCORES if name.startswith(f"{head}_")][:2]
        if len(several) > 1 and head.isalpha():
            raise RecipeError(f"{flag}: {head} has several values; name one: `{'`, `'.join(several)}`, ...")
        hint = did_you_mean(head.lower(), (*SCORES, *DIAGNOSTICS))
        raise RecipeError(f"{flag}: unknown metric {head}{hint}")
    fields = ("value", *SCORES[head].beside)
    if dot and tail not in fields:
        raise RecipeError(f"{flag}: {head} has no number {tail}{did_you_mean(tail, fields)}")


def _require_possible(gate: Gate) -> None:
    """Refuse a gate that cannot be met, and say which looks like the other kind."""
    if gate.kind == "max_regress":
        if gate.bound < 0:
            raise RecipeError(f"{gate.flag}: how much worse a score may be is not negative")
        return
    if gate.is_relative:
        raise RecipeError(f"{gate.flag}: a share of what? Percent goes with --max-regress")
    score, higher = SCORES.get(gate.metric), is_better_higher(gate.metric)
    if score and gate.kind == "max" and gate.bound < score.low:
        raise RecipeError(
            f"{gate.flag}: {gate.metric} is never below {score.low:g}, so this can never be met"
        )
    if score and gate.kind == "min" and gate.bound > score.high:
        raise RecipeError(
            f"{gate.flag}: {gate.metric} is never above {score.high:g}, so this can never be met"
        )
    if gate.kind == "max" and higher:
        console.notice(f"{gate.flag}: more is better of {gate.metric}; --min is the usual gate")
    if gate.kind == "min" and score and not higher:
        console.notice(f"{gate.flag}: less is better of {gate.metric}; --max is the usual gate")


def is_better_higher(name: str) -> bool:
    """Say whether more is better of a score (`fid`), or of a number in a diagnostic (`reconstruction.psnr`)."""
    name = name.removesuffix(".value")
    if "." in name:
        return name.rpartition(".")[2] in HIGHER_IN_DIAGNOSTICS
    return name in SCORES and SCORES[name].higher_is_better


# The baseline.


def require_comparable(path: Path, baseline: Record, gates: Sequence[Gate]) -> None:
    """Raise DataError where a baseline has no number that a gate compares with."""
    for gate in gates:
        if gate.kind == "max_regress" and find_number(baseline, gate.metric) is None:
            raise DataError(f"{path}: has no {gate.metric}, which {gate.flag} compares with")


def find_number(record: Record, name: str) -> float | None:
    """Return a number of a record by its name, or None; NaN is a number here."""
    head, *tail = name.split(".")
    found = _dig(_entry(record, head), *tail)
    if isinstance(found, Mapping):
        found = found.get("value")
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    return float(found)


def _entry(record: Record, name: str) -> Any:
    """Return what a record says of a score or a diagnostic."""
    head = name.split(".")[0]
    found = record.get("metrics", {}).get(head)
    return record.get(head) if found is None else found


def _dig(record: Any, *keys: str) -> Any:
    """Return what lies under keys of keys, None where there is nothing."""
    for key in keys:
        record = record.get(key) if isinstance(record, Mapping) else None
    return record


def why_apart(record: Record, baseline: Record, name: str) -> str | None:
    """Say why a number and the baseline's cannot be compared; None when they can.

    They can when protocol, weights of the metric and content of the reference are the same; seeds may differ. What a
    record does not say of weights and content, as earlier ones do not, is passed over.
    """
    ours, theirs = _entry(record, name), _entry(baseline, name)
    protocol = _dig(ours, "protocol")
    if protocol != _dig(theirs, "protocol"):
        return (
            f"{name} was measured by {protocol} and in the baseline by {_dig(theirs, 'protocol')}, "
            "which are not comparable"
        )
    pairs = [("with weights", _dig(ours, "weights"), _dig(theirs, "weights"), are_same_weights)]
    if not _chosen_apart(record, baseline):
        contents = (_content(one, name) for one in (record, baseline))
        pairs.append(("against a reference of content", *contents, operator.eq))
    for what, mine, other, agree in pairs:
        if isinstance(mine, str) and isinstance(other, str) and mine and other and not agree(mine, other):
            return (
                f"{name} was measured by {protocol} {what} {mine[:12]} and in the baseline by the same "
                f"{what} {other[:12]}, which are not comparable"
            )
    return None


def _content(record: Record, name: str) -> Any:
    """Return the fingerprint of what a score compared with; None where it compares with nothing."""
    entry = _dig(record, "metrics", name.split(".")[0])
    if not isinstance(entry, Mapping):
        return None
    return entry["reference"] if "reference" in entry else _dig(record, "reference", "fingerprint")


def _chosen_apart(one: Record, other: Record) -> bool:
    """Say whether both references are parts of sets of one size, chosen by different seeds: then contents differ."""
    totals = [_dig(record, "images", "real", "chosen_from") for record in (one, other)]
    return totals[0] is not None and totals[0] == totals[1] and one.get("seed") != other.get("seed")


def comparable_part(record: Record, earlier: Record) -> dict[str, Any]:
    """Return an earlier record with those of its metrics alone that can be compared with this record's."""
    metrics = {
        name: found
        for name, found in earlier.get("metrics", {}).items()
        if name in record.get("metrics", {}) and why_apart(record, earlier, name) is None
    }
    return {**earlier, "metrics": metrics}


# Verdicts.


def judge(gates: Sequence[Gate], record: dict[str, Any], baseline: Record | None) -> list[str]:
    """Add to a record what became of its gates and what the baseline had; return why numbers are not comparable.

    Each metric that the baseline has by the same protocol gets `baseline` and `delta`; a gate whose numbers cannot be
    compared, or is not there, or is NaN, is not passed.
    """
    record["gates"] = [_verdict(gate, record, baseline) for gate in gates]
    if baseline is None:
        return []
    apart = {}
    for name, found in record.get("metrics", {}).items():
        before = find_number(baseline, name)
        if before is not None and (reason := why_apart(record, baseline, name)):
            apart[name] = reason
        elif before is not None:
            found |= {"baseline": before, "delta": found["value"] - before}
    if wanted := dict.fromkeys(gate.metric for gate in gates if gate.kind == "max_regress"):
        reasons = (why_apart(record, baseline, name) for name in wanted)
        return [reason for reason in reasons if reason]
    if not any("baseline" in found for found in record.get("metrics", {}).values()):
        return list(apart.values()) or ["the baseline has no metric that was measured now"]
    return list(apart.values())


def _verdict(gate: Gate, record: Record, baseline: Record | None) -> dict[str, Any]:
    value = find_number(record, gate.metric)
    verdict: dict[str, Any] = {"metric": gate.metric, "kind": gate.kind, "level": gate.level}
    limit: float | None = gate.bound
    if gate.kind == "max_regress":
        assert baseline is not None
        limit = None
        before = find_number(baseline, gate.metric)
        if before is not None and why_apart(record, baseline, gate.metric) is None:
            allowed = abs(before) * gate.bound if gate.is_relative else gate.bound
            limit = before - allowed if is_better_higher(gate.metric) else before + allowed
            verdict |= {"baseline": before, "delta": None if value is None else value - before}
        verdict["allowed"] = gate.typed.partition(":")[0].partition("=")[2]
    from_below = gate.kind == "min" or (gate.kind == "max_regress" and is_better_higher(gate.metric))
    passed = value is not None and limit is not None and (value >= limit if from_below else value <= limit)
    needs = "at least" if from_below else "at most"
    return verdict | {"needs": needs, "limit": limit, "value": value, "passed": passed}


def require_measured(gates: Sequence[Gate], record: Record) -> None:
    """Raise DataError for a gate whose number the record does not have."""
    for gate in gates:
        if find_number(record, gate.metric) is None:
            head = gate.metric.split(".")[0]
            known = [*record.get("metrics", {}), *_numbers(record, head, record.get(head))]
            raise DataError(f"{gate.flag}: {gate.metric} was not measured{did_you_mean(gate.metric, known)}")


def _numbers(record: Record, name: str, found: Any) -> Iterator[str]:
    """Yield the names of the numbers of a diagnostic, at any depth."""
    for key, value in found.items() if isinstance(found, Mapping) else ():
        if find_number(record, f"{name}.{key}") is not None:
            yield f"{name}.{key}"
        else:
            yield from _numbers(record, f"{name}.{key}", value)


def failures(record: Record, level: str = "error") -> list[Record]:
    """Return the verdicts of a level that were not passed."""
    return [gate for gate in record.get("gates", ()) if gate["level"] == level and not gate["passed"]]
