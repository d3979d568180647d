"""Gates of `gtool eval`: what may be typed, what is met, and what is never compared."""

from __future__ import annotations

import json

import pytest

from gtool.errors import DataError, RecipeError
from gtool.eval.gates import is_better_higher, parse_gates
from gtool.eval.report.record import read_baseline
from gtool.eval.verdicts import (
    comparable_part,
    find_number,
    judge,
    require_numbers,
)
from gtool.metrics.features.weights import INCEPTION
from gtool.metrics.registry import SCORES, metrics_of


def gates_of(*, maxima=(), minima=(), regressions=()):
    return parse_gates(maxima, minima, regressions)


def record_of(**values):
    metrics = {
        name: {"value": value, "protocol": f"{name}/n64/ref-scenes-train-n64"}
        for name, value in values.items()
    }
    return {"schema": 1, "target": "run", "metrics": metrics}


def baseline_of(tmp_path, record, gates=()):
    path = tmp_path / "main.json"
    path.write_text(json.dumps(record))
    return read(path, gates)


def read(path, gates):
    baseline = read_baseline(path)
    require_numbers(gates, baseline, str(path))
    return baseline


def verdicts(gates, record, baseline=None):
    judge(gates, record, baseline)
    return [gate["passed"] for gate in record["gates"]]


def test_a_gate_is_met_at_its_limit_and_missed_beyond():
    gates = gates_of(maxima=["fid=20"], minima=["recall=0.3"])
    assert verdicts(gates, record_of(fid=20.0, recall=0.3)) == [True, True]
    assert verdicts(gates, record_of(fid=20.001, recall=0.299)) == [False, False]


def test_what_is_not_a_number_or_not_there_never_passes():
    gates = gates_of(maxima=["fid=20", "kid=0.1"], minima=["fid=1"])
    assert verdicts(gates, record_of(fid=float("nan"))) == [False, False, False]


def test_endless_psnr_of_equal_images_passes():
    assert verdicts(gates_of(minima=["psnr=30"]), record_of(psnr=float("inf"))) == [True]


@pytest.mark.parametrize(
    ("typed", "before", "met", "missed"),
    [
        ("fid=5%", 20.0, 21.0, 21.01),
        ("fid=0.3", 20.0, 20.3, 20.31),
        ("recall=10%", 0.5, 0.45, 0.449),
        ("recall=0.1", 0.5, 0.4, 0.39),
        ("kid=50%", -0.01, -0.005, -0.0049),  # of a negative value, worse is still upwards
    ],
)
def test_a_regression_is_measured_in_the_direction_of_its_metric(tmp_path, typed, before, met, missed):
    gates, name = gates_of(regressions=[typed]), typed.partition("=")[0]
    baseline = baseline_of(tmp_path, record_of(**{name: before}), gates)
    assert verdicts(gates, record_of(**{name: met}), baseline) == [True]
    assert verdicts(gates, record_of(**{name: missed}), baseline) == [False]


def test_every_metric_has_a_direction_that_people_expect():
    higher = {name for name in SCORES if is_better_higher(name)}
    assert higher == {"is", "precision", "recall", "density", "coverage", "psnr", "ssim"}
    assert is_better_higher("reconstruction.psnr")
    assert not is_better_higher("reconstruction.l1")
    assert not is_better_higher("rfd.ratio")


def test_a_gate_asks_for_its_metric_once():
    gates = gates_of(maxima=["fid=20", "swd_16=9", "rfd.ratio=2"], minima=["recall=0.3", "precision=0.4"])
    assert metrics_of(gate.metric for gate in gates) == ("fid", "swd", "rfd", "pr")


def test_numbers_are_found_beside_values_and_in_looks():
    record = record_of(rfd=3.0) | {"reconstruction": {"psnr": 24.5, "protocol": "p"}}
    record["metrics"]["rfd"]["ratio"] = 1.5
    assert [find_number(record, name) for name in ("rfd", "rfd.ratio", "reconstruction.psnr")] == [
        3.0,
        1.5,
        24.5,
    ]
    assert find_number(record, "reconstruction.protocol") is None


