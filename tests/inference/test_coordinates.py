"""Error coordinates, solvers and tolerances, against the slow reference in float64, closed forms and each other."""

from __future__ import annotations

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pcgraph
from pcgraph import (
    LBFGS,
    SGD,
    Adam,
    Anderson,
    Equilibrium,
    Errors,
    Forward,
    Masked,
    Momentum,
    Normal,
    PCNetwork,
    Zero,
)
from pcgraph.backends import traits_of
from pcgraph.errors import ConfigError, InvalidInitializer
from pcgraph.plan import verify
from pcgraph.testing.strategies import dags, digraphs, problems
from tests.builders import assert_equal_to_reference, chain, clamps_of, double

STATE_OPTIMIZERS = [SGD(0.05), SGD(0.05, 0.8), Adam(0.02, eps=1e-3)]
ROUGH = {"rtol": 1e-8, "atol": 1e-10}


def clamped(problem, net, device="cpu"):
    known = sorted(problem.clamped, key=str) or [next(iter(net.graph))]
    return {v: double(2, *net.structure.shape(v), seed=i, device=device) for i, v in enumerate(known)}


# -- error coordinates ------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:there is nothing to learn from")
@settings(max_examples=80, deadline=None)
@given(
    problem=problems(graphs=dags(max_nodes=7, priors=True, parallel=True)),
    init=st.sampled_from([Zero(), Normal(std=0.3), Forward(fallback=Zero())]),
    steps=st.integers(0, 5),
    optimizer=st.sampled_from(STATE_OPTIMIZERS),
    kernel=st.sampled_from([None, "dense", "batched"]),
)
def test_moving_errors_equals_the_reference(device, problem, init, steps, optimizer, kernel):
    """The gradient for an error is what comes back through all that depends on it: as autograd says."""
    net = PCNetwork(problem.graph, seed=problem.seed, dtype=torch.float64, device=device)
    pins = {} if kernel is None else {b.name: kernel for b in net.structure.buckets if b.kind == "linear"}
    kw = {"kernels": pins, "coordinates": Errors()}
    clamps = clamped(problem, net, device=device)
    assert verify(net.plan(clamps, init=init, steps=steps, optimizer=optimizer, coordinates=Errors()))
    assert_equal_to_reference(net, clamps, init, steps, optimizer, tolerance=ROUGH, **kw)


@pytest.mark.filterwarnings("ignore:there is nothing to learn from")
@settings(max_examples=80, deadline=None)
@given(
    problem=problems(graphs=digraphs(max_nodes=7, priors=True)),
    init=st.sampled_from([Zero(), Normal(std=0.3)]),
    steps=st.integers(1, 4),
    optimizer=st.sampled_from(STATE_OPTIMIZERS),
)
def test_on_cycles_some_states_are_kept_and_it_equals_the_reference(device, problem, init, steps, optimizer):
    """A feedback vertex set moves by its states, all else by errors: the same energy again."""
    net = PCNetwork(problem.graph, seed=problem.seed, dtype=torch.float64, device=device)
    clamps, hybrid = clamped(problem, net, device=device), Errors(keep="repair")
    assert verify(net.plan(clamps, init=init, steps=steps, optimizer=optimizer, coordinates=hybrid))
    assert_equal_to_reference(net, clamps, init, steps, optimizer, tolerance=ROUGH, coordinates=hybrid)


class LogCosh(pcgraph.energies.Energy):
    """Smooth, and not Gaussian; it promises nothing, and leaves its derivatives to autograd."""

    def energy(self, h, mu):
        return torch.log(torch.cosh(h - mu)).flatten(1).sum(1)


