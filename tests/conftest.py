"""Shared fixtures: everything is made by the tests themselves, in temporary folders, offline."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Before any library reads them: tests never reach for the network, and two workers share two cores.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has its own working folder and cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GTOOL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GTOOL_DATA", raising=False)
