"""Seeds derived from what a thing is, never from an identifier that enrolment made."""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

SEED_BITS = 53
"""Bits of a seed: JSON readers that know only float64, JavaScript's for one, read larger integers as other ones."""

SEPARATOR = "\x1f"

Words = npt.NDArray[np.uint32]


def derive(*parts: int | str) -> int:
    """Hash `parts` to a seed in [0, 2**53): the same parts give the same seed on every machine.

    An assignment's seed is `derive(task seed, round, device name)`; a retried lease keeps it.
    """
    return _hashed(SEPARATOR.join([f"{type(part).__name__}:{part}" for part in parts]))


def deriving(*parts: int | str) -> Callable[[str], int]:
    """Return `derive(*parts, name)` as a function of the name."""
    start = SEPARATOR.join([f"{type(part).__name__}:{part}" for part in parts]) + SEPARATOR + "str:"
    return lambda name: _hashed(start + name)


def _hashed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> (64 - SEED_BITS)


def permutation(seed: int, rows: int) -> npt.NDArray[np.int64]:
    """Return the order in which `rows` examples are visited, from numpy's Philox generator."""
    return np.random.Generator(np.random.Philox(seed)).permutation(rows)


def permutations(seeds: Sequence[int], rows: Sequence[int]) -> list[npt.NDArray[np.int64]]:
    """Return `permutation` of each seed and number of rows, without making a generator for each."""
    philox = np.random.Philox(0)
    generator = np.random.Generator(philox)
    start = philox.state  # its counter is zero, and its buffer empty
    orders = []
    for key, count in zip(_philox_keys(np.array(seeds, np.uint64)), rows, strict=True):
        start["state"]["key"] = key
        philox.state = start
        orders.append(generator.permutation(count))
    return orders


def _philox_keys(seeds: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return the keys [n, 2] of Philox(seed): numpy's SeedSequence for many seeds at once.

    O'Neill 2015, "Developing a seed_seq Alternative"; numpy promises to keep its numbers.
    """
    entropy = [seeds.astype(np.uint32), (seeds >> np.uint64(32)).astype(np.uint32)]
    nothing = np.zeros(len(seeds), np.uint32)
    pool, constant = [], 0x43B0D7E5
    for word in [*entropy, nothing, nothing]:
        mixed, constant = _hash_mix(word, constant, 0x931E8875)
        pool.append(mixed)
    for source in range(4):
        for into in range(4):
            if source != into:
                mixed, constant = _hash_mix(pool[source], constant, 0x931E8875)
                pool[into] = _mix(pool[into], mixed)
    words, constant = [], 0x8B51F9DD
    for word in pool:
        mixed, constant = _hash_mix(word, constant, 0x58F38DED)
        words.append(mixed.astype(np.uint64))
    return np.stack([words[0] | words[1] << np.uint64(32), words[2] | words[3] << np.uint64(32)], axis=1)


def _hash_mix(word: Words, constant: int, factor: int) -> tuple[Words, int]:
    after = constant * factor & 0xFFFFFFFF
    mixed = (word ^ np.uint32(constant)) * np.uint32(after)
    return mixed ^ mixed >> np.uint32(16), after


def _mix(left: Words, right: Words) -> Words:
    mixed: Words = left * np.uint32(0xCA01F9DD) - right * np.uint32(0x4973F715)
    return mixed ^ mixed >> np.uint32(16)
