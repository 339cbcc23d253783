"""A backend of somebody else's, by public names alone: plain torch, edge by edge, states as (nodes, size, batch)."""

from __future__ import annotations

import inspect
import re

import pytest
import torch

import pcgraph
from pcgraph import SGD, Forward, PCNetwork, Zero
from pcgraph.backends import BACKENDS, Backend, Program
from pcgraph.errors import BrokenPromise, ConfigError
from pcgraph.initializers import blocks
from pcgraph.plan.operations import Activate, Propagate, Write
from pcgraph.testing import conformance
from tests.builders import double


class EdgeProgram(Program):
    def __init__(self, plan, network, batch):
        super().__init__(plan, network, batch)
        self.s = plan.structure
        empty = torch.zeros(0, dtype=network.dtype, device=network.device)
        self.h = [empty.new_zeros(g.count, g.size, batch) for g in self.s.groups]

    def state(self, i):
        group, position = self.s.place(i)
        return self.h[group][position].t().reshape(self.batch, *self.s.groups[group].shape)

    def put(self, i, value):
        group, position = self.s.place(i)
        self.h[group][position] = value.reshape(self.batch, -1).t()
        if i in self.masked:
            values, mask = self.masked[i]
            self.h[group][position] = torch.where(mask, values, self.state(i)).flatten(1).t()

    def start(self, clamps, context):
        self.sent, self.total, self.masked = {}, {}, clamps.masked
        for i, value in clamps.values.items():
            self.put(i, value)
        for op in (*self.plan.prologue, self.plan.begin):
            if isinstance(op, Write):
                for block in blocks(self.s, op.nodes):
                    out = self.h[0].new_empty(len(block.nodes), self.batch, *block.shape)
                    self.initialize(op, block, out, context)
                    for k, value in enumerate(out):
                        self.put(block.number + k, value)
            elif isinstance(op, Propagate):
                self.propagate(op)
            elif isinstance(op, Activate):
                for i in op.nodes.tolist():
                    self.put(i, self.predict(i))

    def propagate(self, op):
        for e in op.edges.tolist():
            y = self.network.edge_product(e, self.state(int(self.s.source[e]))).detach()
            if self.s.is_tie[e]:
                self.put(int(self.s.target[e]), y)
            else:
                self.sent[e] = y

    def predict(self, i):
        total = self.network.constant_input(i).detach().expand(self.batch, -1)
        total = sum((self.sent[e] for e in self.s.by_target.at(i).tolist() if e in self.sent), total)
        self.total[i] = total.reshape(self.state(i).shape)
        return self.sigma(i)(self.total[i])

    def sigma(self, i):
        return self.s.segments[int(self.s.segment_of[i])].activation

    def compare(self, op, t=None):
        self.mu, self.g, self.signal = {}, {}, {}
        for i in op.nodes.tolist():
            self.mu[i] = self.predict(i)
            self.g[i], sent = self.node_energy(i, t).error(self.state(i), self.mu[i])
            self.signal[i] = self.sigma(i).pullback(sent, self.total[i])

    def evaluate(self, t):
        self.propagate(self.plan.stage(t).propagate)
        self.compare(self.plan.stage(t).compare, t)

    def pull(self, t, motion):
        for e in self.plan.stage(t).pull.edges.tolist():
            source, target = int(self.s.source[e]), int(self.s.target[e])
            if self.s.is_tie[e]:
                self.g[source] = self.g.get(source, 0) + self.g[target]
                continue
            with torch.enable_grad():
                x = self.state(source).requires_grad_()
                y = self.network.edge_product(e, x)
            (back,) = torch.autograd.grad(y, x, self.signal[target].flatten(1))
            self.g[source] = self.g.get(source, 0) - back
        for i, (target, strength) in motion.nudges.items():
            self.g[i] = self.g.get(i, 0) + strength * (self.state(i) - target)
        for i, (_, mask) in self.masked.items():
            self.g[i] = self.g.get(i, torch.zeros_like(self.state(i))) * ~mask

    def move(self, t, motion):
        for i in self.plan.stage(t).move.nodes.tolist():
            memory = motion.memories.setdefault(i, {"lr": motion.optimizer.rate(self.s.nodes[i])})
            memory["step"] = motion.first_step + t
            moved = self.state(i).reshape(1, self.batch, -1).clone()
            motion.optimizer.step(moved, self.read(i, "gradient").reshape(moved.shape).clone(), memory)
            self.put(i, moved)

    def finish(self):
        self.evaluate(self.plan.steps)

    def read(self, which, kind):
        if not isinstance(which, int):
            return torch.stack([self.read(i, kind) for i in torch.arange(len(self.s.nodes))[which].tolist()])
        known = {"state": {}, "prediction": self.mu, "gradient": self.g}[kind]
        return known[which] if which in known else self.state(which) * (kind != "gradient")

    def gradients(self, scale):
        for e in self.plan.learn.edges.tolist():
            with torch.enable_grad():
                y = self.network.edge_product(e, self.state(int(self.s.source[e])))
            if y.requires_grad:
                y.backward(-scale * self.signal[int(self.s.target[e])].flatten(1))
        for i in self.plan.learn.nodes.tolist():
            with torch.enable_grad():
                constant = self.network.constant_input(i)
            if constant.requires_grad:
                constant.backward(-scale * self.signal[i].flatten(1).sum(0))
        self.energy_gradients(scale)


