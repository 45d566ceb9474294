"""Seeds to words: Philox4x32-10, the random bits under every latent recipe.

It is from Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011). A seed is a whole number below 2**53,
so that every JSON client carries it exactly; it is the key, and the counter numbers the blocks of four words.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

MAX_SEED = 2**53

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (np.uint32(0x9E3779B9), np.uint32(0xBB67AE85))
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_FACTORS = np.array(_MULTIPLIERS, np.uint64)[:, None, None]
# What is added to the key in each of the ten rounds: [10, 2, 1].
_KEYS = (np.arange(10, dtype=np.uint64)[:, None] * np.array(_WEYL, np.uint64))[..., None]


def philox4x32_10(counter: NDArray[np.uint32], key: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Ten rounds of Philox on counters ``[..., 4]`` under keys ``[..., 2]``; shapes broadcast; returns ``[..., 4]``."""
    x0, x1, x2, x3 = (counter[..., i] for i in range(4))
    k0, k1 = key[..., 0], key[..., 1]
    with np.errstate(over="ignore"):
        for _ in range(10):
            product0 = x0.astype(np.uint64) * _MULTIPLIERS[0]
            product1 = x2.astype(np.uint64) * _MULTIPLIERS[1]
            high0, low0 = (product0 >> _SHIFT).astype(np.uint32), (product0 & _LOW).astype(np.uint32)
            high1, low1 = (product1 >> _SHIFT).astype(np.uint32), (product1 & _LOW).astype(np.uint32)
            x0, x1, x2, x3 = high1 ^ x1 ^ k0, low1, high0 ^ x3 ^ k1, low0
            k0, k1 = k0 + _WEYL[0], k1 + _WEYL[1]
    return np.stack(np.broadcast_arrays(x0, x1, x2, x3), axis=-1)


def words(seeds: NDArray[np.uint64], blocks: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """What :func:`philox4x32_10` gives for counters 0 to ``blocks`` under each seed, both halves in one array.

    Small batches cost as many microseconds as there are numpy calls, so there are few of them here.

    Returns:
        Words x0 and x2, and words x1 and x3: uint64 [2, n, blocks] each.
    """
    keys = ((np.stack([seeds & _LOW, seeds >> _SHIFT]) + _KEYS) & _LOW)[..., None]
    even = np.zeros((2, len(seeds), blocks), np.uint64)
    even[0] = np.arange(blocks, dtype=np.uint64)
    odd = np.zeros_like(even)
    for key in keys:
        product = even * _FACTORS
        even = (product >> _SHIFT)[::-1] ^ odd
        even ^= key
        product &= _LOW
        odd = product[::-1]
    return even, odd


def consecutive(seed: int, n: int) -> NDArray[np.uint64]:
    """The ``n`` seeds from ``seed`` on, modulo 2**53: uint64 [n]. Raises ValueError for a seed out of range."""
    if not 0 <= seed < MAX_SEED:
        raise ValueError(f"seed {seed} is out of range: expected 0 <= seed < 2**53")
    seeds = np.arange(seed, seed + n, dtype=np.uint64)
    return seeds if seed + n <= MAX_SEED else seeds & np.uint64(MAX_SEED - 1)


def checked(seeds: ArrayLike) -> NDArray[np.uint64]:
    """Seeds as uint64 of the same shape. Raises ValueError for what is no whole number in 0 <= seed < 2**53."""
    given = np.asarray(seeds)
    if not given.size:
        return np.zeros(given.shape, np.uint64)
    # Numbers past 64 bits make an array of objects, which min and max compare exactly all the same.
    if given.dtype.kind not in "iuO" or not all(isinstance(s, int | np.integer) for s in (given.min(), given.max())):
        raise ValueError(f"seeds of type {given.dtype} were given: expected whole numbers")
    for seed in (int(given.min()), int(given.max())):
        if not 0 <= seed < MAX_SEED:
            raise ValueError(f"seed {seed} is out of range: expected 0 <= seed < 2**53")
    return given.astype(np.uint64)
