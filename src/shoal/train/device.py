"""Where training runs: the processor, or an accelerator that torch sees."""

import torch

from shoal.core.errors import ConfigurationError


def torch_device(name: str) -> torch.device:
    """Return a device by torch's name for it ("cpu", "cuda", "cuda:1", "mps"), after putting a number on it.

    Raises ConfigurationError, saying what torch sees, when it cannot be used here.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigurationError(
            f"device {name!r} cannot be used ({reason})",
            f"torch {torch.__version__} sees {', '.join(seen())} here; use one of these or another build of torch",
        ) from error
    return device


def seen() -> list[str]:
    """Return the names of the devices that torch can use here, the processor first."""
    cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return ["cpu", *cuda, *(["mps"] if torch.backends.mps.is_available() else [])]