def kinds():
    graph = nx.DiGraph()
    for name, shape in (("x", 3), ("a", (2, 2)), ("b", 4), ("c", 4), ("d", 4), ("y", 3)):
        graph.add_node(name, shape=shape, activation="identity" if name == "y" else "tanh")
    graph.add_edges_from([("x", "a"), ("a", "b"), ("b", "c"), ("a", "c"), ("c", "d"), ("d", "y"), ("x", "y")])
    graph.nodes["b"].update(energy=LogCosh(), bias=False)
    graph.nodes["c"].update(precision=0.4, activation=torch.nn.Softmax(dim=-1))
    graph.nodes["d"].update(energy=pcgraph.energies.LearnedPrecision(4))
    graph.edges["b", "c"].update(transform="identity", activation="gelu")
    graph.edges["c", "d"]["transform"] = torch.nn.Linear(4, 4, bias=False)
    graph.edges["d", "y"]["transform"] = pcgraph.transforms.SparseLinear(density=0.5)
    return graph


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("keep", [(), ("b",), ("a", "d")])
def test_every_kind_of_node_and_edge(device, keep, steps):
    """Energies, precisions, activations that mix neurons, modules, stored entries; some states kept."""
    net = PCNetwork(kinds(), seed=1, dtype=torch.float64, device=device)
    for init in (Forward(), Normal(std=0.3)):
        assert_equal_to_reference(
            net, clamps_of(net), init, steps, SGD(0.05), tolerance=ROUGH, coordinates=Errors(keep)
        )


def test_a_partly_clamped_node_keeps_its_state(device):
    """Some neurons are fixed, so that the error cannot be the variable: refused, unless the state is kept."""
    net = chain(4, 5, 5, 3, dtype=torch.float64, device=device)
    values = double(3, 5, seed=3, device=device)
    clamps = {**clamps_of(net), "h1": Masked(values, values > 0)}
    kw = {"init": Zero(), "steps": 3, "optimizer": SGD(0.05)}
    with pytest.raises(ConfigError, match=r"'h1'.*partly|some neurons of which are clamped.*keep=\{'h1'\}"):
        net.infer(clamps, coordinates=Errors(), **kw)
    assert_equal_to_reference(net, clamps, Zero(), 3, SGD(0.05), tolerance=ROUGH, coordinates=Errors({"h1"}))


def test_coordinates_that_do_not_exist_are_refused_with_the_cycle():
    """Before anything runs, as an initializer is."""
    net = (
        PCNetwork(nx.DiGraph([("x", "a"), ("a", "b"), ("b", "a"), ("b", "y")]), dtype=torch.float64) if False else None
    )
    graph = nx.DiGraph([("x", "a"), ("a", "b"), ("b", "a"), ("b", "y")])
    nx.set_node_attributes(graph, 2, "shape")
    net = PCNetwork(graph, dtype=torch.float64)
    kw = {"init": Zero(), "steps": 1, "optimizer": SGD(0.1)}
    with pytest.raises(InvalidInitializer, match=r"a → b → a|b → a → b"):
        net.infer(clamps_of(net), coordinates=Errors(), **kw)
    net.infer(clamps_of(net), coordinates=Errors({"a"}), **kw)
    for bad in ("errors", Errors, 3):
        with pytest.raises(ConfigError, match="coordinates"):
            net.infer(clamps_of(net), coordinates=bad, **kw)
    with pytest.raises(ConfigError, match="keep"):
        Errors(keep="a")


def test_nudges_go_on_to_the_parents(device):
    """The cost at a free node is felt by everything before it, in one step."""
    net = chain(4, 5, 5, 3, dtype=torch.float64, device=device)
    x, y = double(3, 4, device=device), double(3, 3, seed=1, device=device)
    motion = pcgraph.backends.Motion(SGD(0.1), nudges={net.structure.number["y"]: (y, 0.5)})
    options = pcgraph.inference.Options()
    result = net.run(
        {"x": x}, init=Forward(), steps=1, labels=None, motion=motion, options=options, coordinates=Errors()
    )
    twin = net.predict({"x": x}, "y")
    h1 = net.predict({"x": x}, "h1").requires_grad_()
    h2 = torch.tanh(h1 @ net.weight("h1", "h2").t() + net.bias("h2"))
    out = h2 @ net.weight("h2", "y").t() + net.bias("y")
    torch.testing.assert_close(out.detach(), twin)
    (gradient,) = torch.autograd.grad((0.25 * (out - y).square()).sum(), h1)
    torch.testing.assert_close(result.states["h1"], h1.detach() - 0.1 * gradient)


