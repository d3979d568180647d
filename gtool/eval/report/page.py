"""A result as one HTML file that refers to nothing outside itself: it can be mailed, archived and opened offline.

The style sheet follows the reader's choice of light or dark; pictures are PNG in data addresses, charts SVG.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gtool.eval.report import table as score_table
from gtool.eval.report.charts import Points, cloud, line_chart
from gtool.io.pictures import Pixels

Record = Mapping[str, Any]
STYLE = Path(__file__).with_name("page.css")
SMALL = 96  # pixels below which a picture is enlarged in whole blocks
LARGEST_SHEET = 8_000_000  # bytes of a sheet of a look that is taken in


@dataclass(frozen=True)
class Pair:
    """A generated image (H, W, 3), the real image nearest to it, and how far apart they are."""

    generated: Pixels
    real: Pixels | None = None
    distance: float | None = None


@dataclass(frozen=True)
class Pictures:
    """What a page shows of images; points are (N, 2), `shares` the variance along both directions.

    real_apart: how far a real image is from the one nearest to it, the median.
    """

    pairs: list[Pair] = field(default_factory=list)
    real_apart: float | None = None
    real_points: Points | None = None
    generated_points: Points | None = None
    shares: tuple[float, float] = (0.0, 0.0)


def page(record: Record, pictures: Pictures | None, before: Sequence[Record]) -> str:
    """Return the HTML of a record.

    before: earlier records of the same run, oldest first, with those of their metrics that can be compared with it.
    """
    title = score_table.title_of(record)
    parts = [_header(record), _tiles(record), _gates(record), _metrics(record)]
    if pictures is not None:
        parts += [_pairs(pictures), _cloud(pictures)]
    parts += [
        _history(record, before),
        *(_look(name, found) for name, found in score_table.looks_of(record).items()),
        _facts(record),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>\n{STYLE.read_text(encoding='utf-8')}</style>\n</head>\n"
        f"<body>\n<main>\n{''.join(part for part in parts if part)}</main>\n</body>\n</html>\n"
    )


def _section(title: str, note: str, content: str) -> str:
    told = f"<p>{note}</p>" if note else ""
    return f"<section>\n<h2>{escape(title)}</h2>{told}\n{content}\n</section>\n"


def _header(record: Record) -> str:
    gates = record.get("gates") or []
    missed = [score_table.verdict(gate) for gate in gates if not gate["passed"]]
    badge = ""
    if gates:
        kind = "fail" if score_table.FAIL in missed else "warn" if missed else "pass"
        text = f"{len(gates) - len(missed)} of {len(gates)} gates met" if missed else "all gates met"
        badge = f'<span class="badge {kind}">{text}</span>'
    against = f" against {record['reference']['name']}" if record.get("reference") else ""
    told = escape(score_table.facts(record))
    return (
        f'<header><div><span class="tool">gtool eval</span><h1>{escape(str(record["target"]))}</h1>'
        f"<p>{escape(against.strip())}{' · ' if against else ''}{told}</p></div>{badge}</header>\n"
    )


def _tiles(record: Record) -> str:
    tiles = []
    for name, found in record.get("metrics", {}).items():
        small = [text for text in (_beside(found), _changed(found)) if text]
        verdicts = {
            score_table.verdict(g) for g in record.get("gates", ()) if g["metric"].split(".")[0] == name
        }
        kind = next((k for k in (score_table.FAIL, score_table.WARN, score_table.PASS) if k in verdicts), "")
        tiles.append(
            f'<div class="tile {kind.lower()}"><span>{escape(name)}</span>'
            f"<strong>{score_table.number(found['value'])}</strong><small>{'<br>'.join(small)}</small></div>"
        )
    return f'<div class="tiles">{"".join(tiles)}</div>\n' if tiles else ""


def _beside(found: Record) -> str:
    if found.get("ratio") is not None:
        return f"{found['ratio']:.2f} times real v real"
    return f"± {score_table.number(found['deviation'])}" if found.get("deviation") is not None else ""


def _changed(found: Record) -> str:
    if found.get("delta") is None:
        return ""
    return f"change from the baseline: {escape(score_table.change(found['delta'], found['baseline']))}"


def _gates(record: Record) -> str:
    if not record.get("gates"):
        return ""
    heads, *rows = score_table.gate_rows(record)
    cells = [
        [*map(escape, row[:-1]), f'<span class="badge {row[-1].lower()}">{row[-1]}</span>'] for row in rows
    ]
    return _section("Gates", "", _table(heads, cells))


def _metrics(record: Record) -> str:
    if not record.get("metrics"):
        return ""
    heads, *rows = score_table.score_rows(record)
    cells = [
        [escape(name), f"<code>{escape(row[0])}</code>", *map(escape, row[1:])]
        for name, row in zip(record["metrics"], rows, strict=True)
    ]
    rule = "Numbers are comparable where their protocols are equal, letter by letter."
    note = " ".join([rule, *(f"{remark}." for remark in map(escape, score_table.remarks(record)))])
    table = _table(["metric", "protocol", *heads[1:]], cells)
    return _section("Metrics", note, table + _sheet(record, "pictures that were compared"))


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells that are HTML already; protocols stand at the left, as the first column does."""
    kinds = [' class="text"' if text == "protocol" else "" for text in heads]
    head = "".join(f"<th{kind}>{escape(text)}</th>" for kind, text in zip(kinds, heads, strict=True))
    lines = ["".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, row, strict=True)) for row in rows]
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'


