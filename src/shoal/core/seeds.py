"""Seeds derived from what a thing is, never from an identifier that enrolment made."""

import hashlib

import numpy as np
import numpy.typing as npt


def derive(*parts: int | str) -> int:
    """Hash `parts` to a seed in [0, 2**63): the same parts give the same seed on every machine.

    An assignment's seed is `derive(task seed, round, device name)`; a retried lease keeps it.
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def permutation(seed: int, rows: int) -> npt.NDArray[np.int64]:
    """Return the order in which `rows` examples are visited, from numpy's Philox generator."""
    return np.random.Generator(np.random.Philox(seed)).permutation(rows)
