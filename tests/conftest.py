"""What every test process needs.

One torch thread: small tensors gain nothing from more, and processes side by side lose much. Where the environment says
``CI``, Hypothesis draws the same examples every time, so that a run says something about the change and not about luck;
everywhere else it goes on searching. ``--hypothesis-profile=unshrunk`` is for those who want to know no more than that
a test fails.

``pytest -m gpu`` runs the tests that take the fixture `device` on a GPU, and skips them where there is none.
``pytest -m gpu --gpu-device pretend`` runs them on a pretend one (tests/pretend.py), which finds what lies on
two devices.
"""

import os
import re
import signal
from contextlib import nullcontext

import pytest
import torch
from hypothesis import Phase, settings

from tests import pretend

torch.set_num_threads(1)
# Kernels are interpreted where there is no GPU; Triton asks once, when they are imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
settings.register_profile("ci", derandomize=True)
settings.register_profile("unshrunk", phases=[Phase.explicit, Phase.generate])
if os.environ.get("CI"):
    settings.load_profile("ci")


#: A test that takes a device, or needs a GPU.
ON_A_GPU = re.compile(r"def test_\w+\([^)]*\bdevice\b|mark\.gpu")
#: Examples that Hypothesis draws for a test on a GPU, at most.
EXAMPLES = 12


def pytest_addoption(parser):
    parser.addoption(
        "--gpu-device", default="cuda:0", help="where -m gpu runs the tests that take a device, or pretend"
    )


def _gpu(config) -> str | None:
    """Where the tests of a GPU run, if they were asked for."""
    expression = config.option.markexpr
    return config.option.gpu_device if "gpu" in expression and "not gpu" not in expression else None


def pytest_ignore_collect(collection_path, config):
    """With -m gpu, files without a test of a GPU are not read: they may need what a machine with a GPU lacks."""
    files = collection_path.rglob("*.py") if collection_path.is_dir() else [collection_path]
    if _gpu(config) is not None and not any(ON_A_GPU.search(file.read_text(encoding="utf-8")) for file in files):
        return True
    return None


def pytest_collection_modifyitems(config, items):
    """With -m gpu, the tests that take a device are GPU tests; those marked so by hand need a real one."""
    gpu = _gpu(config)
    if gpu is None:
        return
    missing = gpu != "cpu" and not torch.cuda.is_available()
    for item in items:
        by_hand = item.get_closest_marker("gpu")
        if "device" in item.fixturenames and not {"slow", "mutants"} & {m.name for m in item.iter_markers()}:
            item.add_marker(pytest.mark.gpu)
        _shorten(item)
        if missing and item.get_closest_marker("gpu") and (by_hand or gpu != "pretend"):
            item.add_marker(pytest.mark.skip(reason="there is no CUDA device"))


def _shorten(item):
    """Fewer drawn graphs: each takes the oracle hundreds of small operations, which a GPU does no faster than a CPU."""
    used = getattr(getattr(item, "obj", None), "_hypothesis_internal_use_settings", None)
    if used is not None:
        item.obj._hypothesis_internal_use_settings = settings(used, max_examples=min(used.max_examples, EXAMPLES))


@pytest.fixture(scope="session")
def device(request) -> torch.device:
    """Where a test computes: the CPU, or a GPU with -m gpu. Tests pass it on; torch's default device stays the CPU."""
    gpu = _gpu(request.config)
    return torch.device("cpu") if gpu is None else pretend.DEVICE if gpu == "pretend" else torch.device(gpu)


@pytest.fixture
def ctrl_c():
    """SIGINT as a program in a terminal finds it; a background job, and all that it starts, finds it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    """A test on the pretend GPU finds one."""
    with pretend.device() if _gpu(item.config) == "pretend" else nullcontext():
        yield
