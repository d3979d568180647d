"""Scores and gates of a record as rows of text, for terminals, Markdown and pages alike."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]
PASS, FAIL, WARN = "pass", "FAIL", "warn"
MARKS = {PASS: "✅", FAIL: "❌", WARN: "⚠️"}


def number(value: float | None) -> str:
    """Write a score with the digits that tell something; a dash where there is none."""
    if not isinstance(value, int | float):
        return "-"
    if not math.isfinite(value):
        return str(value)
    return f"{value:.5f}" if abs(value) < 1 else f"{value:.3f}"


def with_interval(found: Record) -> str:
    """Write a score of a record with its interval: `12.310 (95 %: 11.9 to 12.8)`."""
    return number(found["value"]) + (f" (95 %: {interval(found)})" if interval(found) else "")


def interval(found: Record) -> str:
    """Write an interval by the first digit that half of it has; empty where there is none."""
    low, high = (found.get(end) for end in ("low", "high"))
    if low is None or high is None or not math.isfinite(high - low):
        return ""
    digits = max(0, -math.floor(math.log10((high - low) / 2))) if high > low else 3
    return f"{low:.{digits}f} to {high:.{digits}f}"


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
    rows = []
    for found in record.get("metrics", {}).values():
        ratio, baseline = found.get("ratio"), found.get("baseline")
        beside = {
            "sd": "" if found.get("deviation") is None else number(found["deviation"]),
            "real v real": "" if found.get("floor") is None else number(found["floor"]),
            "ratio": "" if ratio is None else f"{ratio:.2f}",
            "baseline": "" if baseline is None else number(baseline),
            "change": "" if baseline is None else change(found.get("delta"), baseline),
        }
        rows.append({"metric": found["protocol"], "value": with_interval(found)} | beside)
    heads = ["metric", "value", "sd", "real v real", "ratio", "baseline", "change"]
    heads = [head for head in heads if head in ("metric", "value") or any(row[head] for row in rows)]
    return [heads, *([row[head] for head in heads] for row in rows)]


def history_rows(record: Record, before: Sequence[Record]) -> list[list[str]]:
    """Return heads and a row for each result of a run that can be compared with this record, which is the last."""
    names = list(record.get("metrics", {}))
    rows = [["kimg", *names]]
    for one in (*before, record):
        found = one.get("metrics", {})
        if any(name in found for name in names):
            kimg = "-" if one.get("nimg") is None else f"{one['nimg'] / 1000:g}"
            rows.append([kimg, *(number(found.get(name, {}).get("value")) for name in names)])
    return rows


def remarks(record: Record) -> list[str]:
    """Say which numbers are not comparable with published ones, and why."""
    return [
        f"{name}: not comparable with published numbers: "
        + ("a bf16 preview" if found.get("dtype") == "bf16" else "too few images")
        for name, found in record.get("metrics", {}).items()
        if found.get("comparable") is False
    ]


def diagnostics_of(record: Record) -> dict[str, Record]:
    """Return the parts of a record that are diagnostics of a model: those with a picture."""
    return {name: found for name, found in record.items() if isinstance(found, dict) and "picture" in found}


def number_rows(found: Record) -> list[list[str]]:
    """Return heads and a row for each plain number of a diagnostic."""
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
    if gate["limit"] is None:
        return "not comparable"
    text = f"{'>=' if gate['needs'] == 'at least' else '<='} {number(gate['limit'])}"
    return text if gate.get("baseline") is None else f"{text} (baseline {number(gate['baseline'])})"


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


def facts(record: Record) -> dict[str, str]:
    """Return what a result depends on, by name."""
    git, reference = record.get("git"), record.get("reference") or {}
    names = ("target", "seed", "device", "gtool", "weights_sha256", "baseline", "seconds")
    known = {name: record.get(name) for name in names} | {"reference": reference.get("fingerprint")}
    if git:
        known["commit"] = git["commit"] + (", with changes" if git["dirty"] else "")
    known |= record.get("versions", {})
    return {name: str(value) for name, value in known.items() if value is not None}


def facts_line(record: Record) -> str:
    """Return one line on seed, device, versions, commit and weights."""
    found = facts(record)
    names = ("seed", "device", "gtool", "torch", "commit", "weights_sha256", "seconds")
    return ", ".join(
        f"{name} {found[name][:12] if name == 'weights_sha256' else found[name]}"
        for name in names
        if name in found
    )


def markdown(record: Record) -> str:
    """Return a record as Markdown: gates first, then metrics, then where the numbers come from."""
    parts = [f"### gtool eval: {_escape(title_of(record))}"]
    if record.get("gates"):
        heads, *rows = gate_rows(record)
        parts.append(_table(heads, [[*row[:-1], f"{MARKS[row[-1]]} {row[-1]}"] for row in rows]))
    if record.get("metrics"):
        heads, *rows = score_rows(record)
        rows = [[name, _code(row[0]), *row[1:]] for name, row in zip(record["metrics"], rows, strict=True)]
        parts.append(_table(["metric", "protocol", *heads[1:]], rows))
        parts += [f"<sub>{_escape(remark)}</sub>" for remark in remarks(record)]
    for name, found in diagnostics_of(record).items():
        heads, *rows = number_rows(found)
        if found.get("alarm"):
            parts.append(f"{MARKS[WARN]} {name}: {_escape(found['alarm'])}")
        parts += [f"{name}: {_code(str(found.get('protocol', '')))}", _table(heads, rows)]
    parts.append(f"<sub>{_escape(facts_line(record))}</sub>")
    return "\n\n".join(parts) + "\n"


def _table(heads: list[str], rows: list[list[str]]) -> str:
    rule = ["---" if name == "protocol" or not place else "---:" for place, name in enumerate(heads)]
    lines = [heads, rule, *([_escape(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _code(text: str) -> str:
    return f"`{text.replace('`', '')}`"


def _escape(text: str) -> str:
    """Keep what is typed from becoming a cell of its own, a tag, or a new line."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
