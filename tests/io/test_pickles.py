"""Pickles of strangers: read as data, whatever they would like to do."""

import contextlib
import io
import os
import pickle
import re
import struct
import subprocess
import sys
import zipfile
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from gtool.errors import CheckpointError
from gtool.io import safe_pickle as pickles
from gtool.io.safe_pickle import Name, Record, read_pickle
from tests.helpers import released_pickles
from tests.helpers.odd_files import nested_zip


def dumped(content: Any, protocol: int | None = None) -> Path:
    path = Path("file.pkl")
    path.write_bytes(pickle.dumps(content, protocol))
    return path


# What is read.

PLAIN = {
    "number": -3,
    "long": 2**80,
    "float": 0.25,
    "flags": [True, False, None],
    "text": "wörter",
    "bytes": b"\0\xff",
    "tuples": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
    "sets": ({1, 2}, frozenset({3})),
    "nested": {"a": [{"b": ()}]},
}


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_values_and_containers_are_read_at_every_protocol(protocol):
    plain = {key: value for key, value in PLAIN.items() if protocol > 3 or key != "sets"}
    assert read_pickle(dumped(plain, protocol)) == plain
    assert read_pickle(dumped(OrderedDict(a=1, b=[2]), protocol)) == {"a": 1, "b": [2]}


def test_old_text_pickles_are_read():
    plain = {key: PLAIN[key] for key in ("number", "long", "float", "text", "tuples", "nested")}
    assert read_pickle(dumped(plain, 0)) == plain


DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_are_those_that_were_pickled(dtype, protocol):
    tensor = (torch.randn(3, 4, generator=torch.Generator().manual_seed(0)) * 5).to(dtype)
    saved = {"whole": tensor, "turned": tensor.T, "part": tensor[1:, 2:]}
    saved |= {"empty": tensor[:0], "single": tensor[1, 1]}
    read = read_pickle(dumped(saved, protocol))
    for name, value in saved.items():
        assert read[name].dtype == dtype
        assert torch.equal(read[name], value), name


def test_parameters_are_tensors():
    read = read_pickle(dumped(nn.Parameter(torch.arange(3.0))))
    assert type(read) is torch.Tensor
    assert read.tolist() == [0.0, 1.0, 2.0]


def test_whatever_else_is_a_record_of_what_was_wanted():
    read = read_pickle(dumped({"path": Path("a"), "type": os.getcwd, "scalar": np.float64(2)}))
    assert isinstance(read["path"], Record)
    assert isinstance(read["type"], Name)
    assert read["type"].name == "getcwd"
    assert isinstance(read["scalar"], Record)


def test_files_of_torch_save_are_read_with_modules_in_them():
    layer = nn.Linear(3, 2)
    torch.save({"state_dict": layer.state_dict(), "module": layer, "epoch": 4}, "file.ckpt")
    read = read_pickle(Path("file.ckpt"))
    assert read["epoch"] == 4
    assert torch.equal(read["state_dict"]["weight"], layer.weight)
    assert str(read["module"].what) == "torch.nn.modules.linear.Linear"
    assert torch.equal(read["module"].state["_parameters"]["bias"], layer.bias)


# What executes nowhere.


LOAD = torch.storage._load_from_bytes