def test_other_protocols_are_named_both_and_nothing_is_compared(tmp_path):
    gates, now = gates_of(regressions=["rfd=5%"]), record_of(rfd=1.0)
    before = record_of(rfd=50.0)
    before["metrics"]["rfd"]["protocol"] = "rfd-v1/n9999/ref-cifar10"
    (reason,) = judge(gates, now, baseline_of(tmp_path, before, gates))
    assert "rfd/n64/ref-scenes-train-n64" in reason
    assert "rfd-v1/n9999/ref-cifar10" in reason
    assert now["gates"][0]["passed"] is False
    assert "delta" not in now["metrics"]["rfd"]


def test_the_same_protocol_with_other_weights_of_the_metric_is_not_compared(tmp_path):
    gates, now, before = gates_of(regressions=["fid=5%"]), record_of(fid=1.0), record_of(fid=1.0)
    now["metrics"]["fid"]["weights"], before["metrics"]["fid"]["weights"] = "a" * 64, "b" * 64
    (reason,) = judge(gates, now, baseline_of(tmp_path, before, gates))
    assert "aaaaaaaaaaaa" in reason


def test_two_published_files_of_one_network_are_compared(tmp_path):
    """clean-fid and pytorch-fid keep the same weights in files of different bytes."""
    now, before = record_of(fid=1.0), record_of(fid=1.0)
    digests = sorted(set(INCEPTION.files.values()))
    now["metrics"]["fid"]["weights"], before["metrics"]["fid"]["weights"] = digests
    assert compared(tmp_path, now, before) == ""


def compared(tmp_path, now, before):
    """Return why a regression gate on fid cannot be judged, or whether it is met."""
    gates = gates_of(regressions=["fid=5%"])
    reasons = judge(gates, now, baseline_of(tmp_path, before, gates))
    assert now["gates"][0]["passed"] is not bool(reasons)
    assert ("delta" in now["metrics"]["fid"]) is not bool(reasons)
    return "; ".join(reasons)


def against(content, **more):
    record = record_of(fid=1.0) | {"reference": {"name": "photos", "fingerprint": content}} | more
    record["metrics"]["fid"]["reference"] = content
    return record


def test_the_same_protocol_against_other_images_is_not_compared(tmp_path):
    reason = compared(tmp_path, against("a" * 24), against("b" * 24))
    assert "a" * 12 in reason
    assert "b" * 12 in reason
    assert compared(tmp_path, against("a" * 24, seed=1), against("b" * 24, seed=2))
    early = against("b" * 24)
    del early["metrics"]["fid"]["reference"]  # where the record alone says what was compared with
    assert compared(tmp_path, against("a" * 24), early)


def test_other_seeds_and_records_that_say_less_are_compared(tmp_path):
    assert not compared(tmp_path, against("a" * 24, seed=1), against("a" * 24, seed=2))
    assert not compared(tmp_path, against("a" * 24), record_of(fid=1.0))
    assert not compared(tmp_path, against("a" * 24), record_of(fid=1.0) | {"reference": None})
    # The seed chooses which images of a larger set take part.
    part = {"images": {"real": {"chosen_from": 50_000}}}
    assert not compared(tmp_path, against("a" * 24, seed=1, **part), against("b" * 24, seed=2, **part))
    assert compared(tmp_path, against("a" * 24, seed=1, **part), against("b" * 24, seed=1, **part))
    other = {"images": {"real": {"chosen_from": 10_000}}}
    assert compared(tmp_path, against("a" * 24, seed=1, **part), against("b" * 24, seed=2, **other))


def test_a_history_shows_what_can_be_compared(tmp_path):
    now, apart = against("a" * 24), against("b" * 24)
    apart["metrics"]["kid"] = {"value": 1.0, "protocol": "kid"}
    assert comparable_part(now, now)["metrics"] == now["metrics"]
    assert comparable_part(now, apart)["metrics"] == {}


