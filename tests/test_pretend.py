"""The pretend GPU refuses what a real one refuses, and the library computes on it as on the CPU."""

from __future__ import annotations

import pytest
import torch

import pcgraph
from pcgraph import SGD, Average, Forward, PCNetwork
from pcgraph.testing import conformance
from tests import pretend
from tests.builders import clamps_of, double


@pytest.fixture
def gpu():
    with pretend.device() as device:
        yield device


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda d: torch.ones(2, device=d) + torch.ones(2), "same device"),
        (lambda d: torch.ones(2).add_(torch.ones(2, device=d)), "same device"),
        (lambda d: torch.ones(2).index_add_(0, torch.zeros(2, dtype=torch.int64), torch.ones(2, device=d)), "same dev"),
        (lambda d: torch.randn(2, device=d, generator=torch.Generator()), "'cuda' device type for generator"),
        (lambda d: torch.nn.Linear(2, 2)(torch.ones(1, 2, device=d)), "same device"),
        (lambda d: torch.ones(2, device=d).numpy(), "to numpy"),
    ],
)
def test_two_devices_are_not_mixed(gpu, call, says):
    """A test that passes here and mixes them would fail on a card."""
    with pytest.raises((RuntimeError, TypeError), match=says):
        call(gpu)


def test_what_a_gpu_does_is_done(gpu):
    """Values are right, go there and back, and gradients come."""
    a = torch.tensor([1.0, 2.0, 3.0], device=gpu, requires_grad=True)
    (a * a).sum().backward()
    assert a.grad.device == a.device == gpu
    assert a.grad.cpu().tolist() == [2.0, 4.0, 6.0]
    assert a.detach()[torch.tensor([2, 0])].cpu().device.type == "cpu"
    assert bool((a.detach() * torch.tensor(2.0)).max() == 6)
    module = torch.nn.Linear(2, 2).to(gpu).double()
    assert {(p.device, p.dtype) for p in module.parameters()} == {(gpu, torch.float64)}
    assert torch.equal(module.weight.cpu(), module.weight.to("cpu"))


def test_what_users_extend_is_checked_there(gpu):
    """The shipped checks compute on the device that they are given, kernels of a GPU included."""
    assert conformance.check_backend("torch", device=gpu) == ()
    conformance.check_energy(pcgraph.energies.LearnedPrecision(2.0), 3, device=gpu)
    conformance.check_transform(pcgraph.transforms.Conv2d(1, 2, 2), (1, 3, 3), device=gpu)
    conformance.check_initializer(Average(), device=gpu)
    conformance.check_state_optimizer(SGD(0.1, momentum=0.5), device=gpu)


def test_a_training_there_is_one_on_the_cpu(gpu):
    """Batches come from the host; weights, history and what the initializer remembers are the same."""
    found = []
    for device in (gpu, "cpu"):
        net, init = PCNetwork(pcgraph.graphs.chain([4, 5, 3]), seed=0, device=device, dtype=torch.float64), Average()
        batches = [(double(6, 4, seed=i), torch.arange(6) % 3) for i in range(4)]
        history = pcgraph.fit(
            net, batches, init=init, steps=2, optimizer=torch.optim.Adam(net.parameters(), 0.01), epochs=2,
            state_optimizer=SGD(0.1), validate=batches, progress=False,
        )  # fmt: skip
        states = net.infer(clamps_of(net), init=Forward(), steps=2, optimizer=SGD(0.1)).states
        numbers = [(record.energy, record.accuracy, *record.validation.values()) for record in history]
        found.append((torch.tensor(numbers), *(states[v].cpu() for v in net.graph), *(t.cpu() for t in init.buffers())))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
