"""Random numbers that are functions of what they are for.

`derive_seed(seed, "step", 12)` gives the same number in every process and after every resume, so no generator state is
ever stored and nothing depends on the number of processes. Torch's side is in gtool/runtime/torch_random.py.
"""

import hashlib

import numpy as np


def derive_seed(*parts: int | str) -> int:
    """Return a 63-bit seed that is a function of the parts alone, the same for ever and everywhere."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def hashed_uniform(seed: int, indices: np.ndarray, size: int, stream: int | str = 0) -> np.ndarray:
    """Return (N, size) float64 in (0, 1); row i depends on (seed, stream, indices[i]) alone.

    Counter-based (two rounds of the splitmix64 finaliser over index and column), hence the same on every machine and
    for every grouping of the indices.
    """
    rows = np.asarray(indices).astype(np.uint64)[:, None]
    columns = np.arange(size, dtype=np.uint64)[None, :]
    with np.errstate(over="ignore"):
        key = _mix(rows + np.uint64(derive_seed(seed, stream)))
        bits = _mix(key + _mix(columns * np.uint64(0x9E3779B97F4A7C15) + np.uint64(1)))
    return ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014): a bijection of 64-bit words that mixes every bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def permutation(count: int, seed: int) -> np.ndarray:
    """Return a permutation of range(count) that is a function of (count, seed) for ever."""
    # RandomState, because NumPy promises that its stream never changes.
    return np.random.RandomState(seed % 2**32).permutation(count)
