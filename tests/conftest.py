"""What every test process needs.

One torch thread: small tensors gain nothing from more, and processes side by side lose much. Where the environment says
``CI``, Hypothesis draws the same examples every time, so that a run says something about the change and not about luck;
everywhere else it goes on searching.
"""

import os

import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
