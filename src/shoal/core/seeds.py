"""Seeds derived from what a thing is, never from an identifier that enrolment made."""

import hashlib

import numpy as np
import numpy.typing as npt

SEED_BITS = 53
"""Bits of a seed: JSON readers that know only float64, JavaScript's for one, read larger integers as other ones."""


def derive(*parts: int | str) -> int:
    """Hash `parts` to a seed in [0, 2**53): the same parts give the same seed on every machine.

    An assignment's seed is `derive(task seed, round, device name)`; a retried lease keeps it.
    """
    text = "\x1f".join([f"{type(part).__name__}:{part}" for part in parts])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> (64 - SEED_BITS)


def permutation(seed: int, rows: int) -> npt.NDArray[np.int64]:
    """Return the order in which `rows` examples are visited, from numpy's Philox generator."""
    return np.random.Generator(np.random.Philox(seed)).permutation(rows)
