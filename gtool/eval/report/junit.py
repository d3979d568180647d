"""Gates as a JUnit file, the form in which pipelines show results of tests.

What it holds is what both schemas of Jenkins allow, that of its JUnit plug-in (jenkins-junit.xsd) and that of its xUnit
plug-in (junit-10.xsd); GitLab and others read the same.
"""

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from gtool.eval.report import table
from gtool.eval.verdicts import entries_of

SUITE = "gtool.eval"


def junit(record: Mapping[str, Any]) -> bytes:
    """Return one test case a gate, or a metric where there are no gates; a warning passes and says so."""
    gates = record.get("gates") or []
    cases = [_gate_case(record, gate) for gate in gates] or _score_cases(record)
    failed = sum(not gate["passed"] and gate["level"] == "error" for gate in gates)
    counts = {"tests": str(len(cases)), "failures": str(failed), "errors": "0"}
    common = {"name": SUITE, **counts, "time": f"{record.get('seconds', 0):.3f}"}
    root = ET.Element("testsuites", common)
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    own = {"skipped": "0", "timestamp": stamp, "hostname": "localhost"}
    suite = ET.SubElement(root, "testsuite", common | own)
    protocols = {f"protocol.{name}": one["protocol"] for name, one in record.get("metrics", {}).items()}
    listed = ET.SubElement(suite, "properties")
    for name, text in (table.facts(record) | protocols).items():
        ET.SubElement(listed, "property", {"name": name, "value": _clean(text)})
    suite.extend(cases)
    ET.indent(root)
    return ET.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def _score_cases(record: Mapping[str, Any]) -> list[ET.Element]:
    """Return a test case for every metric, and for every plain number of diagnostics."""
    cases = [
        _case(name, {"protocol": one["protocol"], "value": table.with_interval(one)})
        for name, one in record.get("metrics", {}).items()
    ]
    for name, found in table.diagnostics_of(record).items():
        protocol = str(found.get("protocol", ""))
        rows = table.number_rows(found)[1:]
        cases += [_case(f"{name}.{key}", {"protocol": protocol, "value": value}) for key, value in rows]
    return cases


def _gate_case(record: Mapping[str, Any], gate: Mapping[str, Any]) -> ET.Element:
    entry = entries_of(record).get(gate["metric"].split(".")[0], {})
    said = {"protocol": entry.get("protocol", ""), "value": table.number(gate["value"])}
    said["limit"] = table.limit(gate)
    if reach := table.interval(entry):
        said["95 %"] = reach
    if gate.get("delta") is not None:
        said["delta"] = table.number(gate["delta"])
    if not gate["passed"] and gate["level"] == "warn":
        said = {"warning": table.missed(gate)} | said
    case = _case(table.gate_name(gate), said)
    if not gate["passed"] and gate["level"] != "warn":
        failure = ET.Element("failure", {"message": _clean(table.missed(gate)), "type": "gate"})
        failure.text = _lines(said)
        case.insert(0, failure)  # one schema wants it before the output
    return case


def _case(name: str, said: Mapping[str, str]) -> ET.Element:
    """Return a test case; what it says is its output, as a case has no properties in one of the schemas."""
    case = ET.Element("testcase", {"classname": SUITE, "name": _clean(name), "time": "0"})
    ET.SubElement(case, "system-out").text = _lines(said)
    return case


def _lines(said: Mapping[str, str]) -> str:
    return _clean("\n".join(f"{name}: {text}" for name, text in said.items()))


def _clean(text: str) -> str:
    """Leave out characters that XML has no way to write, which names of folders may have."""
    return "".join(c for c in text if c in "\t\n" or 0x20 <= ord(c) < 0xD800 or 0xDFFF < ord(c) < 0xFFFE)