def test_a_baseline_without_gates_shows_what_has_changed(tmp_path):
    now = record_of(rfd=1.0, kid=0.2)
    assert judge((), now, baseline_of(tmp_path, record_of(rfd=4.0))) == []
    assert (now["metrics"]["rfd"]["baseline"], now["metrics"]["rfd"]["delta"]) == (4.0, -3.0)
    assert "baseline" not in now["metrics"]["kid"]


def test_a_number_that_nobody_measured_is_said_with_the_nearest_name():
    record = record_of(rfd=1.0) | {"map_agreement": {"samples": {"mean_iou": 0.4}}}
    with pytest.raises(DataError, match=r"map_agreement\.samples\.mean_iou"):
        require_numbers(gates_of(minima=["map_agreement.samples.mean_io=0.3"]), record)


REFUSED = {
    "unknown metric": ({"maxima": ["recal=1"]}, "did you mean `recall`"),
    "unknown number of a metric": ({"maxima": ["rfd.rato=1"]}, "did you mean `ratio`"),
    "number of another metric": (
        {"maxima": ["fid.floor=1"]},
        "fid has no number floor; known: high, low, value",
    ),
    "capitals": ({"maxima": ["FID=1"]}, "did you mean `fid`"),
    "unknown number of a look": ({"minima": ["reconstruction.pnsr=1"]}, "did you mean `psnr`"),
    "a look without a number": ({"minima": ["attention=1"]}, "name one"),
    "swd without a level": ({"maxima": ["swd=9"]}, "swd_16"),
    "no limit": ({"maxima": ["fid"]}, "METRIC=NUMBER"),
    "no number": ({"maxima": ["fid=twenty"]}, "`twenty` is no number"),
    "not a finite number": ({"maxima": ["fid=nan"]}, "`nan` is no number"),
    "percent of nothing": ({"maxima": ["fid=5%"]}, "--max-regress"),
    "unknown level": ({"maxima": ["fid=5:wran"]}, "did you mean `warn`"),
    "below what can be": ({"maxima": ["fid=-1"]}, "never below 0"),
    "above what can be": ({"minima": ["recall=30"]}, "never above 1"),
    "negative regression": ({"regressions": ["fid=-5%"]}, "not negative"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_no_sense_is_refused_with_what_was_typed(name):
    typed, part = REFUSED[name]
    with pytest.raises(RecipeError, match=r"^--m") as refused:
        gates_of(**typed)
    assert part in str(refused.value)
    assert "\n" not in str(refused.value)


BAD_BASELINES = {
    "missing": (None, "No such file"),
    "not JSON": ("{", "no JSON"),
    "a list": ("[1]", "no record"),
    "strange metrics": ('{"schema": 1, "metrics": [1]}', "no record"),
    "of another schema": ('{"schema": 99, "metrics": {}}', "schema 99"),
    "without the metric": ('{"schema": 1, "metrics": {"kid": {"value": 1.0}}}', "no fid"),
    "infinite": ('{"schema": 1, "metrics": {"fid": {"value": 1e999}}}', "no fid"),
    "NaN": ('{"schema": 1, "metrics": {"fid": {"value": NaN}}}', "no fid"),
    "with a word for a number": ('{"schema": 1, "metrics": {"fid": {"value": "low"}}}', "no fid"),
    "deep": ("[" * 100_000, "no JSON"),
}


@pytest.mark.parametrize("name", BAD_BASELINES)
def test_a_baseline_that_cannot_be_compared_with_is_one_line(name, tmp_path):
    text, part = BAD_BASELINES[name]
    path = tmp_path / "main.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError) as refused:
        read(path, gates_of(regressions=["fid=5%"]))
    assert part in str(refused.value)
    assert "main.json" in str(refused.value)


def test_the_last_line_of_a_history_is_the_baseline(tmp_path):
    path = tmp_path / "eval.jsonl"
    path.write_text("".join(json.dumps(record_of(rfd=value)) + "\n" for value in (9.0, 4.0)))
    assert find_number(read_baseline(path), "rfd") == 4.0
