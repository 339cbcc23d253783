"""One edge and one node: views for optimizers, freezing, settings of their own, drawing anew, carrying over."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import networkx as nx
import pytest
import torch
from torch import Tensor, nn

import pcgraph
from pcgraph import SGD, Forward, PCNetwork
from pcgraph.errors import ConfigError, GraphError
from pcgraph.network import ParameterView
from pcgraph.testing import reference
from tests.builders import assert_equal_to_reference, chain, clamps_of, double, initial_states, reference_step

SIZES = (4, 4, 4, 4, 4)
EDGES = [("x", "h1"), ("h1", "h2"), ("h2", "h3"), ("h3", "y")]

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "plain": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "dampening": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.5),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.3),
    "amsgrad": lambda p: torch.optim.AdamW(p, lr=0.1, amsgrad=True),
    "foreach": lambda p: torch.optim.AdamW(p, lr=0.1, foreach=True),
    "fused": lambda p: torch.optim.AdamW(p, lr=0.1, fused=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9, weight_decay=0.1),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
    "adadelta": lambda p: torch.optim.Adadelta(p, lr=1.0, weight_decay=0.1),
    "rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.01, weight_decay=0.1),
}


def learn(net: PCNetwork, step: int = 0) -> None:
    """One batch's gradients, all of them other than zero."""
    net.infer(clamps_of(net, batch=6, seed=step), init=Forward(), steps=6, optimizer=SGD(0.1)).backward()


def named(net: PCNetwork) -> dict[Any, Tensor]:
    """Every weight and bias by the edge or node that it is of."""
    weights = {e.where: e.weight for e in net.edges()}
    return {**weights, **{n.node: n.bias for n in net.nodes() if n.place}}


def apart(net: PCNetwork) -> dict[Any, nn.Parameter]:
    """The same numbers as parameters that lie apart, as in an ordinary torch model."""
    return {name: nn.Parameter(p.clone()) for name, p in named(net).items()}


def assert_same(net: PCNetwork, own: dict[Any, Tensor]) -> None:
    for name, p in named(net).items():
        torch.testing.assert_close(p.detach(), own[name].detach(), rtol=1e-13, atol=1e-14, msg=f"{name}")


def take(net: PCNetwork, own: dict[Any, nn.Parameter], stays: Any = ()) -> None:
    """Hand the gradients of the packed network to the parameters that lie apart."""
    for name, p in named(net).items():
        own[name].grad = None if name in stays else p.grad.clone().view(own[name].shape)


def step_both(
    net: PCNetwork, own: dict[Any, nn.Parameter], ours: torch.optim.Optimizer, other: torch.optim.Optimizer, step: int,
    rests: tuple[Any, ...] = (),
) -> None:  # fmt: skip
    """Learn one batch on both sides, and compare; an edge or node that rests and is frozen learns on neither."""
    ours.zero_grad()
    learn(net, step)
    take(net, own, {getattr(each, "where", None) or each.node for each in rests if each.frozen})
    ours.step()
    other.step()
    assert_same(net, own)


# -- settings of their own --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_groups_move_as_parameters_that_lie_apart(name: str, separate: bool) -> None:
    """A rate of its own for an edge that shares its tensor with others would otherwise be a promise alone."""
    net = chain(*SIZES, dtype=torch.float64, seed=1)
    own = apart(net)
    said: dict[Any, dict[str, Any]] = {("h1", "h2"): {"lr": 0.003}, "h1": {"lr": 0.02}, ("h3", "y"): {"lr": 0.02}}
    if name not in ("rprop",):
        said["h2"] = {"weight_decay": 0.0}
    theirs = [{"params": [own[key]], **value} for key, value in said.items()]
    theirs.append({"params": [p for key, p in own.items() if key not in said]})
    ours, other = (OPTIMIZERS[name](groups) for groups in (net.parameter_groups(said, separate=separate), theirs))
    for step in range(4):
        step_both(net, own, ours, other, step)


def test_equal_settings_make_one_group_and_neighbours_one_tensor() -> None:
    """A rate for all feedback edges must not make a tensor of every edge."""
    net = chain(*SIZES)
    groups = net.parameter_groups({edge: {"lr": 0.1} for edge in net.edges()[:3]})
    assert [[tuple(p.shape) for p in g["params"]] for g in groups] == [[(3, 4, 4)], [(1, 4, 4), (4, 4)]]
    assert [g.get("lr") for g in groups] == [0.1, None]
    (whole,) = net.parameter_groups()
    assert all(a is b for a, b in zip(whole["params"], net.parameters(), strict=True))


