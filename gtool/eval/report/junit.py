"""Gates as a JUnit file, the form in which pipelines show results of tests.

The elements, attributes and their order follow the schema of the Jenkins JUnit plug-in, which GitLab and others read.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from gtool.eval.report.table import gate_name, limit, look_rows, looks_of, missed, number

SUITE = "gtool.eval"


def junit(record: Mapping[str, Any], moment: datetime | None = None) -> bytes:
    """Return one test case a gate, or a metric where there are no gates; a warning passes and says so."""
    gates, scores = record.get("gates") or [], _scores(record)
    failed = sum(not gate["passed"] and gate["level"] == "error" for gate in gates)
    counts = {
        "tests": str(len(gates) or len(scores)),
        "failures": str(failed),
        "errors": "0",
        "skipped": "0",
    }
    seconds = f"{record.get('seconds', 0):.3f}"
    root = ET.Element("testsuites", {"name": SUITE, **counts, "time": seconds})
    stamp = (moment or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%S")
    suite = ET.SubElement(
        root,
        "testsuite",
        {"name": SUITE, **counts, "time": seconds, "timestamp": stamp, "hostname": "localhost"},
    )
    _properties(suite, _facts(record))
    if gates:
        for gate in gates:
            _gate_case(suite, record, gate)
    else:
        for name, (protocol, value) in scores.items():
            case = ET.SubElement(suite, "testcase", {"classname": SUITE, "name": name, "time": "0"})
            _properties(case, {"protocol": protocol, "value": value})
    ET.indent(root)
    return ET.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def _scores(record: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return protocol and value of every metric, and of every plain number of looks, by name."""
    found = {name: (one["protocol"], number(one["value"])) for name, one in record.get("metrics", {}).items()}
    for name, look in looks_of(record).items():
        protocol = str(look.get("protocol", ""))
        found |= {f"{name}.{key}": (protocol, value) for key, value in look_rows(look)[1:]}
    return found


def _gate_case(suite: ET.Element, record: Mapping[str, Any], gate: Mapping[str, Any]) -> None:
    case = ET.SubElement(
        suite, "testcase", {"classname": SUITE, "name": _clean(gate_name(gate)), "time": "0"}
    )
    head = gate["metric"].split(".")[0]
    entry = record.get("metrics", {}).get(head) or record.get(head) or {}
    told = {"protocol": entry.get("protocol", ""), "value": number(gate["value"]), "limit": limit(gate)}
    if gate.get("delta") is not None:
        told["delta"] = number(gate["delta"])
    _properties(case, told)
    if gate["passed"]:
        return
    if gate["level"] == "warn":
        ET.SubElement(case, "system-out").text = f"warning: {_clean(missed(gate))}"
        return
    lines = [f"{name}: {text}" for name, text in told.items()]
    failure = ET.SubElement(case, "failure", {"message": _clean(missed(gate)), "type": "gate"})
    failure.text = _clean("\n".join(lines))


def _facts(record: Mapping[str, Any]) -> dict[str, str]:
    names = ("target", "seed", "device", "gtool", "weights_sha256")
    told = {name: str(record[name]) for name in names if record.get(name) is not None}
    if record.get("reference"):
        told["reference"] = f"{record['reference']['name']} {record['reference']['fingerprint']}"
    if git := record.get("git"):
        told |= {"git.commit": git["commit"], "git.dirty": str(git["dirty"]).lower()}
    told |= {f"version.{name}": text for name, text in record.get("versions", {}).items()}
    return told | {f"protocol.{name}": found["protocol"] for name, found in record.get("metrics", {}).items()}


def _properties(parent: ET.Element, told: Mapping[str, str]) -> None:
    listed = ET.SubElement(parent, "properties")
    for name, text in told.items():
        ET.SubElement(listed, "property", {"name": name, "value": _clean(text)})


def _clean(text: str) -> str:
    """Leave out characters that XML has no way to write, which names of folders may have."""
    return "".join(c for c in text if c in "\t\n" or 0x20 <= ord(c) < 0xD800 or 0xDFFF < ord(c) < 0xFFFE)
