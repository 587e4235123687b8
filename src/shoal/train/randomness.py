"""torch's random numbers, seeded for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw torch's random numbers (dropout and the like) from `seed` inside, and go on as before afterwards.

    Seeds the processor's generator only: `torch.manual_seed` would also reseed those of accelerators for good.
    """
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before)
