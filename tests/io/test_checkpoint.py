"""Files that come from strangers, and files that a crash cuts short."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
import time
from pathlib import Path

import pytest
import torch

from gtool.errors import CheckpointError
from gtool.io.files import HOST, atomic_write
from gtool.io.locks import one_at_a_time
from gtool.io.run_folder import RunFolder, create_run, find_weights
from gtool.io.safe_pickle import load_pickled
from gtool.io.weights import load_state, load_weights, read_safetensors, restore, save_state, save_weights

META = {"model": "transgan", "config": {}}


def _weights(path: Path, value: float = 1.0) -> Path:
    save_weights(path, {"a": torch.full((3,), value)}, META)
    return path


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_weights_come_back_with_their_description(tmp_path):
    loaded = load_weights(_weights(tmp_path / "w.safetensors"))
    assert loaded.tensors["a"].tolist() == [1.0, 1.0, 1.0]
    assert loaded.meta == META | {"format": 1}


def test_tensors_are_aligned_whatever_the_file_looks_like(tmp_path):
    """MKL's products depend on alignment: a loaded network must repeat the bits of the saved one."""
    layer = torch.nn.Linear(67, 33)
    for padding in range(8, 72, 8):  # moves the tensors in the file
        path = tmp_path / f"{padding}.safetensors"
        save_weights(path, layer.state_dict(), META | {"padding": "x" * padding})
        loaded = load_weights(path).tensors
        assert all(tensor.data_ptr() % 64 == 0 for tensor in loaded.values())
        twin = torch.nn.Linear(67, 33)
        twin.load_state_dict(loaded, assign=True)
        inputs = torch.linspace(-1, 1, 670).reshape(10, 67)
        assert torch.equal(layer(inputs), twin(inputs))


@pytest.mark.parametrize("keep", [0, 5, 40, -1])
def test_truncated_weights_are_refused(tmp_path, keep):
    path = _weights(tmp_path / "w.safetensors")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"w\.safetensors: not a readable safetensors file"):
        load_weights(path)


@pytest.mark.parametrize("length", [2**63, 10**9, 3])
def test_a_forged_header_length_is_refused(tmp_path, length):
    path = _weights(tmp_path / "w.safetensors")
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    with pytest.raises(CheckpointError, match="not a readable safetensors"):
        load_weights(path)


def test_a_forged_offset_is_refused(tmp_path):
    header = json.dumps({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 4000]}}).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 12)
    with pytest.raises(CheckpointError, match="not a readable safetensors"):
        load_weights(path)


def header(*shapes: list[int], offsets: tuple[int, int] = (0, 16)) -> bytes:
    """A safetensors header of tensors that all lie at the same place."""
    about = {f"t{i}": {"dtype": "I32", "shape": one, "data_offsets": offsets} for i, one in enumerate(shapes)}
    text = json.dumps(about).encode()
    return len(text).to_bytes(8, "little") + text


