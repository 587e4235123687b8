"""Remote tensors: work on data that lives at a worker, with ordinary PyTorch."""