@pytest.mark.parametrize("kernel", ["dense", "batched"])
@pytest.mark.parametrize("coordinates", [None, Errors()], ids=repr)
def test_a_root_without_a_value_is_nudged(device, coordinates, kernel):
    """It has no error of its own, so that what its children send back is the first that comes to it."""
    graph = nx.DiGraph([("r", "a"), ("x", "a"), ("a", "y")])
    nx.set_node_attributes(graph, 3, "shape")
    net = PCNetwork(graph, seed=1, dtype=torch.float64, device=device)
    target, states = double(3, 3, seed=5, device=device), []
    for strength in (0.0, 0.7):
        motion = pcgraph.backends.Motion(SGD(0.1), nudges={net.structure.number["r"]: (target, strength)})
        kw = {"labels": None, "motion": motion, "options": pcgraph.inference.Options(), "coordinates": coordinates}
        pins = {b.name: kernel for b in net.structure.buckets}
        states.append(net.run(clamps_of(net), init=Zero(), steps=1, kernels=pins, **kw).states["r"])
    torch.testing.assert_close(states[1] - states[0], 0.1 * 0.7 * target)


def test_both_coordinates_have_the_same_minimum(device):
    """The energy is the same function."""
    net = chain(4, 5, 5, 5, 3, dtype=torch.float64, device=device)
    kw = {"init": Forward(), "steps": 400, "optimizer": LBFGS(), "tolerance": 1e-9}
    one, other = (net.infer(clamps_of(net), coordinates=c, **kw) for c in (None, Errors()))
    torch.testing.assert_close(one.energy, other.energy, rtol=1e-9, atol=1e-12)
    for v in net.graph:
        torch.testing.assert_close(one.states[v], other.states[v], rtol=1e-5, atol=1e-6)


# -- solvers ----------------------------------------------------------------------------------------------------------

SOLVERS = [LBFGS(), LBFGS(history=3), Anderson(0.1), Momentum(0.1)]


@pytest.mark.parametrize("coordinates", [None, Errors()], ids=repr)
@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_a_linear_networks_minimum_is_found(device, solver, coordinates):
    """The closed form: the energy is quadratic, and its minimum solves a linear system, taken here by autograd."""
    net = PCNetwork(
        pcgraph.graphs.chain([4, 3, 3, 2], activation="identity"), seed=0, dtype=torch.float64, device=device
    )
    clamps = clamps_of(net)

    def energy(flat):
        h1, h2 = flat[:, :3], flat[:, 3:]
        misses = (
            h1 - clamps["x"] @ net.weight("x", "h1").t() - net.bias("h1"),
            h2 - h1 @ net.weight("h1", "h2").t() - net.bias("h2"),
            clamps["y"] - h2 @ net.weight("h2", "y").t() - net.bias("y"),
        )
        return sum(0.5 * m.square().sum() for m in misses)

    zero = torch.zeros(3, 6, dtype=torch.float64, device=device)
    gradient = torch.autograd.functional.jacobian(energy, zero).flatten()
    hessian = torch.autograd.functional.hessian(energy, zero).reshape(18, 18)
    minimum = torch.linalg.solve(hessian, -gradient).view(3, 6)
    result = net.infer(clamps, init=Normal(), steps=500, optimizer=solver, coordinates=coordinates, tolerance=1e-10)
    assert result.converged.all()
    found = torch.cat([result.states["h1"], result.states["h2"]], 1)
    torch.testing.assert_close(found, minimum, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("coordinates", [None, Errors()], ids=repr)
@pytest.mark.parametrize("solver", [*SOLVERS, SGD(0.1), Adam(0.02)], ids=repr)
@pytest.mark.parametrize("tolerance", [None, 1e-3])
def test_the_batch_never_changes_a_samples_answer(device, solver, coordinates, tolerance):
    """Curvature, step lengths, restarts and the end are those of each sample."""
    net = chain(4, 5, 5, 3, dtype=torch.float64, device=device)
    clamps = clamps_of(net, batch=5)
    clamps["y"][2] *= 30
    kw = {"init": Forward(), "steps": 25, "optimizer": solver, "coordinates": coordinates, "tolerance": tolerance}
    together = net.infer(clamps, **kw)
    for i in range(5):
        alone = net.infer({v: c[i : i + 1] for v, c in clamps.items()}, **kw)
        for v in net.graph:
            # A GPU multiplies batches of other sizes in another order, and a line search makes more of it.
            loose = 1e3 if torch.device(device).type == "cuda" else 1.0
            torch.testing.assert_close(
                together.states[v][i : i + 1], alone.states[v], rtol=1e-9 * loose, atol=1e-10 * loose
            )
        if tolerance is not None:
            assert together.steps[i] == alone.steps[0]


def test_rounding_does_not_restart_a_sample(device):
    """Where the energy no longer changes but in its last digits, these do not say that it has risen."""
    solver = Anderson()
    variables, gradient = double(1, 4, device=device), 1e-3 * double(1, 4, seed=1, device=device)
    found = []
    for change in (0.0, 1e-15, -1e-15, 1e-6):
        memory: dict = {}
        for step, energy in enumerate((500.0, 500.0 * (1 + change))):
            memory |= {"energy": torch.tensor([energy], dtype=torch.float64, device=device), "step": step}
            last = solver.propose(variables + 1e-4 * step, gradient * (1 - 0.1 * step), memory)
        found.append(last)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[3])


