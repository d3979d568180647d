"""The table of metrics: names, scores and functions."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gtool.metrics.registry import METRIC_OF, METRICS, SCORES, metrics_of


def test_no_name_means_two_things():
    assert [metric.name for metric in METRICS.values()] == list(METRICS)
    assert len(SCORES) == sum(len(metric.scores) for metric in METRICS.values())
    assert METRIC_OF["recall"] is METRICS["pr"]


def test_names_of_scores_lead_to_their_metrics():
    assert metrics_of(["recall", "swd_64", "rfd.ratio", "precision", "attention.margin"]) == (
        "pr",
        "swd",
        "rfd",
    )


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_help_is_one_short_line(metric):
    assert len(metric.help) < 80
    assert not metric.help.endswith(".")


def test_a_file_of_statistics_is_enough_for_what_needs_no_rows_of_the_reference():
    assert [name for name, metric in METRICS.items() if metric.takes_statistics] == [
        "fid",
        "is",
        "fid_infinity",
    ]


def test_the_table_is_read_without_anything_heavy():
    code = "import sys, gtool.metrics.registry; print({'torch', 'numpy', 'scipy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_every_function_is_there(metric):
    assert callable(metric.load())
