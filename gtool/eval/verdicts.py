"""Verdicts on gates: the numbers of a record, whether a baseline's can be compared with them, and what passes."""

import operator
from collections.abc import Mapping, Sequence
from typing import Any

from gtool.errors import DataError, did_you_mean
from gtool.eval.gates import DIAGNOSTICS, Gate, is_better_higher
from gtool.metrics.features.weights import are_same_weights

Record = Mapping[str, Any]


def entries_of(record: Record) -> dict[str, Any]:
    """Return what a record says of each score and diagnostic."""
    return {**record.get("metrics", {}), **{name: record[name] for name in DIAGNOSTICS if name in record}}


def numbers_of(record: Record) -> dict[str, float]:
    """Return the numbers of a record by the names that gates use; NaN is a number here."""
    found: dict[str, float] = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                add(name if key == "value" else f"{name}.{key}", inner)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = float(value)

    for name, value in entries_of(record).items():
        add(name, value)
    return found


def find_number(record: Record, name: str) -> float | None:
    """Return a number of a record by its name, or None."""
    return numbers_of(record).get(name.removesuffix(".value"))


def why_apart(record: Record, baseline: Record, name: str) -> str | None:
    """Say why a number and the baseline's cannot be compared; None when they can.

    They can when protocol, weights of the metric, content and resolution of the reference are the same; seeds may
    differ. What a record does not say of these is passed over.
    """
    head, both = name.split(".")[0], (record, baseline)
    ours, theirs = (entries_of(one).get(head, {}) for one in both)
    protocol = ours.get("protocol")
    if protocol != theirs.get("protocol"):
        there = f"in the baseline by {theirs.get('protocol')}"
        return f"{name} was measured by {protocol} and {there}, which are not comparable"
    pairs: list[tuple[str, Any, Any, Any]] = [
        ("with weights", ours.get("weights"), theirs.get("weights"), are_same_weights)
    ]
    totals = [((one.get("images") or {}).get("real") or {}).get("chosen_from") for one in both]
    chosen_apart = totals[0] and totals[0] == totals[1] and record.get("seed") != baseline.get("seed")
    if not chosen_apart and head not in DIAGNOSTICS:
        contents = (
            entry.get("reference", (one.get("reference") or {}).get("fingerprint"))
            for entry, one in zip((ours, theirs), both, strict=True)
        )
        pairs.append(("against a reference of content", *contents, operator.eq))
    mine, other = (str((one.get("reference") or {}).get("resolution") or "") for one in both)
    pairs.append(("at a resolution of", mine, other, operator.eq))
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


def incomparable(gates: Sequence[Gate], record: Record, baseline: Record) -> list[str]:
    """Return why scores cannot be compared with the baseline's: those of regressions, or all where there are none.

    record: its metrics need no values yet; of gates on numbers of diagnostics nothing is said.
    """
    metrics, before = record.get("metrics", {}), numbers_of(baseline)
    wanted = dict.fromkeys(gate.metric for gate in gates if gate.kind == "max_regress")
    if wanted:
        names = [name for name in wanted if name.split(".")[0] in metrics]
        return [reason for name in names if (reason := why_apart(record, baseline, name))]
    names = [name for name in metrics if name in before]
    if metrics and not names:
        return ["the baseline has no metric that is measured now"]
    return [reason for name in names if (reason := why_apart(record, baseline, name))]


def judge(gates: Sequence[Gate], record: dict[str, Any], baseline: Record | None) -> list[str]:
    """Add to a record what became of its gates and what the baseline had; return why numbers are not comparable.

    Each metric that the baseline has by the same protocol gets `baseline` and `delta`; a gate whose numbers cannot be
    compared, or is not there, or is NaN, is not passed.
    """
    record["gates"] = [_verdict(gate, record, baseline) for gate in gates]
    if baseline is None:
        return []
    metrics, before = record.get("metrics", {}), numbers_of(baseline)
    for name in [name for name in metrics if name in before]:
        if why_apart(record, baseline, name) is None:
            metrics[name] |= {"baseline": before[name], "delta": metrics[name]["value"] - before[name]}
    wanted = dict.fromkeys(gate.metric for gate in gates if gate.kind == "max_regress")
    asked = [reason for name in wanted if (reason := why_apart(record, baseline, name))]
    return asked if wanted else incomparable(gates, record, baseline)


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


def require_numbers(gates: Sequence[Gate], record: Record, where: str = "") -> None:
    """Raise DataError for a gate whose number was not measured; with `where`, the name of a baseline, is not in it."""
    known = numbers_of(record)
    for gate in gates:
        if gate.metric.removesuffix(".value") in known:
            continue
        if where:
            raise DataError(f"{where}: has no {gate.metric}, which {gate.flag} compares with")
        raise DataError(f"{gate.flag}: {gate.metric} not measured{did_you_mean(gate.metric, list(known))}")


def failures(record: Record, level: str = "error") -> list[Record]:
    """Return the verdicts of a level that were not passed."""
    return [gate for gate in record.get("gates", ()) if gate["level"] == level and not gate["passed"]]
