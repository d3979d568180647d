"""A JUnit file read as pipelines read it: what both schemas of Jenkins allow, checked by hand, then plain values."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

NUMBER = re.compile(r"\d+(\.\d+)?")
# Element -> attributes it needs, attributes it may have, children it may have.
SCHEMA = {
    "testsuites": ({"tests", "failures", "errors"}, {"name", "time"}, {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors", "skipped", "time", "timestamp", "hostname"},
        {"id", "package"},
        {"properties", "testcase", "system-out", "system-err"},
    ),
    "testcase": (
        {"name", "classname", "time"},
        set(),
        {"skipped", "error", "failure", "system-out", "system-err"},
    ),
    "properties": (set(), set(), {"property"}),
    "property": ({"name", "value"}, set(), set()),
    "failure": ({"message", "type"}, set(), set()),
    "system-out": (set(), set(), set()),
}
COUNTS = ("tests", "failures", "errors", "skipped")


def read_junit(path: Path) -> dict[str, dict]:
    """Return what each test case has: `failure` (text or None), `message`, and what its output says, by name."""
    root = ET.parse(path).getroot()
    assert root.tag == "testsuites"
    _check(root)
    (suite,) = root
    cases = suite.findall("testcase")
    failed = [case for case in cases if case.find("failure") is not None]
    counted = {"tests": len(cases), "failures": len(failed), "errors": 0, "skipped": 0}
    for element in (root, suite):
        assert {name: int(element.get(name, "0")) for name in COUNTS} == counted
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.get("timestamp"))
    assert len({case.get("name") for case in cases}) == len(cases)
    return {case.get("name"): _case(case) for case in cases}


def _check(element: ET.Element) -> None:
    needed, allowed, children = SCHEMA[element.tag]
    assert needed <= set(element.keys()) <= needed | allowed, element.tag
    for name in ("time", *COUNTS):
        assert NUMBER.fullmatch(element.get(name, "0")), name
    tags = [child.tag for child in element]
    assert set(tags) <= children, element.tag
    assert all(tags.count(one) <= 1 for one in ("properties", "failure"))
    if element.tag == "testcase":
        assert tags in (["system-out"], ["failure", "system-out"])
    for child in element:
        _check(child)


def _case(case: ET.Element) -> dict:
    failure = case.find("failure")
    return {
        "failure": None if failure is None else failure.text,
        "message": None if failure is None else failure.get("message"),
        "said": dict(line.split(": ", 1) for line in case.findtext("system-out").split("\n")),
    }