class EdgeByEdge(Backend):
    name, moves_precisions = "edge by edge", True

    def lower(self, plan, network, batch):
        return EdgeProgram(plan, network, batch)


def test_it_passes_the_checks():
    """Whoever writes a backend is told by this whether it computes what the plan says, and what it refuses."""
    refused = (
        "joint predictions", "joint predictions from a sweep", "error coordinates", "error coordinates on a cycle",
        "slots and error coordinates", "precisions of each step and error coordinates", "dual variables",
        "duals that stop", "a tolerance",
    )  # fmt: skip
    assert conformance.check_backend(EdgeByEdge) == refused


def test_it_takes_less_than_a_hundred_lines_and_no_private_name():
    """The seam is small, or nobody will write a backend."""
    source = inspect.getsource(EdgeProgram) + inspect.getsource(EdgeByEdge)
    assert len(source.splitlines()) < 120
    assert len([line for line in source.splitlines() if line.strip()]) < 100
    assert not re.findall(r"\._(?!_)\w+", source)


@pytest.mark.parametrize("kind", ["graph", "cyclic"])
def test_it_trains_by_name(monkeypatch, kind):
    """A training by another backend, used by name, ends where pcgraph's own does."""
    monkeypatch.setitem(BACKENDS, "edge by edge", EdgeByEdge)
    ends = []
    for backend in ("edge by edge", "auto"):
        graph = pcgraph.graphs.chain([4, 6, 6, 3], activation="tanh")
        if kind == "cyclic":
            graph.add_edge("h2", "h1")
        net = PCNetwork(graph, seed=0, dtype=torch.float64, backend=backend)
        loader = [(double(6, 4, seed=i), torch.eye(3, dtype=torch.float64)[torch.arange(6) % 3]) for i in range(5)]
        history = pcgraph.fit(
            net, loader, init=Forward(fallback=Zero()), steps=3, state_optimizer=SGD(0.1), epochs=2, progress=False,
            optimizer=torch.optim.Adam(net.parameters(), lr=0.01),
        )  # fmt: skip
        ends.append(([p.detach() for p in net.parameters()], history.epochs[-1].energy))
        assert isinstance(net.backend, EdgeByEdge if backend == "edge by edge" else pcgraph.backends.TorchBackend)
    for one, other in zip(*(parameters for parameters, _ in ends)):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    assert ends[0][1] == pytest.approx(ends[1][1], rel=1e-9)


class Forgets(EdgeProgram):
    """Does not send errors back."""

    def pull(self, t, motion):
        pass


