"""Foreign pickles read as data: nothing that they name is imported, called or built.

A pickle is a program, and some of its instructions import and call whatever the file says. The reader below is Python's
own with these replaced: a name stays a `Name`, a call stays a `Record` of what would have been called with what. Only
records that stand for tensors and dictionaries become these, after their sizes have been checked against the bytes that
are there. So networks that were pickled as objects can be read for their tensors.

Read are plain pickles (`pickle.dump` of modules), the zip files of `torch.save` and of TorchScript, and what
`torch.save` wrote before 2020: pickles in a row, and the numbers after them.
"""

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from gtool.errors import CheckpointError
from gtool.reading import reading

MAGIC = 0x1950A86A20F9469CFC6C  # the first of the pickles that `torch.save` wrote in a row
MOST_BYTES = 8 * 2**30
MOST_STEPS = 5_000_000  # a released file takes about 100,000
MOST_PARTS = 16  # of a shape, of the arguments of a call that is understood
# Of tuples: Python hashes them as keys to their end each time, and too deep ones overflow the stack of C.
MOST_DEPTH, MOST_SIZE = 50, 100_000
MOST_BITS = 128  # of a whole number
_DTYPES = {"Float": "float32", "Double": "float64", "Half": "float16", "BFloat16": "bfloat16"}
_DTYPES |= {
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
}
# What released checkpoints hold beside tensors: options, scores, and the shapes and devices of tensors.
INERT = {"argparse.Namespace", "collections.defaultdict", "torch.Size", "torch.device", "numpy.dtype"}
INERT |= {
    f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")
}
STORAGES: dict[str, torch.dtype] = {f"{name}Storage": getattr(torch, kind) for name, kind in _DTYPES.items()}


class RefusedPickleError(Exception):
    """A pickle that is damaged, forged, or beyond this reader; the message says why."""