def test_all_parameters_are_there_once_with_modules_and_energies() -> None:
    """One that is missing would never learn; one that is there twice would move twice."""
    graph = pcgraph.graphs.chain([4, 4, 4], activation="tanh")
    graph.edges["h1", "y"]["transform"] = nn.Linear(4, 4)
    graph.nodes["y"]["energy"] = Learned()
    net = PCNetwork(graph)
    settings = {("h1", "y"): {"lr": 1.0}, "y": {"lr": 2.0}}
    for separate in (False, True):
        groups = net.parameter_groups(settings, separate=separate)
        assert sum(p.numel() for g in groups for p in g["params"]) == sum(p.numel() for p in net.parameters())
        module, node, _ = groups
        assert {id(p) for p in module["params"]} == {id(p) for p in net.transform("h1", "y").parameters()}
        assert [p.numel() for p in node["params"]] == [4, 1]


class Learned(pcgraph.energies.Energy):
    """A precision that learns."""

    def __init__(self) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.zeros(1))

    def energy(self, h: Tensor, mu: Tensor) -> Tensor:
        return (0.5 * self.log.exp() * (h - mu).square()).flatten(1).sum(1)


def test_muon_refuses_packed_weights() -> None:
    """The page on training says so, and what to give it instead."""
    net = PCNetwork(pcgraph.graphs.chain([4, 3, 2]))
    with pytest.raises(ValueError, match="Muon only supports 2D parameters"):
        torch.optim.Muon(net.weights.parameters())


def test_muon_takes_weights_in_torchs_own_shapes() -> None:
    """It looks at a matrix as a whole, and refuses what has three dimensions."""
    net = chain(*SIZES, dtype=torch.float64)
    own = apart(net)
    ours = torch.optim.Muon([e.weight for e in net.edges()], lr=0.1)
    other = torch.optim.Muon([own[e.where] for e in net.edges()], lr=0.1)
    for step in range(3):
        net.zero_grad()
        learn(net, step)
        take(net, own)
        ours.step()
        other.step()
        assert_same(net, own)
    assert {p.dim() for g in net.parameter_groups(separate=True) for p in g["params"]} == {1, 2}


