"""A result as one HTML file that refers to nothing outside itself: it can be mailed, archived and opened offline.

The template is page.html.jinja, the style sheet page.css; pictures are PNG in data addresses, charts inline SVG.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from PIL import Image

from gtool.errors import printable
from gtool.eval.report import table as tables
from gtool.eval.report.charts import cloud, line_chart
from gtool.eval.report.preview import Preview
from gtool.io.pictures import Pixels

Record = Mapping[str, Any]
FUNCTIONS = (  # of table.py that the template calls
    *("title_of", "facts", "number", "change", "verdict", "remarks", "diagnostics_of"),
    *("gate_rows", "score_rows", "number_rows"),
)
LARGEST_SHEET = 8_000_000  # bytes of a diagnostic's picture that is taken in


def page(record: Record, preview: Preview | None, before: Sequence[Record]) -> str:
    """Return the HTML of a record.

    preview: images of both sides, where there are any.
    before: earlier records of the same run, oldest first, with those of their metrics that can be compared with it.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda x: printable(x) if type(x) is str else x,  # names of folders; Markup stays
    )
    environment.globals |= {name: getattr(tables, name) for name in FUNCTIONS}
    environment.filters |= {"picture": _picture, "sheet": _sheet}
    points = None
    if preview is not None and preview.real_points is not None and preview.generated_points is not None:
        first, second = (
            f"direction {number}: {100 * share:.0f} % of the variance"
            for number, share in enumerate(preview.shares, 1)
        )
        points = Markup(cloud(preview.real_points, preview.generated_points, (first, second)))
    template = environment.get_template("page.html.jinja")
    return template.render(record=record, preview=preview, cloud=points, charts=_history(record, before))


def _picture(picture: Pixels) -> str:
    """Return the address of a picture."""
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(content, format="PNG", optimize=True)
    return _address(content.getvalue())


def _address(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _sheet(found: Record) -> str | None:
    """Return the picture that was drawn beside some numbers, where that file is there and not too large to carry."""
    sheet = Path(str(found.get("picture") or ""))
    if not sheet.is_file() or sheet.stat().st_size > LARGEST_SHEET:
        return None
    return _address(sheet.read_bytes())


def _history(record: Record, before: Sequence[Record]) -> dict[str, Markup]:
    """Draw each score of the run over time, by kimg where all records say it."""
    charts = {}
    for name in record.get("metrics", {}):
        same = [
            one for one in (*before, record) if _is_number(one.get("metrics", {}).get(name, {}).get("value"))
        ]
        if len(same) < 2 or same[-1] is not record:
            continue
        kimg = [one["nimg"] / 1000 for one in same if one.get("nimg") is not None]
        by_kimg = len(kimg) == len(same) and len(set(kimg)) > 1
        x = kimg if by_kimg else [float(place) for place in range(1, len(same) + 1)]
        line = list(zip(x, (one["metrics"][name]["value"] for one in same), strict=True))
        limits = [
            (tables.limit(gate), gate["limit"])
            for gate in record.get("gates", ())
            if gate["metric"] == name and gate["limit"] is not None
        ]
        line = [*sorted(line[:-1]), line[-1]]
        charts[name] = Markup(line_chart(line, "kimg" if by_kimg else "evaluation", limits))
    return charts


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