def test_momentum_that_leads_uphill_is_dropped():
    """For each sample by itself, whatever digits the energy has."""
    solver, memory = Momentum(0.1, 0.5), {"energy": torch.zeros(2), "step": 0}
    first = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    moved = solver.propose(torch.zeros(2, 2), first, memory)
    second = torch.tensor([[-0.2, 0.4], [0.2, 0.4]])  # the first sample has gone too far
    found = solver.propose(moved, second, memory)
    torch.testing.assert_close(found - moved, -0.1 * second + torch.tensor([[0.0, 0.0], [-0.05, 0.0]]))


def test_a_sample_that_has_converged_stops_and_says_when(device):
    """The largest gradient of a neuron is what decides, sample by sample."""
    net = chain(4, 5, 5, 3, dtype=torch.float64, device=device)
    clamps = clamps_of(net, batch=3)
    clamps["y"][1] = net.predict({"x": clamps["x"]}, "y")[1]  # nothing to do here
    result = net.infer(clamps, init=Forward(), steps=400, optimizer=SGD(0.2), tolerance=1e-4)
    assert result.steps[1] == 0
    assert (result.steps[0::2] > 5).all()
    assert result.converged.all()
    assert len(set(result.steps.tolist())) == 3  # so that one rests while another moves on
    for i, steps in enumerate(result.steps.tolist()):
        shorter = net.infer(clamps, init=Forward(), steps=steps, optimizer=SGD(0.2))
        torch.testing.assert_close(result.states["h1"][i], shorter.states["h1"][i], rtol=1e-12, atol=1e-13)
    hurried = net.infer(clamps, init=Forward(), steps=3, optimizer=SGD(0.2), tolerance=1e-4)
    assert hurried.converged.tolist() == [False, True, False]
    assert hurried.steps.tolist() == [3, 0, 3]
    assert net.infer(clamps, init=Forward(), steps=3, optimizer=SGD(0.2)).steps is None


@pytest.mark.parametrize(("solver", "calls"), [(LBFGS(), 40), (Momentum(0.1, 0.9), 400)], ids=repr)
def test_a_deep_chain_is_settled_in_few_steps(device, solver, calls):
    """Depth 20, linear, to 1e-6 of the equilibrium energy: states by plain descent take ten thousand steps."""
    net = PCNetwork(pcgraph.graphs.chain([16] * 21, activation="identity"), seed=0, dtype=torch.float64, device=device)
    clamps = clamps_of(net, batch=4)
    kw = {"init": Forward(), "coordinates": Errors()}
    best = net.infer(clamps, steps=400, optimizer=LBFGS(), tolerance=1e-12, **kw).energy.sum()
    trace = net.infer(clamps, steps=calls, optimizer=solver, trace=True, **kw).trace.sum(1)
    assert float((trace[-1] - best) / best) < 1e-6