def test_lbfgs_takes_views() -> None:
    """It gathers and scatters its parameters by itself."""
    net = chain(*SIZES, dtype=torch.float64)
    twin = copy.deepcopy(net)
    for each, parameters in (
        (net, [p for g in net.parameter_groups(separate=True) for p in g["params"]]),
        (twin, twin.parameters()),
    ):
        optimizer = torch.optim.LBFGS(parameters, line_search_fn="strong_wolfe", max_iter=5)

        def closure(each: PCNetwork = each, optimizer: torch.optim.Optimizer = optimizer) -> float:
            optimizer.zero_grad()
            return float(pcgraph.learning.backprop(each, *({v: c} for v, c in clamps_of(each, 6).items())).mean())

        before = closure()
        optimizer.step(closure)
        assert closure() < 0.7 * before
    for a, b in zip(net.parameters(), twin.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


# -- freezing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_freezing_and_unfreezing_on_the_way_is_that_of_parameters_apart(name: str) -> None:
    """Momentum, decay and the count of steps must rest while an edge is frozen, and go on where they were."""
    net = chain(*SIZES, dtype=torch.float64, seed=1)
    own = apart(net)
    (ours, other) = (OPTIMIZERS[name](p) for p in (net.parameter_groups(separate=True), list(own.values())))
    edge, node = net.edge("h1", "h2"), net.node("h3")
    for step in range(7):
        if step in (2, 5):
            for each in (edge, node):
                each.freeze() if step == 2 else each.unfreeze()
        step_both(net, own, ours, other, step, (edge, node))


@pytest.mark.parametrize("how", ["frozen when the groups are made", "named without settings"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_counted_by_the_piece_without_taking_all_apart(name: str, how: str) -> None:
    """Adam's bias correction after unfreezing is that of the edge, and all others stay as few tensors as they were."""
    net = chain(*SIZES, dtype=torch.float64, seed=1)
    own, edge, node = apart(net), net.edge("h1", "h2"), net.node("h3")
    first = 0 if how.startswith("frozen") else 2
    for each in (edge, node) if first == 0 else ():
        each.freeze()
    groups = net.parameter_groups(None if first == 0 else {edge: {}, node: {}})
    assert [len(group["params"]) for group in groups] == [6]  # two packed tensors, each before, at, and after a piece
    ours, other = (OPTIMIZERS[name](p) for p in (groups, list(own.values())))
    for step in range(7):
        for each in (edge, node) if step in (first, 5) else ():
            each.freeze() if step == first else each.unfreeze()
        step_both(net, own, ours, other, step, (edge, node))


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_of_whole_tensors_leaves_what_is_frozen_alone(name: str, first: bool) -> None:
    """AdamW would go on by its momentum, and shrink the weight, although its gradient is zero."""
    net = chain(*SIZES, dtype=torch.float64, seed=1)
    own = apart(net)
    ours, other = (OPTIMIZERS[name](p) for p in (net.parameters(), list(own.values())))
    edge, node = net.edge("h1", "h2"), net.node("h3")
    kept: list[Tensor] = []
    for step in range(5):
        if step == (0 if first else 2):
            edge.freeze()
            node.freeze()
            rows = [(net.get_parameter(place), row) for place, row in (edge.place, node.place)]
            kept = [state[p][row].clone() for p, row in rows for state in _states(ours, p)]
        step_both(net, own, ours, other, step, (edge, node))
        if kept:
            assert all(
                torch.equal(a, b[p][row])
                for a, (b, p, row) in zip(kept, [(s, p, r) for p, r in rows for s in _states(ours, p)])
            )
    if first and name in ("momentum", "adam", "adamw", "rmsprop", "adadelta"):
        made = [state[p][row] for p, row in rows for state in _states(ours, p)]
        assert made
        assert not any(t.any() for t in made)


def _states(optimizer: torch.optim.Optimizer, p: Tensor) -> list[dict[Tensor, Tensor]]:
    return [{p: t} for t in optimizer.state.get(p, {}).values() if isinstance(t, Tensor) and t.shape == p.shape]


def test_what_is_frozen_is_out_of_the_plan_and_its_gradient_is_zero() -> None:
    """Engine, plan and reference must agree on what does not learn, and the rest must learn as before."""
    net, free = (chain(*SIZES, dtype=torch.float64, seed=1) for _ in range(2))
    net.edge("h1", "h2").freeze()
    net.node("h3").freeze()
    clamps = clamps_of(net, 6)
    result = assert_equal_to_reference(net, clamps, Forward(), 6, SGD(0.1))
    assert net.edge("h1", "h2").number not in result.plan.learn.edges
    assert net.node("h3").number not in result.plan.learn.nodes
    pcgraph.plan.verify(result.plan)
    free.infer(clamps, init=Forward(), steps=6, optimizer=SGD(0.1)).backward()
    for name, p in named(free).items():
        found = net.get_parameter(_place(net, name)[0]).grad[_place(net, name)[1]]
        expected = torch.zeros_like(p) if name in (("h1", "h2"), "h3") else p.grad
        torch.testing.assert_close(found.view(p.shape), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("frozen", range(1, 2**5))
def test_whichever_edges_are_frozen_the_others_alone_have_a_gradient(frozen: int) -> None:
    """Products for many edges take in neighbours that are not asked for, and one of these may be frozen."""
    graph = nx.MultiDiGraph()
    for v, shape in {"a": 3, "b": 3, "c": 4, "y": 4}.items():
        graph.add_node(v, shape=shape, activation="tanh")
    graph.add_edges_from([("a", "c"), ("b", "c"), ("a", "y"), ("a", "y"), ("b", "y")])
    net = PCNetwork(graph, dtype=torch.float64)
    edges = net.edges()
    for k, edge in enumerate(edges):
        if frozen >> k & 1:
            edge.freeze()
    assert_equal_to_reference(net, clamps_of(net, 6, nodes=("a", "b", "c", "y")), Forward(), 2, SGD(0.1))
    net.zero_grad()
    net.infer(clamps_of(net, 6, nodes=("a", "b", "c", "y")), init=Forward(), steps=2, optimizer=SGD(0.1)).backward()
    packed = net.weights["linear_3_to_4"].grad
    moved = [packed is not None and bool(packed[edge.place[1]].any()) for edge in edges]
    assert moved == [not frozen >> k & 1 for k in range(5)]


def _place(net: PCNetwork, name: Any) -> tuple[str, int]:
    return (net.edge(*name) if isinstance(name, tuple) else net.node(name)).place


@pytest.mark.parametrize(
    "rule",
    [
        lambda net, x, y: pcgraph.learning.backprop(net, {"x": x}, {"y": y}),
        lambda net, x, y: pcgraph.learning.zero_divergence(net, {"x": x}, {"y": y}),
        lambda net, x, y: pcgraph.learning.fixed_predictions(net, {"x": x}, {"y": y}, steps=4, optimizer=SGD(1.0)),
        lambda net, x, y: pcgraph.learning.nudged(net, {"x": x}, {"y": y}, steps=4, optimizer=SGD(0.1)),
        lambda net, x, y: pcgraph.learning.forward_update(
            net, {"x": x, "y": y}, net.infer({"x": x, "y": y}, init=Forward(), steps=4, optimizer=SGD(0.1))
        ),
    ],
    ids=["backprop", "zero_divergence", "fixed_predictions", "nudged", "forward_update"],
)
def test_every_rule_leaves_out_what_is_frozen(rule: Callable[[PCNetwork, Tensor, Tensor], Any]) -> None:
    """Rules that go by autograd must not reach it by another way."""
    net, free = (chain(*SIZES, dtype=torch.float64, seed=1) for _ in range(2))
    net.edge("h1", "h2").freeze()
    net.node("h1").freeze()
    for each in (net, free):
        rule(each, double(6, 4), double(6, 4, seed=1))
    for name, p in named(free).items():
        place, row = _place(net, name)
        expected = torch.zeros_like(p) if name in (("h1", "h2"), "h1") else p.grad
        torch.testing.assert_close(net.get_parameter(place).grad[row].view(p.shape), expected, rtol=1e-12, atol=1e-14)


def test_all_edges_of_a_tensor_frozen_are_a_parameter_without_gradient() -> None:
    """torch's own optimizers skip it then, and so does whatever asks requires_grad."""
    net = chain(*SIZES)
    for edge in net.edges():
        edge.freeze()
    (weights,) = net.weights.values()
    assert not weights.requires_grad
    net.edge("h1", "h2").unfreeze()
    assert weights.requires_grad
    assert [e.frozen for e in net.edges()] == [True, False, True, True]
    before, optimizer = weights.detach().clone(), torch.optim.AdamW(net.parameters(), lr=0.1)
    learn(net)
    optimizer.step()
    moved = (weights != before).flatten(1).any(1).tolist()
    assert [moved[e.place[1]] for e in net.edges()] == [False, True, False, False]


def test_requires_grad_of_a_weight_does_what_it_says() -> None:
    """It did nothing at all, without a word."""
    net = chain(*SIZES)
    assert net.weight("h1", "h2").requires_grad_(False).requires_grad is False
    assert net.edge("h1", "h2").frozen
    net.weight("h1", "h2").requires_grad = True
    assert not net.edge("h1", "h2").frozen
    net.bias("h1").requires_grad_(False)
    assert net.node("h1").frozen
    assert not net.node("h2").frozen


def test_data_of_a_weight_is_set_where_it_lies() -> None:
    """Who loads weights writes ``p.data = ...``: the view got memory of its own, and the network kept what it had."""
    net = chain(*SIZES)
    other, weight = net.weight("h2", "h3").detach().clone(), net.weight("h1", "h2")
    weight.data = torch.full(tuple(weight.shape), 2.0, dtype=torch.float64)
    weight.data[0] += 1.0
    assert net.weight("h1", "h2")[0].eq(3.0).all()
    assert net.weight("h1", "h2")[1:].eq(2.0).all()
    torch.testing.assert_close(net.weight("h2", "h3").detach(), other, rtol=0, atol=0)
    net.node("h1").bias.data = torch.full((SIZES[1],), 0.5, dtype=torch.float64)
    assert net.bias("h1").eq(0.5).all()
    for wrong in (torch.ones(1, 1), 2.0, None):
        with pytest.raises(GraphError, match="tensor of shape"):
            weight.data = wrong
    net.half()
    with pytest.raises(GraphError, match="has left"):
        weight.data = torch.ones(tuple(weight.shape))


def test_edges_that_share_a_weight_are_frozen_together() -> None:
    graph = nx.MultiDiGraph()
    graph.add_nodes_from(["x", "h", "y"], shape=3)
    for u, v in (("x", "h"), ("h", "y")):
        graph.add_edge(u, v, share="w")
    graph.add_edge("x", "y")
    net = PCNetwork(graph)
    net.edge("x", "h").freeze()
    assert [e.frozen for e in net.edges()] == [True, False, True]
    assert net.frozen_edges == {net.edge(u, v).number for u, v in (("x", "h"), ("h", "y"))}


def test_a_module_and_a_declared_constant() -> None:
    graph = pcgraph.graphs.chain([4, 4, 4, 4])
    graph.edges["x", "h1"]["transform"] = nn.Linear(4, 4)
    graph.edges["h1", "h2"]["trainable"] = False
    graph.edges["h2", "y"]["transform"] = "identity"
    net = PCNetwork(graph)
    module, fixed, plain = net.edges()
    assert (module.count, fixed.count, plain.count) == (20, 16, 0)
    module.freeze()
    assert not any(p.requires_grad for p in net.transform("x", "h1").parameters())
    module.unfreeze()
    assert all(p.requires_grad for p in net.transform("x", "h1").parameters())
    assert fixed.frozen
    with pytest.raises(GraphError, match="'h1' -> 'h2' was declared with trainable=False"):
        fixed.unfreeze()
    with pytest.raises(GraphError, match="declared with trainable=False"):
        net.weight("h1", "h2").requires_grad_(True)
    with pytest.raises(GraphError, match="nothing to unfreeze"):
        plain.unfreeze()
    plain.freeze()


def test_a_result_from_before_does_not_learn_from_what_was_frozen_since() -> None:
    net = chain(*SIZES)
    result = net.infer(clamps_of(net), init=Forward(), steps=6, optimizer=SGD(0.1))
    net.edge("h1", "h2").freeze()
    with pytest.raises(ConfigError, match="since this inference was planned"):
        result.backward()
    assert all(p.grad is None for p in net.parameters())


def test_copies_keep_what_is_frozen_and_views_go_with_the_network() -> None:
    """An optimizer copied with its network must move the copy."""
    net = chain(*SIZES, dtype=torch.float64)
    optimizer = torch.optim.AdamW(net.parameter_groups(separate=True), lr=0.1)
    net.edge("h1", "h2").freeze()
    for pair in ((net, optimizer), (optimizer, net)):
        found = copy.deepcopy(pair)
        twin, mover = found if pair[0] is net else found[::-1]
        assert twin.edge("h1", "h2").frozen
        before = [p.clone() for p in (*twin.parameters(), *net.parameters())]
        learn(twin)
        mover.step()
        moved = [not torch.equal(a, b) for a, b in zip(before, (*twin.parameters(), *net.parameters()))]
        assert moved == [True, True, False, False]
        assert torch.equal(twin.weight("h1", "h2"), net.weight("h1", "h2"))
    again = pickle.loads(pickle.dumps(net))
    assert again.edge("h1", "h2").frozen
    before = again.weight("h1", "h2").clone()
    mover = torch.optim.AdamW(again.parameters(), lr=0.1)
    learn(again)
    mover.step()
    assert torch.equal(again.weight("h1", "h2"), before)
    assert type(pickle.loads(pickle.dumps(net.weight("x", "h1")))) is Tensor


@pytest.mark.parametrize("separate", [False, True])
def test_fit_takes_groups_and_leaves_what_is_frozen_alone(tmp_path: Any, separate: bool) -> None:
    """Its checkpoints too: a run that is resumed equals one that was not interrupted."""
    data = [(double(8, 4, seed=s).float(), double(8, 4, seed=s + 9).float()) for s in range(3)]

    def run(epochs: int, **more: Any) -> PCNetwork:
        net = chain(*SIZES, seed=2)
        net.edge("h1", "h2").freeze()
        groups = net.parameter_groups({("h2", "h3"): {"lr": 1e-4}}, separate=separate)
        optimizer = torch.optim.AdamW(groups, lr=0.01)
        pcgraph.fit(
            net, data, clamp=("x", "y"), init=Forward(), steps=6, optimizer=optimizer, state_optimizer=SGD(0.1),
            epochs=epochs, progress=False, accumulate=2, clip=1.0, **more,
        )  # fmt: skip
        return net

    whole, begun = run(3), chain(*SIZES, seed=2)
    run(1, checkpoint=tmp_path)
    resumed = run(3, checkpoint=tmp_path, resume=tmp_path)
    for name, p in named(whole).items():
        assert torch.equal(p, named(resumed)[name])
        assert torch.equal(p, named(begun)[name]) == (name == ("h1", "h2"))


def test_a_checkpoint_tells_views_apart(tmp_path: Any) -> None:
    """What an optimizer keeps of one edge would go on as that of another of its shape."""
    net = chain(*SIZES, seed=2)

    def made(*edges: int) -> torch.optim.Optimizer:
        return torch.optim.AdamW([net.edges()[k].weight for k in edges], lr=0.01)

    pcgraph.checkpoints.save(tmp_path, net=net, optimizer=made(0, 1))
    pcgraph.checkpoints.load(tmp_path).restore(net=net, optimizer=made(0, 1))
    with pytest.raises(pcgraph.errors.CheckpointError, match=r"linear_4_to_4\[0:1\]"):
        pcgraph.checkpoints.load(tmp_path).restore(net=net, optimizer=made(1, 0))


# -- views ------------------------------------------------------------------------------------------------------------


def test_a_view_has_the_gradient_of_its_rows_alone() -> None:
    net = chain(*SIZES, dtype=torch.float64)
    learn(net)
    edge, other = net.edge("h1", "h2"), net.edge("h2", "h3")
    place, row = edge.place
    assert torch.equal(edge.grad, net.get_parameter(place).grad[row])
    kept = other.grad.clone()
    edge.grad.mul_(2)
    assert torch.equal(other.grad, kept)
    edge.weight.grad = None
    assert not edge.grad.any()
    assert torch.equal(other.grad, kept)
    edge.weight.grad = torch.ones(4, 4, dtype=torch.float64)
    assert bool((net.get_parameter(place).grad[row] == 1).all())
    single = chain(3, 2)
    single.edge("x", "y").weight.grad = torch.ones(2, 3)
    single.edge("x", "y").weight.grad = None
    assert next(single.parameters()).grad is None


def test_what_is_computed_of_a_view_is_a_tensor_like_any_other() -> None:
    net = chain(*SIZES)
    weight = net.weight("x", "h1")
    assert isinstance(weight, ParameterView)
    for found in (weight + 1, weight[0], weight.clone(), weight.detach(), weight @ weight, torch.stack([weight])):
        assert type(found) is Tensor
    assert repr(weight) == repr(weight.clone())
    weight.copy_(torch.eye(4))
    assert torch.equal(net.weight("x", "h1"), torch.eye(4))


def test_a_view_of_a_network_that_was_moved_is_refused() -> None:
    """An optimizer would otherwise go on moving memory that nobody reads."""
    net = chain(*SIZES)
    optimizer = torch.optim.SGD(net.parameter_groups(separate=True), lr=0.1)
    net.double()
    learn(net)
    with pytest.raises(GraphError, match="of memory that the network has left"):
        optimizer.step()


# -- drawing anew, carrying over --------------------------------------------------------------------------------------


def test_initialize_draws_one_and_leaves_the_rest() -> None:
    net = chain(*SIZES, seed=1)
    before = {name: p.clone() for name, p in named(net).items()}
    net.edge("h1", "h2").initialize(seed=3)
    net.node("h3").initialize("normal", seed=3)
    changed = {name for name, p in named(net).items() if not torch.equal(p, before[name])}
    assert changed == {("h1", "h2"), "h3"}
    assert float(net.weight("h1", "h2").abs().max()) <= 0.5
    net.edge("h1", "h2").initialize("orthogonal")
    torch.testing.assert_close(net.weight("h1", "h2") @ net.weight("h1", "h2").t(), torch.eye(4))
    net.edge("h1", "h2").initialize(lambda tensor, generator, fan_in: tensor.fill_(fan_in))
    assert bool((net.weight("h1", "h2") == 4).all())
    net.node("h3").initialize("zeros")
    assert not net.bias("h3").any()


def test_what_cannot_be_drawn_is_refused() -> None:
    graph = pcgraph.graphs.chain([4, 4, 4])
    graph.edges["x", "h1"]["transform"] = nn.Linear(4, 4)
    graph.edges["h1", "y"]["transform"] = "identity"
    net = PCNetwork(graph)
    with pytest.raises(GraphError, match="has no bias"):
        net.node("x").initialize()
    with pytest.raises(GraphError, match="no weights"):
        net.edge("h1", "y").initialize()
    with pytest.raises(GraphError, match="unknown init 'normall': did you mean 'normal'"):
        net.node("y").initialize("normall")
    with pytest.raises(GraphError, match="of a whole matrix"):
        net.node("y").initialize("orthogonal")


def test_load_from_takes_over_what_has_its_name() -> None:
    small = chain(4, 3, 2, dtype=torch.float64, seed=1)
    graph = pcgraph.graphs.chain([4, 3, 3, 2], activation="tanh")
    graph.add_edge("h1", "y")
    graph.add_node("z", shape=5)
    graph.add_edge("z", "h2")
    grown = PCNetwork(graph, seed=7)
    drawn = {name: p.clone() for name, p in named(grown).items()}
    report = grown.load_from(small)
    assert report.edges == (("x", "h1"), ("h1", "y"))
    assert report.nodes == ("h1", "y")
    assert set(report.new) == {("h1", "h2"), ("h2", "y"), ("z", "h2"), "h2"}
    assert report.left == ()
    assert report.different == {}
    for name, p in named(grown).items():
        expected = named(small)[name].float() if name in (*report.edges, *report.nodes) else drawn[name]
        assert torch.equal(p, expected)
    back = small.load_from(grown)
    assert set(back.left) == set(report.new)
    assert "without a place here" in str(back)


class Mixed(nn.Module):
    """A joint prediction with a parameter, and something that it keeps."""

    def __init__(self, fill: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((4, 4), fill))
        self.register_buffer("kept", torch.tensor(fill))

    def forward(self, one: Tensor, two: Tensor) -> Tensor:
        return one @ self.weight + self.kept * two


def mixed(fill: float = 1.0, precision: float = 1.0, **settings: Any) -> PCNetwork:
    graph = pcgraph.graphs.chain([4, 4, 4, 4])
    graph.nodes["y"]["combine"] = Mixed(fill)
    graph.nodes["h1"]["precision"] = [precision] * 4
    graph.edges["h2", "y"]["role"] = "one"
    graph.add_edge("h1", "y", role="two", transform=nn.Linear(4, 4, bias=False))
    return PCNetwork(graph, **settings)


def test_a_node_holds_what_its_combine_learns() -> None:
    """Whatever handles do, they did not do it to the parameters of a combine, which then were nobody's."""
    net, other = mixed(), mixed(fill=3.0, precision=2.0, seed=1)
    node, own = net.node("y"), net.combine("y").weight
    assert sum(who.count for who in (*net.edges(), *net.nodes())) == sum(p.numel() for p in net.parameters())
    assert node.count == 4 + 16
    assert "Joint" not in str(net.summary())
    first = net.parameter_groups({"y": {"lr": 1.0}})[0]
    assert any(p is own for p in first["params"])
    node.freeze()
    assert not own.requires_grad
    node.unfreeze()
    assert own.requires_grad
    report = net.load_from(other)
    assert report.different == {}
    assert torch.equal(own, other.combine("y").weight)
    assert float(net.combine("y").kept) == 3.0
    assert net.node("h1").energy.precision.tolist() == [1.0] * 4  # declared, and no weight


def test_load_from_shares_what_is_shared_there_and_says_so_elsewhere() -> None:
    """The last of several edges would overwrite what the first had taken over, and the report name both."""

    def tied(*keys: str, seed: int) -> PCNetwork:
        graph = pcgraph.graphs.chain([4, 4, 4, 4])
        for edge, key in zip(list(graph.edges), keys):
            graph.edges[edge]["share"] = key
        return PCNetwork(graph, seed=seed)

    edges = [("x", "h1"), ("h1", "h2"), ("h2", "y")]
    for here, there, left in ((("k", "k", "k"), ("a", "b", "b"), edges[1:]), (("k", "k", "l"), ("k", "k", "k"), [])):
        net, other = tied(*here, seed=0), tied(*there, seed=1)
        report = net.load_from(other)
        assert list(report.different) == left
        assert report.edges == tuple(edge for edge in edges if edge not in left)
        for edge in report.edges:
            assert torch.equal(net.weight(*edge), other.weight(*edge))
    assert "shares its weight with edge 'x' -> 'h1' here" in str(tied("k", "k", seed=0).load_from(tied(seed=1)))


def test_load_from_does_not_take_the_parameters_of_another_energy() -> None:
    """Numbers of one shape may mean something else."""
    nets = []
    for energy in (Learned(), type("Other", (Learned,), {})()):
        graph = pcgraph.graphs.chain([4, 4])
        graph.nodes["y"]["energy"] = energy
        nets.append(PCNetwork(graph))
    assert nets[0].load_from(nets[1]).different == {"y": "it has Learned here, and Other there"}


def test_load_from_says_what_differs() -> None:
    graphs = [pcgraph.graphs.chain([4, size, 2]) for size in (3, 5)]
    graphs[0].edges["h1", "y"]["transform"] = nn.Linear(3, 2)
    one, two = (PCNetwork(g, seed=s) for s, g in enumerate(graphs))
    kept = [p.clone() for p in one.parameters()]
    report = one.load_from(two)
    assert set(report.different) == {("x", "h1"), ("h1", "y"), "h1"}
    assert "shape is (3, 4) here, and (5, 4) there" in report.different["x", "h1"]
    assert report.nodes == ("y",)
    assert torch.equal(one.bias("y"), two.bias("y"))
    assert sum(not torch.equal(a, b) for a, b in zip(kept, one.parameters())) == 1
    with pytest.raises(ConfigError, match="other must be a Network"):
        one.load_from({})


# -- what handles say, and refuse -------------------------------------------------------------------------------------


def test_handles_say_what_they_are_of() -> None:
    graph = nx.MultiDiGraph()
    graph.add_node("x", shape=(2, 2))
    graph.add_node("h", shape=3, activation="tanh", slots={"down": {"precision": 0.5}})
    graph.add_node("t", shape=3)
    graph.add_edge("x", "h", key="a", scale=2.0)
    graph.add_edge("x", "h", key="b", activation="relu")
    graph.add_edge("t", "h", slot="down")
    net = PCNetwork(graph)
    a, b, down = net.edges()
    assert (a.where, b.where, down.slot) == (("x", "h", "a"), ("x", "h", "b"), "down")
    assert (a.source, a.target, a.scale, b.activation.name) == ("x", "h", 2.0, "relu")
    assert a == net.edge("x", "h", "a")
    assert len({a, net.edge("x", "h", "a"), b}) == 2
    assert [n.name for n in net.nodes()] == ["node 'x'", "node 'h'", "node 't'", "slot 'down' of node 'h'"]
    slot = net.node("h", slot="down")
    assert (slot.node, slot.shape, slot.count) == ("h", (3,), 3)
    assert slot.energy.precision == 0.5
    assert sum(each.count for each in (*net.edges(), *net.nodes())) == sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({("x", "h9"): {"lr": 1.0}}, GraphError, "no node 'h9'"),
        ({("x", "y"): {"lr": 1.0}}, GraphError, "no edge 'x' -> 'y'"),
        ({"h9": {"lr": 1.0}}, GraphError, "no node 'h9'"),
        ({"x": {"lr": 1.0}}, GraphError, "nothing that learns"),
        ({"h1": {"learning_rate": 1.0}}, ConfigError, "did you mean 'lr'"),
        ({"h1": {"weigth_decay": 1.0}}, ConfigError, "did you mean 'weight_decay'"),
        ({"h1": {"lr": -1.0}}, ConfigError, "lr of node 'h1' must be"),
        ({"h1": {"params": []}}, ConfigError, "options of an optimizer"),
        ({"h1": 0.1}, ConfigError, "are a mapping"),
        ([("h1", {"lr": 1.0})], ConfigError, "is a mapping"),
    ],
)
def test_settings_that_are_none_are_refused(settings: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        chain(*SIZES).parameter_groups(settings)


def test_names_that_are_both_node_and_edge_and_shared_weights() -> None:
    graph = nx.DiGraph()
    graph.add_nodes_from([0, 1, (0, 1)], shape=2)
    graph.add_edge(0, 1, share="w")
    graph.add_edge(1, (0, 1), share="w")
    net = PCNetwork(graph)
    with pytest.raises(GraphError, match="is a node, and an edge as well"):
        net.parameter_groups({(0, 1): {"lr": 1.0}})
    with pytest.raises(GraphError, match="shares with edge 0 -> 1"):
        net.parameter_groups({net.edge(0, 1): {"lr": 1.0}, net.edge(1, (0, 1)): {"lr": 2.0}})
    with pytest.raises(GraphError, match="of another network"):
        net.parameter_groups({chain(*SIZES).edge("x", "h1"): {"lr": 1.0}})
    groups = net.parameter_groups({net.edge(0, 1): {"lr": 1.0}, net.edge(1, (0, 1)): {"lr": 1.0}, net.node((0, 1)): {}})
    assert groups[0]["lr"] == 1.0


def test_the_reference_leaves_out_what_is_frozen() -> None:
    """The oracle must know of it by itself: autograd through the whole energy, without the frozen edge."""
    net = chain(*SIZES, dtype=torch.float64)
    net.edge("h1", "h2").freeze()
    clamps = clamps_of(net)
    start = initial_states(net, clamps, Forward())
    found = reference.infer(net, clamps, start, 6, reference_step(SGD(0.1))).gradients
    place, row = net.edge("h1", "h2").place
    assert not found[place][row].any()
    assert int(found[place].flatten(1).any(1).sum()) == 3


@pytest.fixture(autouse=True)
def quiet() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


# -- plausible mistakes -----------------------------------------------------------------------------------------------


def test_a_slot_goes_by_the_name_that_results_give_it() -> None:
    """result.errors and precision= say ("V1", "down"); handles did not know it, and said that there is no such node."""
    net = PCNetwork(pcgraph.graphs.cortex([16, 8, 4]), seed=0)
    assert net.node(("V1", "down")) == net.node("V1", slot="down")
    assert net.bias(("V1", "down")).shape == (8,)
    first = net.parameter_groups({("V1", "down"): {"lr": 0.5}})[0]
    assert [p.numel() for p in first["params"]] == [8]
    clamps = {("V1", "down"): torch.zeros(2, 8)}
    with pytest.raises(pcgraph.ClampError, match="it is a slot of 'V1', and has no state of its own"):
        net.infer(clamps, init=Forward(), steps=1, optimizer=SGD(0.1))
    with pytest.raises(
        GraphError, match=r"no node 'V9' in the graph \(found 'class', 'V1', 'image'\)|did you mean 'V1'"
    ):
        net.node("V9")


@pytest.mark.parametrize("name", ["lr", "weight", "frozen", "requires_grad", "grad"])
def test_a_handle_takes_no_attributes(name: str) -> None:
    """A rate that is set on an edge would be kept there, and change nothing."""
    net = chain(*SIZES)
    for who in (net.edge("h1", "h2"), net.node("h1")):
        with pytest.raises(AttributeError, match=f"no {name} to be set.*parameter_groups"):
            setattr(who, name, 0.1)
        assert copy.copy(who) == who
        assert pickle.loads(pickle.dumps(who)).name == who.name


def test_a_list_of_nodes_is_none() -> None:
    with pytest.raises(pcgraph.ClampError, match="name one node, and no list of them"):
        chain(*SIZES).predict({"x": torch.zeros(2, 4)}, ["h1", "y"])
