"""One torch thread a test process: small tensors gain nothing from more, and processes side by side lose much."""

import torch

torch.set_num_threads(1)