@dataclass(frozen=True)
class Name:
    """What a pickle wanted to import."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Record:
    """What a pickle wanted to build: nobody did."""

    what: Any  # a Name, as a rule
    arguments: Any
    state: Any = None  # what the object would have been given afterwards
    items: list[Any] = field(default_factory=list)  # of a list
    pairs: dict[Any, Any] = field(default_factory=dict)  # of a dictionary

    def __post_init__(self) -> None:
        self.append, self.extend = self.items.append, self.items.extend

    def __setitem__(self, key: Any, value: Any) -> None:
        self.pairs[key] = value


@dataclass(eq=False)
class Storage:
    """The numbers of one or more tensors."""

    dtype: torch.dtype
    content: bytearray


def read_pickle(path: Path) -> Any:
    """Read a plain pickle, or a zip file of `torch.save`, as data.

    Returns:
        Numbers, text, containers, tensors, and a `Name` or a `Record` for everything else.

    Raises:
        CheckpointError: missing, too large, damaged, forged.
    """
    with reading(path, "pickle", CheckpointError):
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise RefusedPickleError(f"larger than {MOST_BYTES >> 30} GiB")
        if zipfile.is_zipfile(path):
            return _read_zip(path)
        with path.open("rb") as stream:
            first = _Reader(stream).load()
            return _read_old(stream, size) if isinstance(first, int) and first == MAGIC else first


def load_pickled(path: Path) -> dict[Any, Any]:
    """Return the dictionary of a foreign torch file; CheckpointError: it holds no dictionary, or more than data."""
    loaded = read_pickle(path)
    waiting, visited = [loaded], set()
    while waiting:
        value = waiting.pop()
        if id(value) in visited:
            continue
        visited.add(id(value))
        if isinstance(value, Record):
            if str(value.what) not in INERT:
                raise CheckpointError(
                    f"{path}: refused: the file wants to build `{value.what}`; only tensors, numbers and text are read"
                )
            waiting += [value.arguments, value.state, value.items, value.pairs]
        elif isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, (list, tuple, set)):
            waiting += value
    loaded = plain(loaded)
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{path}: holds a {type(loaded).__name__}, not named tensors")
    return loaded


def plain(value: Any) -> Any:
    """Return a dictionary for one of another class (`EasyDict`), and anything else as it is."""
    return value.pairs if isinstance(value, Record) and value.pairs else value


def _read_zip(path: Path) -> Any:
    """Read what `torch.save` writes: `<name>/data.pkl`, and the numbers beside it."""
    with zipfile.ZipFile(path) as opened:
        roots = [name for name in opened.namelist() if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise RefusedPickleError("a zip file that `torch.save` did not write")
        folder = roots[0].removesuffix("data.pkl")
        order = f"{folder}byteorder"
        if order in opened.namelist() and _member(opened, order) != b"little":
            raise RefusedPickleError("numbers of a machine of the other byte order")
        known: dict[str, Storage] = {}
        left = path.stat().st_size  # entries may lie on each other: together they hold no more than the file

        def numbers(dtype: torch.dtype, key: str, count: int) -> Storage:
            nonlocal left
            if key not in known:
                left -= count * dtype.itemsize
                if left < 0 or opened.getinfo(f"{folder}data/{key}").file_size != count * dtype.itemsize:
                    raise RefusedPickleError("a storage that is cut short")
                known[key] = Storage(dtype, bytearray(_member(opened, f"{folder}data/{key}")))
            if len(known[key].content) != count * dtype.itemsize or known[key].dtype != dtype:
                raise RefusedPickleError("a storage that is cut short")
            return known[key]

        return _Reader(io.BytesIO(_member(opened, roots[0])), numbers).load()


def _member(opened: zipfile.ZipFile, name: str) -> bytes:
    entry = opened.getinfo(name)
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
        raise RefusedPickleError("a zip file that is compressed, which `torch.save` does not do")
    return opened.read(name)


def _read_old(stream: IO[bytes], size: int, calls: bool = True) -> Any:
    """Read what follows MAGIC: a version, facts of the machine, the pickle, the keys of its storages, their numbers.

    size: bytes that all numbers together may have.
    """
    _version, about = _Reader(stream, calls=False).load(), _Reader(stream, calls=False).load()
    if about.get("little_endian") is not True:
        raise RefusedPickleError("numbers of a machine of the other byte order")
    known: dict[str, Storage] = {}

    def numbers(dtype: torch.dtype, key: str, count: int) -> Storage:
        nonlocal size
        if key not in known:
            size -= count * dtype.itemsize
            if size < 0:
                raise RefusedPickleError("a storage that is cut short")
            known[key] = Storage(dtype, bytearray(count * dtype.itemsize))
        if len(known[key].content) != count * dtype.itemsize or known[key].dtype != dtype:
            raise RefusedPickleError("a storage of two kinds")
        return known[key]

    loaded = _Reader(stream, numbers, calls).load()
    for key in _Reader(stream, calls=False).load():
        content, dtype = known[key].content, known[key].dtype
        (written,) = struct.unpack("<q", stream.read(8))
        if written * dtype.itemsize != len(content) or stream.readinto(content) != len(content):  # type: ignore[attr-defined]
            raise RefusedPickleError("a storage that is cut short")
        del known[key]
    if known:
        raise RefusedPickleError("a storage without numbers")
    return loaded


class _Reader(pickle._Unpickler):  # the one written in Python, whose instructions can be replaced
    """Python's reader of pickles without importing and calling.

    Args:
        stream: one pickle, or several in a row; each `load` of a new reader leaves the stream behind it.
        numbers: (dtype, key, count) -> the storage that lies outside of the pickle under a key.
        calls: False refuses names and thereby all calls.
    """

    stack: list[Any]
    metastack: list[list[Any]]

    def __init__(
        self,
        stream: IO[bytes],
        numbers: Callable[[torch.dtype, str, int], Storage] | None = None,
        calls: bool = True,
    ) -> None:
        super().__init__(stream, encoding="latin1")
        self.dispatch = _Instructions(self)  # type: ignore[misc,assignment] # of this reader: steps are counted
        self.numbers, self.calls = numbers, calls
        self.measured: dict[int, tuple[tuple[Any, ...], int, int]] = {}  # tuples, their depths and sizes
        # By the argument: what is asked for a thousand times, is made once.
        self.made: dict[int, tuple[Any, Any]] = {}

    def find_class(self, module: str, name: str) -> Name:
        return Name(module, name)

    def persistent_load(self, identity: Any) -> Storage:
        """Return the storage of ("storage", class, key, device, count, ...)."""
        if self.numbers is None:
            raise RefusedPickleError("it refers to numbers outside of it")
        kind, what, key, _, count = identity[:5]
        if any(part is not None for part in identity[5:]):
            raise RefusedPickleError("a view of a storage, as torch wrote before 2017")
        name = what.name if isinstance(what, Name) else ""
        if kind != "storage" or name not in STORAGES or not isinstance(key, str):
            raise RefusedPickleError(f"numbers of an unknown kind `{name[:40]}`")
        if type(count) is not int or not 0 <= count < 2**48:
            raise RefusedPickleError("a storage of a forged size")
        return self.numbers(STORAGES[name], key, count)

    def call(self) -> None:
        """Instead of a call: dictionaries, storages and tensors are made, the rest is a record."""
        arguments, what = self.stack.pop(), self.stack.pop()
        if not self.calls:
            raise RefusedPickleError("a storage that calls something")
        make = _MADE.get(str(what)) if isinstance(what, Name) else None
        if not isinstance(arguments, tuple) or (make and len(arguments) > MOST_PARTS):
            raise RefusedPickleError("damaged (arguments of a call)")
        if make is None:
            self.stack.append(Record(what, arguments))
        elif make in (_storage_in_bytes, _encoded):
            content = arguments[0]
            if id(content) not in self.made:
                self.made[id(content)] = content, make(*arguments)
            self.stack.append(self.made[id(content)][1])
        else:
            self.stack.append(make(*arguments))

    def build(self) -> None:
        """Instead of giving an object its state: a record keeps it, a dictionary does without."""
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Record):
            target.state = state
        elif not isinstance(target, dict):  # an OrderedDict with attributes
            raise RefusedPickleError("damaged (state of a value)")

    def check(self, opcode: int) -> None:
        """Refuse values that are costly to hash as keys, and to fill what is no container (a tensor, say)."""
        value = self.stack[-1] if self.stack else None
        if isinstance(value, int) and value.bit_length() > MOST_BITS:
            raise RefusedPickleError(f"a number of {value.bit_length()} bits")
        if type(value) is tuple and value and id(value) not in self.measured:
            inside = [self.measured[id(part)] for part in value if type(part) is tuple and part]
            depth = 1 + max((depth for _, depth, _ in inside), default=0)
            size = len(value) + sum(size for _, _, size in inside)
            if depth > MOST_DEPTH or size > MOST_SIZE:
                raise RefusedPickleError(f"tuples of {depth} levels and {size:,} values")
            self.measured[id(value)] = value, depth, size
        if opcode in _FILLS:
            place = _FILLS[opcode]
            target = self.metastack[-1][-1] if place is None else self.stack[place]
            if not isinstance(target, (list, dict, set, Record)):
                raise RefusedPickleError(f"damaged ({type(target).__name__} is filled)")


class _Instructions:
    """What the reader does for each opcode; looking one up is a step, before which the stack is checked."""

    def __init__(self, reader: _Reader) -> None:
        self.reader, self.steps = reader, 0

    def __getitem__(self, opcode: int) -> Callable[[Any], None]:
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise RefusedPickleError(f"more than {MOST_STEPS:,} instructions")
        if opcode in _REFUSED or opcode not in pickle._Unpickler.dispatch:
            raise RefusedPickleError(f"instruction {bytes([opcode])!r} is not for data")
        self.reader.check(opcode)
        return _REPLACED.get(opcode) or pickle._Unpickler.dispatch[opcode]


_REPLACED = {pickle.REDUCE[0]: _Reader.call, pickle.NEWOBJ[0]: _Reader.call, pickle.BUILD[0]: _Reader.build}
# Calls of old classes; what takes memory before it reads, or is for huge numbers.
_REFUSED = {code[0] for code in (pickle.INST, pickle.OBJ, pickle.NEWOBJ_EX, pickle.BYTEARRAY8, pickle.LONG4)}
# Opcode -> where on the stack what is filled lies; None: below the mark.
_FILLS: dict[int, int | None] = {code[0]: None for code in (pickle.SETITEMS, pickle.APPENDS, pickle.ADDITEMS)}
_FILLS |= {pickle.SETITEM[0]: -3, pickle.APPEND[0]: -2}

# What is made of calls.


def _dictionary(*arguments: Any) -> Any:
    """An empty dictionary, which instructions fill, or one of pairs, as Python 2 wrote it."""
    if not arguments:
        return {}
    pairs = arguments[0]
    if not isinstance(pairs, list) or not all(
        type(p) in (list, tuple) and len(p) == 2 and isinstance(p[0], str) for p in pairs
    ):
        raise RefusedPickleError("damaged (a dictionary of no pairs)")
    return dict(pairs)


def _tensor(storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_rest: Any) -> Tensor:
    """A view of a storage, of no element outside of it; views share memory, so many of them are not much."""
    if not isinstance(storage, Storage):
        raise RefusedPickleError("a tensor without numbers")
    if not (isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride) <= MOST_PARTS):
        raise RefusedPickleError("a tensor with a forged shape")
    lengths = [offset, *size, *stride]
    if any(type(n) is not int or not 0 <= n < 2**48 for n in lengths) or prod(n or 1 for n in size) >= 2**48:
        raise RefusedPickleError("a tensor with a forged shape")
    if 0 in size:
        return torch.empty(size, dtype=storage.dtype)
    held = len(storage.content) // storage.dtype.itemsize
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if last >= held or prod(size) > held:
        raise RefusedPickleError("a tensor larger than its numbers")
    return torch.frombuffer(storage.content, dtype=storage.dtype).as_strided(size, stride, offset)


def _storage_in_bytes(content: Any) -> Storage:
    """A storage as `torch.save` wrote it before its zip files."""
    stream = io.BytesIO(content)
    storage = (
        _read_old(stream, len(content), calls=False) if _Reader(stream, calls=False).load() == MAGIC else None
    )
    if not isinstance(storage, Storage):
        raise RefusedPickleError("a storage that is no storage")
    return storage


def _encoded(text: str, encoding: str) -> bytes:
    """Bytes in a pickle of protocol 2, which has none."""
    if not isinstance(text, str) or encoding != "latin1":
        raise RefusedPickleError("damaged (bytes)")
    return text.encode("latin1")


_MADE: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _dictionary,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": lambda data, *_rest: data,
    "torch.storage._load_from_bytes": _storage_in_bytes,
    "_codecs.encode": _encoded,
}
