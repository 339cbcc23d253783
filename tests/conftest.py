"""What every test process needs.

One torch thread: small tensors gain nothing from more, and processes side by side lose much. Where the environment says
``CI``, Hypothesis draws the same examples every time, so that a run says something about the change and not about luck;
everywhere else it goes on searching. ``--hypothesis-profile=unshrunk`` is for those who want to know no more than that
a test fails.

``pytest -m gpu`` runs the tests that work on tensors once more, with torch's default device on the GPU, and skips them
where there is none. ``--gpu-device`` names another device, which shows on a CPU that the tests can be run so.
"""

import os
import signal

import pytest
import torch
from hypothesis import Phase, settings

torch.set_num_threads(1)
# Kernels are interpreted where there is no GPU; Triton asks once, when they are imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
settings.register_profile("ci", derandomize=True)
settings.register_profile("unshrunk", phases=[Phase.explicit, Phase.generate])
if os.environ.get("CI"):
    settings.load_profile("ci")

#: The modules whose tests make tensors and networks, and read no files.
ON_A_GPU = {
    "tests/backends/test_engine.py",
    "tests/inference/test_capture.py",
    "tests/initializers/test_initializers.py",
    "tests/learning/test_learning.py",
    "tests/network/test_core.py",
    "tests/plan/test_plan.py",
    "tests/test_energies.py",
    "tests/test_pyg_layers.py",
    "tests/testing/test_conformance.py",
    "tests/training/test_fit.py",
    "tests/training/test_rules.py",
    "tests/transforms/test_transforms.py",
}


def pytest_addoption(parser):
    parser.addoption("--gpu-device", default="cuda", help="the device on which -m gpu runs the tests of tensors")


def _wants_gpu(config) -> bool:
    expression = config.option.markexpr
    return "gpu" in expression and "not gpu" not in expression


def _can_use_a_gpu(item) -> bool:
    return item.nodeid.split("::")[0] in ON_A_GPU


def pytest_collection_modifyitems(config, items):
    """With -m gpu, the tests of these modules are GPU tests."""
    if not _wants_gpu(config):
        return
    device = torch.device(config.option.gpu_device)
    missing = device.type == "cuda" and not torch.cuda.is_available()
    for item in items:
        if _can_use_a_gpu(item) and not {"slow", "mutants"} & {m.name for m in item.iter_markers()}:
            item.add_marker(pytest.mark.gpu)
        if missing and item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="there is no CUDA device"))


@pytest.fixture
def ctrl_c():
    """SIGINT as a program in a terminal finds it; a background job, and all that it starts, finds it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    """A GPU test of these modules finds the GPU where others find the CPU: as torch's default."""
    if not (_wants_gpu(item.config) and _can_use_a_gpu(item)):
        yield
        return
    before = torch.get_default_device()
    torch.set_default_device(item.config.option.gpu_device)
    try:
        yield
    finally:
        torch.set_default_device(before)
