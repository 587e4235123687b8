import torch

# models this small lose time to a second thread
torch.set_num_threads(1)
