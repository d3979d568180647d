"""Gates of `gtool eval`: what a score must reach, or by how much it may fall behind a baseline.

A name is a score (`fid`), a number beside its value (`rfd.ratio`), or one of a diagnostic (`reconstruction.psnr`).
Gates are parsed before anything is scored; the verdicts become part of the record. Nothing heavy is imported here.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
# Numbers of which more is better: scores, and shares of objects, pixels and codes in diagnostics.
HIGHER = {score.name for score in SCORES.values() if score.higher_is_better}
HIGHER_IN_DIAGNOSTICS = HIGHER | {"codes_used", "perplexity", "pixels", "mean_iou", "attention", "margin"}
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


def parse_gates(maxima: Sequence[str], minima: Sequence[str], regressions: Sequence[str]) -> tuple[Gate, ...]:
    """Parse `fid=20`, `kid=0.01:warn`, and `fid=5%` of regressions.

    Raises:
        RecipeError: a word that means nothing, a gate that could never be met, or two that say the same.
    """
    typed = {"max": maxima, "min": minima, "max_regress": regressions}
    gates = tuple(_parse(kind, word) for kind, words in typed.items() for word in words)
    for number, gate in enumerate(gates):
        for other in gates[:number]:
            if (gate.metric, gate.kind, gate.bound) == (other.metric, other.kind, other.bound):
                raise RecipeError(f"{other.flag} and {gate.flag} are one gate")
            if (gate.metric, gate.kind, other.kind) == (
                other.metric,
                "min",
                "max",
            ) and gate.bound > other.bound:
                raise RecipeError(f"{gate.flag} and {other.flag} can never both be met")
    return gates


def _parse(kind: str, word: str) -> Gate:
    flag = f"--{kind.replace('_', '-')} {word}"
    found = re.fullmatch(r"([^=]+)=([^:]+)(?::(.*))?", word)
    if found is None:
        form = "METRIC=5% or METRIC=0.3" if kind == "max_regress" else "METRIC=NUMBER"
        raise RecipeError(f"{flag}: write {form}, and :warn behind it where it is only a warning")
    metric, number = found[1].strip().replace("-", "_"), found[2].strip()
    level = "error" if found[3] is None else found[3]
    if level not in LEVELS:
        raise RecipeError(f"{flag}: `:{level}` is no level{did_you_mean(level, LEVELS)}")
    _require_known(metric, flag)
    is_relative = number.endswith("%")
    try:
        bound = float(number.removesuffix("%"))
    except ValueError:
        bound = math.nan
    if not math.isfinite(bound):
        raise RecipeError(f"{flag}: `{number}` is no number")
    if is_relative and kind != "max_regress":
        raise RecipeError(f"{flag}: a share of what? Percent goes with --max-regress")
    if kind == "max_regress" and bound < 0:
        raise RecipeError(f"{flag}: how much worse a score may be is not negative")
    if kind != "max_regress" and (score := SCORES.get(metric)):
        if not score.low <= bound <= score.high and (kind == "max") == (bound < score.low):
            edge = f"below {score.low:g}" if kind == "max" else f"above {score.high:g}"
            raise RecipeError(f"{flag}: {metric} is never {edge}, so this can never be met")
        if (kind == "max") == score.higher_is_better:
            better, usual = ("more", "--min") if score.higher_is_better else ("less", "--max")
            console.notice(f"{flag}: {better} is better of {metric}; {usual} is the usual gate")
    return Gate(metric, kind, bound / 100 if is_relative else bound, is_relative, level, word)


def _require_known(metric: str, flag: str) -> None:
    head, dot, tail = metric.partition(".")
    if head in DIAGNOSTICS:
        if not dot:
            raise RecipeError(f"{flag}: {head} has many numbers; name one: `{head}.NAME=...`")
        known: tuple[str, ...] = RECONSTRUCTION if head == "reconstruction" else (tail,)
    elif head in SCORES:
        known = ("value", *SCORES[head].beside)
    else:
        levels = [name for name in SCORES if name.startswith(f"{head}_")]
        hint = f"; name one of {', '.join(levels)}" if len(levels) > 1 else ""
        hint = hint or did_you_mean(head.lower(), (*SCORES, *DIAGNOSTICS))
        raise RecipeError(f"{flag}: unknown metric {head}{hint}")
    if dot and tail not in known:
        raise RecipeError(f"{flag}: {head} has no number {tail}{did_you_mean(tail, known)}")


def is_better_higher(name: str) -> bool:
    """Say whether more is better of a score (`fid`), or of a number in a diagnostic (`reconstruction.psnr`)."""
    name = name.removesuffix(".value")
    return name.rpartition(".")[2] in HIGHER_IN_DIAGNOSTICS if "." in name else name in HIGHER


# Records.


def numbers_of(record: Record) -> dict[str, float]:
    """Return the numbers of a record by the names that gates use; NaN is a number here."""
    found: dict[str, float] = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                add(name if key == "value" else f"{name}.{key}", inner)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = float(value)

    for name, value in (*record.get("metrics", {}).items(), *record.items()):
        if name in DIAGNOSTICS or name in record.get("metrics", {}):
            add(name, value)
    return found


def find_number(record: Record, name: str) -> float | None:
    """Return a number of a record by its name, or None."""
    return numbers_of(record).get(name.removesuffix(".value"))


def _entry(record: Record, name: str) -> Record:
    """Return what a record says of a score or a diagnostic."""
    head = name.split(".")[0]
    found = record.get("metrics", {}).get(head, record.get(head))
    return found if isinstance(found, Mapping) else {}


def why_apart(record: Record, baseline: Record, name: str) -> str | None:
    """Say why a number and the baseline's cannot be compared; None when they can.

    They can when protocol, weights of the metric and content of the reference are the same; seeds may differ. What a
    record does not say of weights and content is passed over.
    """
    ours, theirs = _entry(record, name), _entry(baseline, name)
    protocol = ours.get("protocol")
    if protocol != theirs.get("protocol"):
        there = f"in the baseline by {theirs.get('protocol')}"
        return f"{name} was measured by {protocol} and {there}, which are not comparable"
    pairs = [("with weights", ours.get("weights"), theirs.get("weights"), are_same_weights)]
    totals = [((one.get("images") or {}).get("real") or {}).get("chosen_from") for one in (record, baseline)]
    chosen_apart = totals[0] and totals[0] == totals[1] and record.get("seed") != baseline.get("seed")
    if not chosen_apart and name.split(".")[0] not in DIAGNOSTICS:
        contents = (
            found.get("reference", (one.get("reference") or {}).get("fingerprint"))
            for found, one in ((ours, record), (theirs, baseline))
        )
        pairs.append(("against a reference of content", *contents, operator.eq))
    for what, mine, other, agree in pairs:
        if mine and other and not agree(mine, other):
            there = f"in the baseline by the same {what} {other[:12]}"
            return (
                f"{name} was measured by {protocol} {what} {mine[:12]} and {there}, which are not comparable"
            )
    return None


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
    apart, metrics, before = [], record.get("metrics", {}), numbers_of(baseline)
    for name in [name for name in metrics if name in before]:
        if reason := why_apart(record, baseline, name):
            apart.append(reason)
        else:
            metrics[name] |= {"baseline": before[name], "delta": metrics[name]["value"] - before[name]}
    if wanted := dict.fromkeys(gate.metric for gate in gates if gate.kind == "max_regress"):
        return [reason for name in wanted if (reason := why_apart(record, baseline, name))]
    if not apart and not any("baseline" in found for found in metrics.values()):
        return ["the baseline has no metric that was measured now"]
    return apart


def _verdict(gate: Gate, record: Record, baseline: Record | None) -> dict[str, Any]:
    value, limit = find_number(record, gate.metric), gate.bound
    verdict: dict[str, Any] = {"metric": gate.metric, "kind": gate.kind, "level": gate.level}
    from_below = gate.kind == "min"
    comparable = True
    if gate.kind == "max_regress":
        assert baseline is not None
        from_below, before = is_better_higher(gate.metric), find_number(baseline, gate.metric)
        comparable = before is not None and why_apart(record, baseline, gate.metric) is None
        if before is not None and comparable:
            allowed = abs(before) * gate.bound if gate.is_relative else gate.bound
            limit = before - allowed if from_below else before + allowed
            verdict |= {"baseline": before, "delta": None if value is None else value - before}
        verdict["allowed"] = gate.typed.partition(":")[0].partition("=")[2]
    passed = value is not None and comparable and (value >= limit if from_below else value <= limit)
    return verdict | {
        "needs": "at least" if from_below else "at most",
        "limit": limit if comparable else None,
        "value": value,
        "passed": passed,
    }


def require_measured(gates: Sequence[Gate], record: Record) -> None:
    """Raise DataError for a gate whose number the record does not have."""
    known = numbers_of(record)
    for gate in gates:
        if gate.metric.removesuffix(".value") not in known:
            raise DataError(
                f"{gate.flag}: {gate.metric} was not measured{did_you_mean(gate.metric, list(known))}"
            )


def require_comparable(where: object, baseline: Record, gates: Sequence[Gate]) -> None:
    """Raise DataError where a baseline has no number that a gate compares with."""
    for gate in gates:
        if gate.kind == "max_regress" and find_number(baseline, gate.metric) is None:
            raise DataError(f"{where}: has no {gate.metric}, which {gate.flag} compares with")


def failures(record: Record, level: str = "error") -> list[Record]:
    """Return the verdicts of a level that were not passed."""
    return [gate for gate in record.get("gates", ()) if gate["level"] == level and not gate["passed"]]