FORGED = {  # those of the library's own tests, and of its collection of attacks
    "a file of two kinds": header([2, 2]) + bytes(16) + b"PK behind the tensors",
    "tensors in each other": header([2, 2], [2, 2]) + bytes(16),
    "more numbers than 64 bits count": header([2, 2**64 - 2]) + bytes(16),
    "more bytes than 64 bits count": header([2, 2**63 - 1]) + bytes(16),
    "a shape of other bytes": header([2, 2], offsets=(0, 4)) + bytes(4),
    "no text": b"\x01" + bytes(7) + b"\xff",
    "no JSON": b"\x01" + bytes(7) + b"{",
    "nothing behind the length": b"<" + bytes(7),
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_safetensors_are_one_line(name, tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(FORGED[name])
    with pytest.raises(CheckpointError) as raised:
        read_safetensors(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    with pytest.raises(CheckpointError, match="`a` holds values that are not finite"):
        load_weights(_weights(tmp_path / "w.safetensors", value))


def test_foreign_safetensors_are_named_as_such(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="no gtool description"):
        load_weights(tmp_path / "w.safetensors")


def test_a_newer_format_is_named_as_such(tmp_path):
    save_weights(tmp_path / "w.safetensors", {"a": torch.zeros(1)}, META | {"format": 99})
    with pytest.raises(CheckpointError, match="format 99"):
        load_weights(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("tensors", "fragment"),
    [
        ({"weight": torch.zeros(2, 3)}, "1 tensors missing"),
        ({"weight": torch.zeros(3, 2), "bias": torch.zeros(2)}, r"\(3, 2\)"),
        ({"weight": torch.zeros(2, 3).int(), "bias": torch.zeros(2)}, "int32"),
        ({"weight": torch.zeros(2, 3), "bias": torch.zeros(2), "more": torch.zeros(1)}, "1 unknown"),
    ],
)
def test_restore_refuses_what_does_not_fit(tensors, fragment):
    with pytest.raises(CheckpointError, match=fragment):
        restore(torch.nn.Linear(3, 2), tensors, "here")


@pytest.mark.parametrize("name", ["bomb.pt", "bomb.safetensors"])
def test_a_pickle_that_would_run_code_does_not_run_it(tmp_path, name):
    path, victim = tmp_path / name, tmp_path / "executed"
    torch.save({"state": Bomb(victim)}, path)
    if name.endswith(".pt"):
        with pytest.raises(CheckpointError, match="refused: the file wants to build"):
            load_pickled(path)
    else:
        with pytest.raises(
            CheckpointError, match=r"bomb\.safetensors: a torch pickle, not a safetensors file"
        ):
            load_weights(path)
    assert not victim.exists()


def test_a_released_looking_pickle_is_read(tmp_path):
    import argparse

    import numpy as np

    content = {"epoch": 3, "gen_state_dict": {"w": torch.ones(2)}, "best_fid": np.float64(9.26)}
    torch.save(content | {"args": argparse.Namespace(lr=1e-4)}, tmp_path / "released.pth")
    assert load_pickled(tmp_path / "released.pth")["gen_state_dict"]["w"].tolist() == [1.0, 1.0]


def test_a_pickle_that_runs_a_command_is_refused_and_runs_nothing(tmp_path):
    import os
    import pickle

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Evil(), protocol=4))  # of which torch warns by itself
    with pytest.raises(CheckpointError, match=r"evil\.pth: refused"):
        load_pickled(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04broken"])
def test_a_damaged_pickle_is_refused(tmp_path, content):
    (tmp_path / "bad.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"bad\.pth"):
        load_pickled(tmp_path / "bad.pth")


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = _weights(tmp_path / "w.safetensors")

    def half(temporary: Path) -> None:
        temporary.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(CheckpointError, match="No space left"), atomic_write(path) as temporary:
        half(temporary)
    assert [entry.name for entry in tmp_path.iterdir()] == ["w.safetensors"]
    assert load_weights(path)


def test_a_state_comes_back_exactly(tmp_path):
    tensors = {"net": {"w": torch.randn(5)}, "optimizer": {"w/step": torch.tensor(3.0)}}
    save_state(tmp_path / "state-000001", tensors, {"nimg": 7})
    loaded, info = load_state(tmp_path / "state-000001")
    assert torch.equal(loaded["net"]["w"], tensors["net"]["w"])
    assert info["nimg"] == 7
    assert loaded["optimizer"]["w/step"].item() == 3.0


def test_a_half_written_state_is_no_state(tmp_path):
    run = RunFolder(tmp_path)
    (tmp_path / "state-000002").mkdir()
    (tmp_path / ".state-000003.1.tmp").mkdir()
    save_state(tmp_path / "state-000001", {}, {"nimg": 1})
    assert [path.name for path in run.states()] == ["state-000001"]
    run.remove_leftovers()
    assert not (tmp_path / ".state-000003.1.tmp").exists()


def test_a_second_trainer_is_refused(tmp_path):
    import subprocess
    import sys

    run = RunFolder(tmp_path)
    imports = "from gtool.io.run_folder import RunFolder; from pathlib import Path"
    code = f"{imports}; RunFolder(Path({str(tmp_path)!r})).lock()"
    with run.lock():
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"process {os.getpid()} on {socket.gethostname()} is training in this run folder" in done.stderr


def test_prune_keeps_the_last_and_the_best(tmp_path):
    run = RunFolder(tmp_path)
    for kimg in (1, 2, 3, 4):
        _weights(run.weights_path(kimg * 1000))
        save_state(run.state_path(kimg * 1000), {}, {})
    run.prune(keep=2, best=1000)
    assert [path.stem for path in run.weights()] == ["weights-000001", "weights-000003", "weights-000004"]
    assert [path.name for path in run.states()] == ["state-000003", "state-000004"]


def test_create_run_numbers_runs_and_never_reuses_a_folder(tmp_path):
    first, second = (create_run(None, "transgan-x") for _ in range(2))
    assert [first.path.name, second.path.name] == ["transgan-x-000", "transgan-x-001"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "recipe.toml").touch()
    with pytest.raises(CheckpointError, match="--resume"):
        create_run(tmp_path / "mine", "x")


def test_find_weights_takes_the_newest_run_a_folder_or_a_file(tmp_path):
    run = create_run(None, "transgan-x")
    run.recipe.touch()
    path = _weights(run.weights_path(1000))
    assert find_weights(None) == find_weights(str(run.path)) == path
    assert find_weights(run.path.name) == find_weights(str(path)) == path


@pytest.mark.parametrize("spec", [None, "nothing", "./nothing", "nothing.safetensors"])
def test_find_weights_says_what_is_missing(spec):
    with pytest.raises(CheckpointError, match=r"no trained run|no such"):
        find_weights(spec)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_what_is_written_has_the_mode_that_the_umask_gives(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        _weights(tmp_path / "w.safetensors")
        save_state(tmp_path / "state", {"net": {"w": torch.zeros(5)}}, {"nimg": 7})
        with atomic_write(tmp_path / "text") as temporary:
            temporary.write_text("text")
    finally:
        os.umask(before)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) == 4
    assert {path.stat().st_mode & 0o777 for path in written} == {mode}


def test_a_process_that_waits_says_for_whom(tmp_path, capsys):
    taken = threading.Event()

    def hold():
        with one_at_a_time(tmp_path / "entry.lock"):
            taken.set()
            time.sleep(0.2)

    holder = threading.Thread(target=hold)
    holder.start()
    taken.wait()
    with one_at_a_time(tmp_path / "entry.lock"):
        holder.join()
    said = f"waiting: process {os.getpid()} on {socket.gethostname()} makes {tmp_path / 'entry'}\n"
    assert capsys.readouterr().err == said


def test_what_a_killed_process_has_left_is_removed_by_the_next_and_that_of_a_living_one_stays(tmp_path):
    """Outputs that are no run folders: an export, a picture."""
    stay = [f".a.1-{HOST}.tmp.png", f".a.{2**22 + 1}-elsewhere.tmp.png", ".mine.tmp"]
    for name in (f".a.{2**22 + 1}-{HOST}.tmp.png", *stay):
        (tmp_path / name).touch()
    with atomic_write(tmp_path / "b.png") as temporary:
        temporary.touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*stay, "b.png"])
