"""A result as one HTML file that refers to nothing outside itself: it can be mailed, archived and opened offline.

The template is page.html.jinja, the style sheet page.css; pictures are PNG in data addresses.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader
from PIL import Image

from gtool.errors import printable
from gtool.eval.report import table as tables
from gtool.eval.report.preview import Preview
from gtool.io.pictures import Pixels

Record = Mapping[str, Any]
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
    environment.globals["tables"] = tables
    environment.filters |= {"picture": _picture, "sheet": _sheet}
    return environment.get_template("page.html.jinja").render(record=record, preview=preview, before=before)


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