class Call:
    """Calls something when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.function, self.arguments, self.state = function, arguments, state

    def __reduce__(self):
        return self.function, self.arguments, self.state


MKDIR = "__import__('os').mkdir('executed')"
HOSTILE = {
    "os.mkdir": Call(os.mkdir, "executed"),
    "os.system": Call(os.system, "mkdir executed"),
    "eval": Call(eval, MKDIR),
    "exec": Call(exec, MKDIR),
    "nested": Call(list, Call(map, Call(getattr, Call(__import__, "os"), "mkdir"), ["executed"])),
    "in a key": {(1, Call(os.mkdir, "executed")): 1},
    "in a state": Call(dict, state={"a": Call(os.mkdir, "executed")}),
    "in a tensor": Call(
        torch._utils._rebuild_tensor_v2, Call(os.mkdir, "executed"), 0, (1,), (1,), False, {}
    ),
    "in a parameter": Call(torch._utils._rebuild_parameter, Call(os.mkdir, "executed"), False, {}),
    "in a storage": Call(torch.storage._load_from_bytes, Call(os.mkdir, "executed")),
}


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("name", HOSTILE)
def test_code_in_a_pickle_is_not_executed(name, protocol):
    path = dumped({"state": HOSTILE[name]}, protocol)
    with contextlib.suppress(CheckpointError):
        assert not isinstance(read_pickle(path)["state"], int)
    assert os.listdir() == ["file.pkl"]
    with contextlib.suppress(Exception):  # what reading it the usual way does, before some of it fails
        pickle.loads(path.read_bytes())
    assert "executed" in os.listdir()


def test_code_in_the_storage_of_a_tensor_is_not_executed():
    inner = (
        pickle.dumps(0x1950A86A20F9469CFC6C) + pickle.dumps(1001) + pickle.dumps(Call(os.mkdir, "executed"))
    )
    with pytest.raises(CheckpointError, match=r"file\.pkl: not a readable pickle"):
        read_pickle(dumped(Call(torch.storage._load_from_bytes, inner)))
    torch.save({"state": Call(os.mkdir, "executed")}, "file.pth")
    assert isinstance(read_pickle(Path("file.pth"))["state"], Record)
    assert sorted(os.listdir()) == ["file.pkl", "file.pth"]


def test_nothing_that_a_pickle_names_is_imported():
    Path("innocent.py").write_text("import os\nos.mkdir('executed')\n")
    for program in (
        b"cinnocent\nthing\n.",
        b"\x80\x04\x8c\x08innocent\x8c\x05thing\x93.",
        b"(iinnocent\nthing\n.",
    ):
        Path("file.pkl").write_bytes(program)
        with contextlib.suppress(CheckpointError):
            read_pickle(Path("file.pkl"))
    assert "innocent" not in sys.modules
    assert sorted(os.listdir()) == ["file.pkl", "innocent.py"]


# What is refused.

GLOBAL = b"ctorch._utils\n_rebuild_tensor_v2\n"
PROGRAMS = {
    "empty": b"",
    "text": b"these are no networks\n",
    "picture": b"\x89PNG\r\n\x1a\n" + bytes(40),
    "no end": b"\x80\x04]",
    "nothing there": b"\x80\x04.",
    "pop of nothing": b"\x80\x040.",
    "no mark": b"\x80\x04e.",
    "below the mark": b"\x80\x04K\x01(\x86.",
    "memory of nothing": b"\x80\x04h\x07.",
    "extension": b"\x80\x04\x82\x01.",
    "buffer": b"\x80\x05\x97.",
    "outside numbers": b"\x80\x04K\x01Q.",
    "outside name": b"Pname\n.",
    "unhashable key": b"\x80\x04}]K\x01s.",
    "half a pair": b"\x80\x04}(K\x01u.",
    "state of a number": b"\x80\x04K\x01}b.",
    "append to a number": b"\x80\x04K\x01K\x02a.",
    "name of numbers": b"\x80\x04K\x01K\x02\x93.",
    "call without arguments": b"cos\nmkdir\nK\x01R.",
    "gigantic bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"a.",
    "gigantic text": b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"a.",
    "gigantic number": b"\x80\x04\x8b" + struct.pack("<i", 2**31 - 1) + b"1.",
    "negative number": b"\x80\x04\x8b" + struct.pack("<i", -5) + b"1.",
    "many digits": b"L" + b"9" * 10_000 + b"L\n.",
    "tensor of nothing": GLOBAL + b")R.",
    "tensor of a number": GLOBAL + b"(K\x01K\x00(K\x01t(K\x01tI00\n}tR.",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_damaged_pickle_is_refused_in_one_line(name):
    Path("file.pkl").write_bytes(PROGRAMS[name])
    with pytest.raises(CheckpointError, match=r"^file\.pkl: [^\n]*not a (readable )?pickle[^\n]*$"):
        read_pickle(Path("file.pkl"))


def test_a_pickle_cut_short_anywhere_is_refused():
    whole = pickle.dumps({"a": torch.arange(5), "b": nn.Linear(2, 2)})
    for length in range(0, len(whole), 37):
        Path("file.pkl").write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="not a readable pickle"):
            read_pickle(Path("file.pkl"))


def test_any_damaged_byte_is_an_error_or_data():
    whole = bytearray(pickle.dumps({"a": torch.arange(3), "b": [1, 2.5, "text"]}))
    random = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[random.integers(len(whole))] = random.integers(256)
        Path("file.pkl").write_bytes(damaged)
        with contextlib.suppress(CheckpointError):
            read_pickle(Path("file.pkl"))
    assert os.listdir() == ["file.pkl"]


def tensor(size: Any, stride: Any, offset: Any = 0, count: int = 6) -> Call:
    storage = torch.arange(float(count)).untyped_storage()
    typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True)
    return Call(torch._utils._rebuild_tensor_v2, typed, offset, size, stride, False, OrderedDict())


FORGED = {
    "too long": tensor((7,), (1,)),
    "too far": tensor((6,), (1,), 1),
    "long strides": tensor((2, 2), (4, 3)),
    "before the beginning": tensor((2,), (1,), -1),
    "backwards": tensor((2,), (-1,), 3),
    "expanded": tensor((10**9,), (0,)),
    "vast": tensor((2**62, 2**62), (0, 0)),
    "no strides": tensor((2, 2), (1,)),
    "text": tensor(("a",), (1,)),
    "flags": tensor((True,), (1,)),
    "no shape": tensor(3, 1),
    "vast and empty": tensor((2**47, 2**47, 0), (0, 0, 0)),
    "many sides": tensor((1,) * 1000, (1,) * 1000),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_tensor_of_more_than_its_numbers_is_refused(name):
    with pytest.raises(CheckpointError, match="not a readable pickle"):
        read_pickle(dumped(FORGED[name]))


def test_a_storage_of_more_than_its_bytes_is_refused():
    written = io.BytesIO()
    torch.save(torch.arange(4.0).untyped_storage(), written, _use_new_zipfile_serialization=False)
    for change in (
        written.getvalue()[:-1],
        written.getvalue().replace(b"\x04\0\0\0\0\0\0\0", b"\xff" * 7 + b"\x7f"),
    ):
        with pytest.raises(CheckpointError, match="not a readable pickle"):
            read_pickle(dumped(Call(torch.storage._load_from_bytes, change)))


def test_many_views_of_one_storage_take_no_memory_of_their_own():
    base = torch.zeros(1000)
    torch.save([base[i:] for i in range(50)], "file.pth")
    read = read_pickle(Path("file.pth"))
    assert len({view.untyped_storage().data_ptr() for view in read}) == 1
    contents = [base.__reduce_ex__(2)[1][0].__reduce__()[1][0]] * 50  # written once
    views = [
        Call(torch._utils._rebuild_tensor_v2, Call(LOAD, content), 0, (9,), (1,), 0, {})
        for content in contents
    ]
    read = read_pickle(dumped(views))
    assert len({view.untyped_storage().data_ptr() for view in read}) == 1


def test_a_pickle_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(pickles, "MOST_STEPS", 1000)
    with pytest.raises(CheckpointError, match="more than 1,000 instructions"):
        read_pickle(dumped(list(range(2000))))


def test_a_file_too_large_for_this_is_refused(monkeypatch):
    monkeypatch.setattr(pickles, "MOST_BYTES", 2**30 - 1)
    with open("file.pkl", "wb") as opened:
        opened.truncate(2**30)
    with pytest.raises(CheckpointError, match="larger than"):
        read_pickle(Path("file.pkl"))


def test_depth_is_no_trouble():
    Path("file.pkl").write_bytes(b"\x80\x04" + b"]" * 20_000 + b"a" * 19_999 + b".")
    assert len(read_pickle(Path("file.pkl"))) == 1


NESTED = b")" + b"\x85" * 1000  # a tuple in a tuple ...
DOUBLED = b")" + b"q\x01h\x01\x86" * 40  # t = (t, t)
KEYS = {
    "deep key": b"\x80\x04})" + b"\x85" * 300_000 + b"K\x01s.",
    "deep key of a dictionary": b"\x80\x04(" + NESTED + b"K\x01d.",
    "deep member": b"\x80\x04\x8f(" + NESTED + b"\x90.",
    "deep frozen member": b"\x80\x04(" + NESTED + b"\x91.",
    "doubled key": b"\x80\x04}" + DOUBLED + b"K\x01s.",
    "doubled member": b"\x80\x04\x8f(" + DOUBLED + b"\x90.",
    "deep key in a key": b"\x80\x04}K\x01" + NESTED + b"\x86K\x01s.",
    "filled tensor": pickle.dumps(torch.zeros(2), 2)[:-1] + b"K\x00K\x01s.",
    "tensor with a state": pickle.dumps(torch.zeros(2), 2)[:-1] + b"}K\x01K\x02sb.",
    "long number": b"\x80\x04}\x8a\xff" + b"\x01" * 255 + b"K\x01s.",
}


def test_keys_that_crash_or_take_for_ever_are_refused():
    """In a process of its own, which a fault of the reader would end or keep."""
    for name, program in KEYS.items():
        Path(f"{name}.pkl").write_bytes(program)
    program = (
        "import sys; from pathlib import Path; from gtool.io.safe_pickle import read_pickle\n"
        "for name in sys.argv[1:]:\n"
        "    try: read_pickle(Path(name))\n"
        "    except Exception as bad: print(f'{type(bad).__name__}: {bad}')\n"
    )
    files = [f"{name}.pkl" for name in KEYS]
    ran = subprocess.run(
        [sys.executable, "-c", program, *files], capture_output=True, text=True, timeout=60, check=True
    )
    shown = ran.stdout.splitlines()
    assert len(shown) == len(files)
    for name, line in zip(files, shown, strict=True):
        assert re.match(
            f"CheckpointError: {name}: not a readable pickle: (tuples of|a number of|damaged)", line
        )


def test_keys_of_scalars_names_and_pairs_of_these_are_read():
    keys = [None, True, 2, 0.5, "a", b"b", (), ("a", 1), (None, b"c")]
    plain = {key: [] for key in keys}
    assert read_pickle(dumped(plain)) == plain
    assert list(read_pickle(dumped({os.getcwd: 1}))) == [Name("posix", "getcwd")]


def test_a_storage_inside_of_a_storage_is_refused():
    content = b"innermost"
    for _ in range(400):
        content = pickle.dumps(Call(LOAD, content))
    with pytest.raises(CheckpointError, match="a storage that calls something"):
        read_pickle(dumped(Call(LOAD, content)))


def test_an_encrypted_or_strange_zip_file_is_refused():
    torch.save({"a": torch.arange(5.0)}, "whole.pth")
    whole = Path("whole.pth").read_bytes()
    start = whole.index(b"PK\x01\x02")  # the directory: of its first entry, `data.pkl`, one field is changed
    # flags: encrypted; the version it takes to read the file; the method: stored in a way that is not known
    for offset, value in ((8, 1), (6, 99), (10, 99)):
        changed = bytearray(whole)
        changed[start + offset] |= value
        Path("file.pth").write_bytes(changed)
        with pytest.raises(CheckpointError, match=r"^file\.pth: not a readable pickle: [^\n]+$"):
            read_pickle(Path("file.pth"))
    changed = bytearray(whole)
    changed[start + 9] |= 8  # names are UTF-8, and the first one is not
    changed[start + 46] = 0xFF
    Path("file.pth").write_bytes(changed)
    with pytest.raises(CheckpointError, match=r"^file\.pth: not a readable pickle: [^\n]+$"):
        read_pickle(Path("file.pth"))


def test_a_missing_file_is_named():
    with pytest.raises(CheckpointError, match=r"none\.pkl: no such file"):
        read_pickle(Path("none.pkl"))


@pytest.mark.parametrize("damage", ["compressed", "no pickle", "cut short", "missing", "other order"])
def test_a_damaged_zip_file_is_refused(damage):
    torch.save({"a": torch.arange(5.0)}, "whole.pth")
    with zipfile.ZipFile("whole.pth") as whole, zipfile.ZipFile("file.pth", "w") as changed:
        for entry in whole.infolist():
            content, kind = whole.read(entry), zipfile.ZIP_STORED
            if entry.filename.endswith("data.pkl"):
                if damage == "no pickle":
                    continue
                kind = zipfile.ZIP_DEFLATED if damage == "compressed" else kind
            if "/data/" in entry.filename:
                if damage == "missing":
                    continue
                content = content[:-4] if damage == "cut short" else content
            if entry.filename.endswith("byteorder") and damage == "other order":
                content = b"big"
            changed.writestr(entry.filename, content, kind)
    said = "a zip file, not a pickle" if damage == "no pickle" else r"not a readable pickle: [^\n]+"
    with pytest.raises(CheckpointError, match=rf"^file\.pth: {said}$"):
        read_pickle(Path("file.pth"))


def test_files_of_the_old_torch_save_are_read_and_refused_when_damaged():
    content = {"a": torch.arange(5.0), "b": torch.arange(4).view(2, 2).T, "args": Namespace(lr=0.1)}
    content["part of a"] = content["a"][2:]
    torch.save(content, "file.pth", _use_new_zipfile_serialization=False)
    read = read_pickle(Path("file.pth"))
    assert all(torch.equal(read[name], content[name]) for name in ("a", "b", "part of a"))
    assert str(read["args"].what) == "argparse.Namespace"
    assert read["a"].untyped_storage().data_ptr() == read["part of a"].untyped_storage().data_ptr()
    whole = Path("file.pth").read_bytes()
    for length in range(0, len(whole), 23):
        Path("file.pth").write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"^file\.pth: [^\n]+$"):
            read_pickle(Path("file.pth"))


def test_entries_of_a_zip_that_lie_in_each_other_hold_no_more_than_the_file():
    """The numbers of each storage are all the storages after it: 80 kB would be 10 MB."""
    names = [f"x/data/{key}" for key in range(200)]
    sizes = {
        entry.filename: entry.file_size
        for entry in zipfile.ZipFile(io.BytesIO(nested_zip(names, bytes(50_000)))).infolist()
    }
    storages = [
        ("storage", torch.ByteStorage, str(key), "cpu", sizes[name]) for key, name in enumerate(names)
    ]
    program = io.BytesIO()
    pickler = pickle.Pickler(program, 2)
    pickler.persistent_id = lambda value: value if isinstance(value, tuple) else None
    pickler.dump(storages)
    Path("file.pth").write_bytes(nested_zip(names, bytes(50_000), {"x/data.pkl": program.getvalue()}))
    assert sum(sizes.values()) > 50 * Path("file.pth").stat().st_size
    with pytest.raises(
        CheckpointError, match=r"^file\.pth: not a readable pickle: a storage that is cut short$"
    ):
        read_pickle(Path("file.pth"))


def test_the_stand_in_of_the_release_executes_when_it_is_unpickled_for_real():
    """A check of the tests: what they write is what the release would run."""
    layer = released_pickles.network({"weight": torch.zeros(2)}, {})
    path = released_pickles.write("file.pkl", layer)
    with released_pickles._importable(), pytest.raises(AssertionError, match="executed"):
        pickle.loads(path.read_bytes())
    assert isinstance(read_pickle(path), Record)
