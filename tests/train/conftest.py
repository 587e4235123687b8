"""One thread: models this small lose time to a second one, most of all on a busy machine."""

import torch

torch.set_num_threads(1)
