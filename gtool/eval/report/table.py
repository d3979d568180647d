"""Scores and gates of a record as rows of text, for terminals, Markdown and pages alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

Record = Mapping[str, Any]
PASS, FAIL, WARN = "pass", "FAIL", "warn"


def number(value: float | None) -> str:
    """Write a score with the digits that tell something; a dash where there is none."""
    if value is None:
        return "-"
    if not math.isfinite(value):
        return str(value)
    return f"{value:.5f}" if abs(value) < 1 else f"{value:.3f}"


def change(delta: float | None, before: float | None) -> str:
    """Write how far a score is from that of the baseline, with its share."""
    if delta is None or before is None:
        return "-"
    if delta == 0:
        return "none"
    share = f" ({100 * delta / abs(before):+.1f} %)" if before and math.isfinite(delta) else ""
    return f"{'+' if delta >= 0 else '-'}{number(abs(delta))}{share}"


def title_of(record: Record) -> str:
    """Say what was compared with what."""
    title = str(record["target"])
    if record.get("reference"):
        title += f" against {record['reference']['name']}"
    if "sampling" in record:
        title += f"; top-k {record['sampling']['top_k']}, from {record['sampling']['conditions']}"
    return title


def score_rows(record: Record) -> list[list[str]]:
    """Return heads and a row for each metric; what no metric has, such as a baseline, has no column."""
    metrics = record.get("metrics", {}).values()
    columns = {
        head: write
        for head, (key, write) in _BESIDE.items()
        if any(found.get(key) is not None for found in metrics)
    }
    rows = [["metric", "value", *columns]]
    for found in metrics:
        rows.append(
            [found["protocol"], number(found["value"]), *(write(found) for write in columns.values())]
        )
    return rows


# Column beside the value -> the number it is there for, and how it is written.
_BESIDE: dict[str, tuple[str, Callable[[Record], str]]] = {
    "sd": ("deviation", lambda found: _number_or_none(found.get("deviation"))),
    "real v real": ("floor", lambda found: _number_or_none(found.get("floor"))),
    "ratio": ("ratio", lambda found: f"{found['ratio']:.2f}" if found.get("ratio") is not None else ""),
    "baseline": ("baseline", lambda found: number(found.get("baseline"))),
    "change": ("baseline", lambda found: change(found.get("delta"), found.get("baseline"))),
}


def _number_or_none(value: float | None) -> str:
    return "" if value is None else number(value)


def remarks(record: Record) -> list[str]:
    """Say which numbers are not comparable with published ones, and why."""
    return [
        f"{name}: not comparable with published numbers: "
        + ("a bf16 preview" if found.get("dtype") == "bf16" else "too few images")
        for name, found in record.get("metrics", {}).items()
        if found.get("comparable") is False
    ]


def looks_of(record: Record) -> dict[str, Record]:
    """Return the parts of a record that come from looks into a model: those with a picture."""
    return {name: found for name, found in record.items() if isinstance(found, dict) and "picture" in found}


def look_rows(found: Record) -> list[list[str]]:
    """Return heads and a row for each plain number of a look."""
    rows = [["number", "value"]]
    for name, value in found.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            rows.append([name, str(value) if isinstance(value, int) else number(value)])
    return rows


def gate_rows(record: Record) -> list[list[str]]:
    """Return heads and a row for each gate, the verdict last."""
    rows = [["gate", "value", "limit", "verdict"]]
    for gate in record.get("gates", ()):
        rows.append([gate_name(gate), number(gate["value"]), limit(gate), verdict(gate)])
    return rows


def gate_name(gate: Record) -> str:
    """Name a gate as people speak of it: `fid at most 20`."""
    if gate["kind"] == "max_regress":
        return f"{gate['metric']} at most {gate['allowed']} worse than the baseline"
    return f"{gate['metric']} {gate['needs']} {gate['limit']:g}"


def limit(gate: Record) -> str:
    """Write the limit of a gate, with the baseline that it comes from."""
    text = f"{'>=' if gate['needs'] == 'at least' else '<='} {number(gate['limit'])}"
    if gate.get("baseline") is not None:
        text += f" (baseline {number(gate['baseline'])})"
    return text if gate["limit"] is not None else "not comparable"


def verdict(gate: Record) -> str:
    """Return one word."""
    if gate["passed"]:
        return PASS
    return FAIL if gate["level"] == "error" else WARN


def missed(gate: Record) -> str:
    """Say in one line what a gate wanted and what it got."""
    if gate["value"] is None:
        return f"{gate['metric']} has no value; {gate_name(gate)} was asked for"
    if gate["limit"] is None:
        return f"{gate['metric']} {number(gate['value'])} cannot be compared with the baseline"
    sign = "<" if gate["needs"] == "at least" else ">"
    gap = abs(gate["value"] - gate["limit"])
    text = f"{gate['metric']} {number(gate['value'])} {sign} {number(gate['limit'])} (by {number(gap)}"
    if gate.get("baseline") is not None:
        text += f"; baseline {number(gate['baseline'])}, change {change(gate['delta'], gate['baseline'])}"
    return f"{text})"


def markdown(record: Record) -> str:
    """Return a record as Markdown: gates first, then metrics, then where the numbers come from."""
    parts = [f"### gtool eval: {_escape(title_of(record))}"]
    if record.get("gates"):
        heads, *rows = gate_rows(record)
        rows = [[*row[:-1], f"{_MARKS[row[-1]]} {row[-1]}"] for row in rows]
        parts.append(_table(heads, rows))
    if record.get("metrics"):
        heads, *rows = score_rows(record)
        rows = [[name, _code(row[0]), *row[1:]] for name, row in zip(record["metrics"], rows, strict=True)]
        parts.append(_table(["metric", "protocol", *heads[1:]], rows))
        parts += [f"<sub>{_escape(remark)}</sub>" for remark in remarks(record)]
    for name, found in looks_of(record).items():
        heads, *rows = look_rows(found)
        parts += [f"{name}: {_code(str(found.get('protocol', '')))}", _table(heads, rows)]
    parts.append(f"<sub>{_escape(facts(record))}</sub>")
    return "\n\n".join(parts) + "\n"


_MARKS = {PASS: "✅", FAIL: "❌", WARN: "⚠️"}


def facts(record: Record) -> str:
    """Return one line on seed, versions, commit and weights."""
    told = [f"seed {record.get('seed')}", str(record.get("device", "")), f"gtool {record.get('gtool')}"]
    told += [f"{name} {number}" for name, number in record.get("versions", {}).items() if name == "torch"]
    if git := record.get("git"):
        told.append(f"commit {git['commit'][:12]}{' with changes' if git['dirty'] else ''}")
    if digest := record.get("weights_sha256"):
        told.append(f"weights {digest[:12]}")
    if "seconds" in record:
        told.append(f"{record['seconds']} s")
    return ", ".join(told)


def _table(heads: list[str], rows: list[list[str]]) -> str:
    rule = ["---" if name == "protocol" or not place else "---:" for place, name in enumerate(heads)]
    lines = [heads, rule, *([_escape(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _code(text: str) -> str:
    return f"`{text.replace('`', '')}`"


def _escape(text: str) -> str:
    """Keep what is typed from becoming a cell of its own, a tag, or a new line."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
