"""Uniform numbers from a seed, for dropout: 32-bit integer hashing, so that every language draws the same ones.

`mix` is the finaliser of https://github.com/skeeto/hash-prospector ("lowbias32"). Not for privacy: whoever knows the
seed knows the numbers.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

WORD = 1 << 32
Words = npt.NDArray[np.uint32]


def uniform(seed: int, step: int, index: int, shape: Sequence[int]) -> npt.NDArray[np.float32]:
    """Return numbers in [0, 1), multiples of 2**-24: those of noise input `index` at a step of a training."""
    key = _key(seed, step, index)
    places = np.arange(int(np.prod(shape, dtype=np.int64)), dtype=np.uint32)
    words = mix(mix(places ^ key) + key)
    return ((words >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)).reshape(tuple(shape))


def mix(words: Words) -> Words:
    """Hash 32-bit words, one by one and invertibly."""
    words = words ^ (words >> np.uint32(16))
    words = words * np.uint32(0x7FEB352D)
    words = words ^ (words >> np.uint32(15))
    words = words * np.uint32(0x846CA68B)
    return words ^ (words >> np.uint32(16))


def _key(seed: int, step: int, index: int) -> np.uint32:
    key = np.zeros(1, np.uint32)
    for part in (seed % WORD, seed // WORD % WORD, step % WORD, index):
        key = mix(key ^ np.uint32(part)) + np.uint32(1)
    return np.uint32(key[0])