@pytest.mark.parametrize("steps", range(6))
def test_a_run_that_ends_at_once_is_one_without_steps(device, steps):
    """A wide first layer, whose input never changes, keeps its slope from the step on at which its error begins."""
    net = chain(3, traits_of("cpu").lasting_slope, 4, 4, 2, dtype=torch.float64, device=device)
    found = []
    for kw in ({"steps": 0}, {"steps": steps, "optimizer": SGD(0.05), "tolerance": 1e9}):
        net.zero_grad()
        result = net.infer(clamps_of(net), init=Forward(), **kw)
        result.backward()
        seen = [*result.states.values(), *result.errors.values(), result.energy]
        found.append([*seen, *(p.grad for p in net.parameters())])
    for one, other in zip(*found):
        torch.testing.assert_close(one, other)


def test_a_solver_that_finds_no_way_says_for_which_sample(device):
    """relu(2h + 1) = h has no solution nearby that descent likes; here the gradient of one sample is made wrong."""

    class Wrong(pcgraph.energies.Energy):
        def energy(self, h, mu):
            return 0.5 * (h - mu).square().flatten(1).sum(1)

        def error(self, h, mu):
            e = h - mu
            return -e, -e

    graph = pcgraph.graphs.chain([3, 4, 2], activation="tanh")
    graph.nodes["h1"]["energy"] = Wrong()
    net = PCNetwork(graph, dtype=torch.float64, device=device)
    clamps = clamps_of(net, batch=3)
    result = net.infer(clamps, init=Normal(), steps=60, optimizer=LBFGS(halvings=6))
    assert result.failed.any()
    assert torch.isfinite(result.energy).all()


def test_solvers_learn_remember_and_nudge(device):
    """backward() works at whatever a solver has found, and nudged phases count the cost that they add."""
    net = chain(4, 5, 5, 3, dtype=torch.float64, device=device)
    clamps = clamps_of(net)
    net.infer(clamps, init=Forward(), steps=20, optimizer=LBFGS(), coordinates=Errors()).backward()
    assert all(float(p.grad.abs().sum()) > 0 for p in net.parameters())
    kw = {"init": Forward(), "steps": 30}
    gradients = []
    for optimizer in (LBFGS(), SGD(0.1)):
        net.zero_grad()
        steps = 30 if isinstance(optimizer, LBFGS) else 2000
        pcgraph.learning.nudged(
            net, {"x": clamps["x"]}, {"y": clamps["y"]}, optimizer=optimizer, **kw | {"steps": steps}
        )
        gradients.append([p.grad.clone() for p in net.parameters()])
    for one, other in zip(*gradients):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_equilibrium_by_a_solver(device):
    """A cycle settles to the state that many plain steps find."""
    graph = pcgraph.graphs.lateral([3, 4, 2], activation="tanh")
    net = PCNetwork(graph, seed=1, dtype=torch.float64, device=device)
    clamps = clamps_of(net)
    slow = Equilibrium(release="y", steps=5000, tolerance=1e-9)
    quick = Equilibrium(release="y", steps=60, optimizer=LBFGS(), tolerance=1e-9)
    one, other = (net.infer(clamps, init=i, steps=0).states["h1"] for i in (slow, quick))
    torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)
    assert quick.residual <= 1e-9