def _pairs(pictures: Pictures) -> str:
    if not pictures.pairs:
        return ""
    figures = []
    for pair in pictures.pairs:
        shown = _image(pair.generated, "generated image")
        if pair.real is not None and pair.distance is not None:
            shown += _image(pair.real, "nearest real image")
            shown += f"<figcaption>{pair.distance:.1f}</figcaption>"
        figures.append(f"<figure>{shown}</figure>")
    has_real = any(pair.real is not None for pair in pictures.pairs)
    among = "" if pictures.real_points is None else f" of {len(pictures.real_points):,}"
    note = (
        f"Above, images of the candidate, evenly picked; below each, the real image{among} that is nearest to it by "
        "the features of <code>rfd</code>, and the distance. A distance near 0 is an image learned by heart."
        if has_real
        else "Images of the candidate, evenly picked."
    )
    if pictures.real_apart is not None:
        note += f" From real to the nearest other real image it is {pictures.real_apart:.1f} (median)."
    title = "Generated images and the nearest real ones" if has_real else "Generated images"
    return _section(title, note, f'<div class="pairs">{"".join(figures)}</div>')


def _image(picture: Pixels, name: str) -> str:
    return f'<img alt="{name}" src="{_address(picture)}"{_kind(picture)} loading="lazy">'


def _kind(picture: Pixels) -> str:
    return ' class="blocks"' if max(picture.shape[:2]) <= SMALL else ""


def _address(picture: Pixels) -> str:
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(content, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


def _cloud(pictures: Pictures) -> str:
    if pictures.real_points is None or pictures.generated_points is None:
        return ""
    groups = (("real", pictures.real_points), ("generated", pictures.generated_points))
    labels = tuple(
        f"direction {n + 1}: {100 * share:.0f} % of the variance" for n, share in enumerate(pictures.shares)
    )
    chart = cloud(groups, name="features of real and generated images", labels=(labels[0], labels[1]))
    keys = "".join(
        f'<span class="key{n}">{len(points):,} {name}</span>' for n, (name, points) in enumerate(groups)
    )
    note = (
        "Features of <code>rfd</code> on the two directions in which real and generated images together vary most. "
        "Where the clouds cover each other, the two kinds look alike; holes are what is missing."
    )
    return _section("Features", note, f'<p class="keys">{keys}</p>{chart}')


def _history(record: Record, before: Sequence[Record]) -> str:
    charts = []
    for name in record.get("metrics", {}):
        same = [one for one in before if name in one.get("metrics", {})]
        records = [one for one in (*same, record) if _is_shown(one["metrics"][name].get("value"))]
        if len(records) < 2:
            continue
        by_kimg = len({one.get("nimg") for one in records}) > 1 and all(
            one.get("nimg") is not None for one in records
        )
        line = [
            (one["nimg"] / 1000 if by_kimg else place + 1, one["metrics"][name]["value"])
            for place, one in enumerate(records)
        ]
        limits = [
            (score_table.limit(gate), gate["limit"])
            for gate in record.get("gates", ())
            if gate["metric"] == name and gate["limit"] is not None
        ]
        line = [*sorted(line[:-1]), line[-1]] if by_kimg else line
        label = "kimg" if by_kimg else "evaluation"
        charts.append(
            f"<figure><figcaption>{escape(name)}</figcaption>"
            f"{line_chart(line, name=name, x_label=label, limits=limits)}</figure>"
        )
    if not charts:
        return ""
    note = "Results of this run by the same protocols; the large dot is this one, dashed lines are gates."
    return _section("History", note, f'<div class="charts">{"".join(charts)}</div>')


def _is_shown(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _look(name: str, found: Record) -> str:
    """Show the numbers of a look, and its sheet where that file is there."""
    heads, *rows = score_table.look_rows(found)
    table = _table(heads, [[*map(escape, row)] for row in rows])
    note = f"<code>{escape(str(found.get('protocol', '')))}</code>"
    return _section(name.replace("_", " ").capitalize(), note, table + _sheet(found, name))


def _sheet(found: Record, name: str) -> str:
    """Show the sheet that was drawn beside some numbers, where that file is there and not too large to carry."""
    sheet = Path(str(found.get("picture") or ""))
    if not sheet.is_file() or sheet.stat().st_size > LARGEST_SHEET:
        return ""
    content = base64.b64encode(sheet.read_bytes()).decode()
    return f'<img class="sheet" alt="{escape(name)}" src="data:image/png;base64,{content}">'


def _facts(record: Record) -> str:
    told = {
        "target": record["target"],
        "seed": record.get("seed"),
        "device": record.get("device"),
        "gtool": record.get("gtool"),
        "weights, SHA-256": record.get("weights_sha256"),
        "commit": _commit(record),
        "reference": (record.get("reference") or {}).get("fingerprint"),
        "baseline": record.get("baseline"),
        **record.get("versions", {}),
        "seconds": ", ".join(f"{name} {seconds}" for name, seconds in record.get("stages", {}).items()),
    }
    shown = {key: value for key, value in told.items() if value not in (None, "")}
    rows = [[escape(key), f"<code>{escape(str(value))}</code>"] for key, value in shown.items()]
    return _section("Where this comes from", "", f'<div class="facts">{_table(["", ""], rows)}</div>')


def _commit(record: Record) -> str | None:
    git = record.get("git")
    return f"{git['commit']}{', with changes' if git['dirty'] else ''}" if git else None
