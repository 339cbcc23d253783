"""Starts that are learned: the shipped one, against its formulas, and one of a user's own."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import pcgraph
from pcgraph import (
    SGD,
    Amortized,
    Forward,
    Initializer,
    InvalidInitializer,
    Masked,
    PCNetwork,
    PerNode,
    Zero,
)
from pcgraph.errors import CheckpointError
from pcgraph.testing import conformance
from tests.builders import EXACT, double, same

SIZES = (3, 5, (2, 3))


def decoder(device="cpu"):
    """h0 -> h1 -> x: the data are predicted, and the way back leads from x to h1 and h0."""
    return PCNetwork(pcgraph.graphs.decoder(SIZES, activation="tanh"), seed=1, dtype=torch.float64, device=device)


def images(device="cpu", batch=4):
    return {"x": double(batch, 2, 3, seed=5, device=device)}


def by_hand(init, x):
    near, far = init.map_to("h1"), init.map_to("h0")
    h1 = x.flatten(1) @ near.weight.t() + near.bias
    return h1, h1.tanh() @ far.weight.t() + far.bias


def test_it_starts_where_its_maps_lead(device):
    net = decoder(device)
    init = Amortized(net, "x", seed=3)
    h1, h0 = by_hand(init, images(device)["x"])
    states = net.infer(images(device), init=init, steps=0).states
    torch.testing.assert_close(states["h1"], h1, **EXACT)
    torch.testing.assert_close(states["h0"], h0, **EXACT)
    assert init.source == {"h1": "x", "h0": "h1"}


def test_each_map_learns_from_the_states_at_its_ends(device):
    """Equals autograd on the formula, at the states that inference found; the network learns as it would without."""
    net = decoder(device)
    init = Amortized(net, "x", seed=3)
    result = net.infer(images(device), init=init, steps=4, optimizer=SGD(0.1))
    result.backward()
    own = {name: p.grad.clone() for name, p in net.named_parameters()}
    x, h1, h0 = (result.states[v].detach().clone() for v in ("x", "h1", "h0"))
    near, far = init.map_to("h1"), init.map_to("h0")
    found = [p.grad.clone() for p in init.parameters()]
    a = x.flatten(1) @ near.weight.t() + near.bias - h1
    b = h1.tanh() @ far.weight.t() + far.bias - h0
    wanted = torch.autograd.grad(0.5 * (a.square().sum() + b.square().sum()) / 4, list(init.parameters()))
    for one, two in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, two, **EXACT)
    starts = {v: init.guess(v, {"x": x}).detach() for v in ("h1", "h0")}
    net.zero_grad()
    net.infer(images(device), init=pcgraph.States(starts), steps=4, optimizer=SGD(0.1)).backward()
    for name, p in net.named_parameters():
        torch.testing.assert_close(own[name], p.grad, **EXACT)


def test_a_clamped_node_on_the_way_stands_for_itself(device):
    net = decoder(device)
    init = Amortized(net, "x")
    clamps = {**images(device), "h1": double(4, 5, device=device)}
    far = init.map_to("h0")
    states = net.infer(clamps, init=init, steps=0).states
    torch.testing.assert_close(states["h0"], clamps["h1"].tanh() @ far.weight.t() + far.bias, **EXACT)


def test_labels_that_are_clamped_in_training_teach_the_map_to_them(device):
    """Hybrid predictive coding tells classes so; a map that learned from free nodes alone would begin at chance."""
    net = decoder(device)
    init = Amortized(net, "x", seed=3)
    clamps = {**images(device), "h0": double(4, 3, seed=8, device=device)}
    result = net.infer(clamps, init=init, steps=3, optimizer=SGD(0.1))
    result.backward()
    far, h1 = init.map_to("h0"), result.states["h1"].detach()
    apart = h1.tanh() @ far.weight.t() + far.bias - clamps["h0"]
    wanted = torch.autograd.grad(0.5 * apart.square().sum() / 4, [far.weight, far.bias])
    for parameter, gradient in zip((far.weight, far.bias), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, **EXACT)


def test_it_keeps_what_initializers_promise(device):
    net = decoder(device)
    conformance.check_initializer(Amortized(net, "x"), net, images(device, batch=3), device=device)


def test_as_a_part_and_with_maps_of_ones_own(device):
    """h0 from the images by a user's module, the rest by a sweep; the module that was given is trained."""
    net = decoder(device)
    modules = {"h1": nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.LayerNorm(5))}
    init = Amortized(net, "x", modules=modules)
    assert init.map_to("h1") is modules["h1"]
    whole = Forward(roots=init)
    result = net.infer(images(device), init=whole, steps=2, optimizer=SGD(0.1))
    result.backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in modules["h1"].parameters())
    mixed = PerNode({"h0": init}, default=Zero())
    assert not bool(net.infer(images(device), init=mixed, steps=0).states["h1"].any())