class Freezes(EdgeProgram):
    """Learns nothing."""

    def gradients(self, scale):
        pass


class Overwrites(EdgeByEdge):
    """Hands out a program that somebody still reads from."""

    def lower(self, plan, network, batch):
        self.one = getattr(self, "one", None) or {}
        return self.one.setdefault((id(plan), batch), EdgeProgram(plan, network, batch))


class Ties(EdgeProgram):
    """Takes an edge to a slot's state for one that feeds it."""

    def propagate(self, op):
        for e in op.edges.tolist():
            self.sent[e] = self.network.edge_product(e, self.state(int(self.s.source[e]))).detach()


class Holds(EdgeProgram):
    """Does not hand on to a node what pulls at its slots."""

    def pull(self, t, motion):
        super().pull(t, motion)
        for e in self.plan.stage(t).pull.edges.tolist():
            if self.s.is_tie[e]:
                node = int(self.s.source[e])
                self.g[node] = self.g[node] - self.g[int(self.s.target[e])]


class Declared(EdgeProgram):
    """Takes the declared precision for that of this run."""

    def node_energy(self, i, t=None):
        return self.network.node_energy(i)


class Late(EdgeProgram):
    """Takes the precision at the end for that of each step."""

    def node_energy(self, i, t=None):
        return super().node_energy(i)


class Stale(EdgeProgram):
    """Takes the errors before the last step for those after it."""

    def finish(self):
        self.compare(self.plan.final.compare)


@pytest.mark.parametrize(
    ("program", "says"),
    [
        (Forgets, "states of"),
        (Freezes, "gradient of"),
        (Stale, "predictions of|errors of|energy"),
        (Ties, r"\((transposed weights|slots)\)"),
        (Holds, r"states of .* \(slots\)"),
        (Declared, "precisions of one run"),
        (Late, "precisions of each step"),
    ],
)
def test_a_backend_that_is_wrong_is_found(program, says):
    class Wrong(Backend):
        name = "wrong"
        moves_precisions = True

        def lower(self, plan, network, batch):
            return program(plan, network, batch)

    with pytest.raises(BrokenPromise, match=says):
        conformance.check_backend(Wrong)


def test_a_backend_with_one_precision_a_run_refuses_schedules_and_nothing_else():
    class Constant(EdgeByEdge):
        name = "constant"
        moves_precisions = False

    refused = set(conformance.check_backend(Constant)) - set(conformance.check_backend(EdgeByEdge))
    assert refused == {"precisions of each step", "precisions of each step from a sweep"}


def test_a_backend_that_gives_away_what_is_read_is_found():
    with pytest.raises(BrokenPromise, match="nobody reads from|states of|errors of|predictions of"):
        conformance.check_backend(Overwrites)


def test_a_backend_may_refuse_a_plan_before_it_runs():
    """With its reason, before anything is computed; the checks name what is refused."""

    class Choosy(EdgeByEdge):
        def lower(self, plan, network, batch):
            if any(bucket.kind == "module" for bucket in plan.structure.buckets):
                raise ConfigError("Choosy knows no modules", key="backend")
            return super().lower(plan, network, batch)

    assert "modules" in conformance.check_backend(Choosy())


@pytest.mark.parametrize("spec", ["tritn", 3, EdgeByEdge, None])
def test_what_is_no_backend_is_refused(spec):
    """When the network is made, with the names there are."""
    with pytest.raises(ConfigError, match="backend"):
        PCNetwork(pcgraph.graphs.chain([2, 2]), backend=spec)


def test_pins_are_refused_where_there_is_nothing_to_choose():
    net = PCNetwork(pcgraph.graphs.chain([2, 3, 2]), backend=EdgeByEdge())
    with pytest.raises(ConfigError, match="one way to compute"):
        net.plan({"x", "y"}, init=Forward(), steps=1, kernels={"linear_2_to_3": "dense"})
    plan = net.plan({"x", "y"}, init=Forward(), steps=1)
    assert "backend: edge by edge" in plan.explain()
    assert plan.memory(5) > 0