def test_a_training_run_moves_errors_and_stops_at_a_tolerance(device):
    """fit does what a loop of one's own does with the same choices; rules with runs of their own refuse them."""
    batches = [
        (
            double(6, 4, seed=i, device=device),
            torch.eye(3, dtype=torch.float64, device=device)[torch.arange(6, device=device) % 3],
        )
        for i in range(4)
    ]
    how = {"init": Forward(), "steps": 20, "coordinates": Errors(), "tolerance": 1e-3}
    nets = [chain(4, 5, 3, dtype=torch.float64, device=device) for _ in range(2)]
    optimizers = [torch.optim.SGD(net.parameters(), lr=0.1) for net in nets]
    pcgraph.fit(nets[0], batches, optimizer=optimizers[0], state_optimizer=LBFGS(), progress=False, **how)
    for x, y in batches:
        optimizers[1].zero_grad()
        nets[1].infer({"x": x, "y": y}, optimizer=LBFGS(), **how).backward()
        optimizers[1].step()
    for one, other in zip(nets[0].parameters(), nets[1].parameters()):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    kw = {"optimizer": optimizers[0], "init": Forward(), "steps": 2, "progress": False}
    for rule in (pcgraph.learning.Incremental(), pcgraph.learning.Nudged()):
        with pytest.raises(ConfigError, match="way of its own.*coordinates="):
            pcgraph.fit(nets[0], batches, rule=rule, state_optimizer=SGD(0.1), coordinates=Errors(), **kw)
    with pytest.raises(ConfigError, match="Incremental"):
        pcgraph.fit(nets[0], batches, rule=pcgraph.learning.Incremental(), state_optimizer=LBFGS(), **kw)


@pytest.mark.parametrize("bad", ["lbfgs", LBFGS, 0.1])
def test_what_is_no_solver_is_refused(bad):
    net = chain(4, 5, 3, dtype=torch.float64)
    with pytest.raises(ConfigError, match="state optimizer"):
        net.infer(clamps_of(net), init=Forward(), steps=2, optimizer=bad)
    for tolerance in (0, -1.0, float("nan"), "small"):
        with pytest.raises(ConfigError, match="tolerance"):
            net.infer(clamps_of(net), init=Forward(), steps=2, optimizer=SGD(0.1), tolerance=tolerance)


def test_what_comes_back_late_does_not_overwrite_what_came_before(device):
    """A root's gradient comes from a target at once, and by way of a relay later; the second is added to the first."""
    graph = nx.DiGraph()
    graph.add_nodes_from(["r", "z", "h"], shape=4)
    graph.add_node("y", shape=2)
    graph.add_edge("r", "z", transform="identity")
    graph.add_edges_from([("r", "h"), ("h", "y")])
    net = PCNetwork(graph, seed=0, dtype=torch.float64, device=device)
    clamps = {"z": double(3, 4, device=device), "y": double(3, 2, seed=1, device=device)}
    assert_equal_to_reference(net, clamps, Normal(std=0.3), 3, SGD(0.05), coordinates=Errors())


@pytest.mark.parametrize("known", range(5))
def test_an_edge_between_those_that_are_needed_sends_back_once(known):
    """Four of five like edges wait for a relay, and the fifth, to a clamped target, has sent its error back before."""
    graph = nx.DiGraph()
    graph.add_nodes_from(["r", *range(5)], shape=3)
    graph.add_edges_from(("r", v) for v in range(5))
    net = PCNetwork(graph, seed=0, dtype=torch.float64)
    assert [bucket.count for bucket in net.structure.buckets] == [5]
    assert_equal_to_reference(net, {known: double(2, 3)}, Normal(std=0.3), 3, SGD(0.05), coordinates=Errors())


def test_an_error_that_has_gone_all_the_way_leaves_what_no_state_can_take_over():
    """On a linear chain the output keeps (I + J J^T)^-1 of its error, J its derivative by all free errors."""
    net = PCNetwork(pcgraph.graphs.chain([4, 5, 6, 3], activation="identity"), seed=0, dtype=torch.float64)
    clamps = {"x": double(7, 4), "y": double(7, 3, seed=1)}
    first = net.infer(clamps, init=Forward(), steps=0).errors["y"]
    last = net.weight("h2", "y").detach()
    ways = torch.cat([last, last @ net.weight("h1", "h2").detach()], dim=1)
    expected = torch.linalg.solve(torch.eye(3, dtype=torch.float64) + ways @ ways.T, first.T).T
    result = net.infer(clamps, init=Forward(), steps=400, optimizer=SGD(lr=0.3), coordinates=Errors())
    torch.testing.assert_close(result.errors["y"], expected, rtol=1e-9, atol=1e-12)
    assert float(expected.norm()) < 0.9 * float(first.norm())