def test_what_no_way_leads_to_starts_at_zero(device):
    graph = pcgraph.graphs.decoder(SIZES)
    graph.add_node("alone", shape=2)
    net = PCNetwork(graph, dtype=torch.float64, device=device)
    init = Amortized(net, "x")
    assert "alone" not in init.nodes
    assert not bool(net.infer(images(device), init=init, steps=0).states["alone"].any())


def test_it_needs_a_whole_clamp_on_what_is_given(device):
    net = decoder(device)
    init = Amortized(net, "x")
    with pytest.raises(InvalidInitializer, match=r"needs a clamp on 'x'.*Amortized\(net, given=\.\.\.\)"):
        net.infer({"h0": double(4, 3, device=device)}, init=init, steps=1, optimizer=SGD(0.1))
    half = Masked(images(device)["x"], torch.rand(4, 2, 3, device=device) > 0.5)
    with pytest.raises(InvalidInitializer, match="a partial one"):
        net.infer({"x": half}, init=init, steps=1, optimizer=SGD(0.1))
    with pytest.raises(pcgraph.ConfigError, match="move it along"):
        net.infer(images(device), init=copy.deepcopy(init).float(), steps=1, optimizer=SGD(0.1))
    assert set(pcgraph.check(net, {"x"}).verdict(init).witness.__dict__)


def test_a_good_guess_saves_steps(device):
    """What it is for: trained, it begins nearer to the end than zero does, on data it has not seen."""
    net = decoder(device)
    init = Amortized(net, "x")
    optimizer = torch.optim.Adam([*net.parameters(), *init.parameters()], lr=0.01)
    code, basis = double(200, 2, seed=1, device=device), double(2, 6, seed=2, device=device)
    data = torch.tanh(code @ basis).view(-1, 2, 3)
    for i in range(150):
        optimizer.zero_grad()
        batch = data[(i * 20) % 160 : (i * 20) % 160 + 20]
        net.infer({"x": batch}, init=init, steps=20, optimizer=SGD(0.1)).backward()
        optimizer.step()
    unseen = {"x": data[160:]}
    begins = {type(i).__name__: net.infer(unseen, init=i, steps=0).energy.mean() for i in (init, Zero())}
    ends = net.infer(unseen, init=Zero(), steps=20, optimizer=SGD(0.1)).energy.mean()
    assert begins["Amortized"] < 0.5 * begins["Zero"]
    assert net.infer(unseen, init=init, steps=3, optimizer=SGD(0.1)).energy.mean() < ends


class ByLoss(Initializer):
    """A user's own, as docs/extending.md has it: it learns one number a neuron by a loss of its own in observe."""

    def __init__(self, net):
        super().__init__()
        self.start = nn.ParameterDict(
            {
                v: nn.Parameter(torch.zeros(net.structure.shape(v), dtype=net.dtype, device=net.device))
                for v in ("h0", "h1")
            }
        )

    def requirement(self, report):
        return report.verdicts["zero"]

    @torch.no_grad()
    def init(self, block, out, context):
        for k, node in enumerate(block.nodes):
            out[k].copy_(self.start[node].expand_as(out[k]))

    def observe(self, result):
        loss = sum((self.start[v] - result.states[v]).square().mean() for v in self.start)
        loss.backward()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_a_loss_in_observe_learns_wherever_backward_is_called(device, mode):
    """It was a bare error of torch's: element 0 of tensors does not require grad."""
    net = decoder(device)
    init = ByLoss(net)
    with mode():
        result = net.infer(images(device), init=init, steps=3, optimizer=SGD(0.1))
        result.backward()
    for v in ("h0", "h1"):
        expected = -2 * result.states[v].mean(0) / init.start[v].numel()
        torch.testing.assert_close(init.start[v].grad, expected, **EXACT)


def test_fit_trains_it_and_goes_on_from_a_checkpoint(tmp_path):
    """Both in one run; and in two, the second from the first's checkpoint, to the last bit."""
    data = [{"x": double(5, 2, 3, seed=i)} for i in range(3)]

    def trained(epochs, resume=None, folder=None, **kind):
        net = decoder()
        init = Amortized(net, "x", **kind)
        optimizer = torch.optim.Adam([*net.parameters(), *init.parameters()], lr=0.01)
        settings = {"checkpoint": folder, "resume": resume}
        pcgraph.fit(
            net, data, clamp=("x",), init=init, steps=3, optimizer=optimizer, state_optimizer=SGD(0.1), epochs=epochs,
            **{k: v for k, v in settings.items() if v is not None},
        )  # fmt: skip
        return init.state_dict()

    whole = trained(2)
    trained(1, folder=tmp_path)
    assert same(trained(2, resume=tmp_path, folder=tmp_path), whole)
    assert not same(whole, Amortized(decoder(), "x").state_dict())
    with pytest.raises(CheckpointError, match="tanh.*relu"):  # its weights would mean something else
        trained(3, resume=tmp_path, folder=tmp_path, activation="relu")
