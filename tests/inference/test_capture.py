"""Recording and replaying: what can be shown without a GPU, with a stand-in for the CUDA graph."""

from __future__ import annotations

import weakref
from dataclasses import replace

import pytest
import torch

import pcgraph
from pcgraph import SGD, Adam, Average, Following, Forward, Normal, PCNetwork, Zero
from pcgraph.backends import Motion, traits_of
from pcgraph.backends.torch.program import TorchProgram
from pcgraph.clamps import Clamps
from pcgraph.errors import ConfigError, OutOfMemory
from pcgraph.inference import Recorder
from pcgraph.inference.capturable import obstacle
from pcgraph.inference.options import Options
from tests.replayed import NoWaiting, Replayed, stand_in


@pytest.fixture
def recording(monkeypatch):
    """Every run that the rule admits is recorded, on a CPU."""
    return stand_in(monkeypatch)


def batch(net, size=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {v: torch.randn(size, *net.structure.shape(v), generator=generator) for v in ("x", "y")}


# -- the recorder -----------------------------------------------------------------------------------------------------


def test_ordinary_runs_then_one_recording_then_replays():
    """Every call computes what the function would, and the function itself is no longer called."""
    calls = []
    out = torch.zeros(3)

    def double(inputs):
        calls.append(inputs["a"])
        return torch.mul(inputs["a"], 2, out=out)

    recorder = Recorder(double, Replayed)
    for i in range(6):
        a = torch.full((3,), float(i))
        assert torch.equal(recorder({"a": a}), 2 * a)
        assert recorder.recorded == (i >= Recorder.WARM)
    assert Replayed.made[-1].log == ["warm"] * 3 + ["record", "replay"] + ["replay"] * 2
    assert len({a.data_ptr() for a in calls}) == 1, "it must read from one place"


def test_another_shape_runs_as_it_is_and_leaves_the_recording_alone():
    """The last batch of an epoch is smaller."""
    recorder = Recorder(lambda inputs: inputs["a"].sum() + 0, Replayed)
    for size in (4, 4, 1, 4, 4, 3, 4, 1):  # one would broadcast into four
        assert float(recorder({"a": torch.ones(size)})) == size
    assert Replayed.made[-1].log == ["warm"] * 3 + ["record", "replay", "replay"]
    assert float(recorder({"a": torch.ones(4, dtype=torch.float64)})) == 4
    assert float(recorder({"a": torch.ones(4), "b": torch.ones(1)})) == 4
    assert len(Replayed.made[-1].log) == 6


def test_what_comes_most_often_is_recorded():
    """A resumed epoch may begin with its last, smaller batch, which never comes twice in a row."""
    recorder = Recorder(lambda inputs: inputs["a"].sum() + 0, Replayed)
    for size in (3, 4, 4, 4, 4, 4, 3, 4):
        assert float(recorder({"a": torch.ones(size)})) == size
    logs = [made.log for made in Replayed.made[-2:]]
    assert logs == [["warm"], ["warm"] * 3 + ["record", "replay", "replay"]]


def test_shapes_that_take_turns_are_recorded_all_the_same():
    """The first of them is."""
    recorder = Recorder(lambda inputs: inputs["a"].sum() + 0, Replayed)
    for size in (3, 4) * 5:
        assert float(recorder({"a": torch.ones(size)})) == size
    assert Replayed.made[-1].log == ["warm"] * 3 + ["record", "replay", "replay"]


@pytest.mark.parametrize("switch", ["autocast", "matmul"])
def test_a_switch_of_torchs_is_noticed_by_ones_own_recorder(switch):
    """A recording without autocast, or in full precision, must not stand for a step under another setting."""
    a = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    recorder = Recorder(lambda inputs: inputs["a"] @ inputs["a"], Replayed)
    before, precision = len(Replayed.made), torch.get_float32_matmul_precision()
    try:
        for i in range(15):
            on = 5 <= i < 10
            if switch == "matmul":
                torch.set_float32_matmul_precision("medium" if on else "highest")
            with torch.autocast("cpu", torch.bfloat16, enabled=on and switch == "autocast"):
                assert torch.equal(recorder({"a": a}), a @ a)
    finally:
        torch.set_float32_matmul_precision(precision)
    assert [made.log.count("replay") for made in Replayed.made[before:]] == [5 - Recorder.WARM] * 3


@pytest.mark.parametrize("given", [{}, {"init": Forward(), "steps": 2, "optimizer": SGD(0.1)}])
def test_predictions_are_recorded(recording, given):
    """They equal those that are not, weights move meanwhile, and what was predicted before stays as it is."""
    net = PCNetwork(pcgraph.graphs.chain([5, 6, 6, 3], activation="tanh"), seed=0)
    kept = []
    for i in range(7):
        with torch.no_grad():
            for p in net.parameters():
                p.add_(0.01)
        x = {"x": batch(net, seed=i)["x"]}
        kept.append([net.predict(x, "y", **given), net.predict(x, "y", capture="auto", check=False, **given)])
    for plain, recorded in kept:
        assert torch.equal(plain, recorded)
    assert [made.log.count("replay") for made in recording] == [7 - Recorder.WARM]


def test_an_evaluation_waits_for_the_device_at_its_end_alone(recording):
    """Where the host looks at each batch, a GPU idles for as long as Python takes."""
    net = PCNetwork(pcgraph.graphs.chain([5, 6, 6, 3], activation="tanh"), seed=0)
    batches = [(batch(net, seed=i)["x"], torch.eye(3)[[0, 1, 2, 0]]) for i in range(8)]
    plain = pcgraph.evaluate(net, batches)
    waiting = NoWaiting()
    waiting.on = False

    def watched():
        for i, both in enumerate(batches):
            waiting.on = i > Recorder.WARM
            yield both
        waiting.on = False

    with waiting:
        found = pcgraph.evaluate(net, watched(), check=False, capture="auto")
    assert found == plain
    assert [made.log.count("replay") for made in recording] == [8 - Recorder.WARM]


def test_a_whole_training_step_is_one_recording():
    """Initialization, steps, gradients and the optimizer, replayed, train to the same weights as without."""
    trained = []
    for recorded in (False, True):
        net = PCNetwork(pcgraph.graphs.chain([5, 6, 6, 3], activation="tanh"), seed=0)
        optimizer = torch.optim.AdamW(net.parameters(), lr=0.01, fused=True, capturable=True)
        init, states = Forward(), SGD(0.1)
        for parameter in net.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()  # its state exists before the recording

        told = torch.zeros(4)

        def learn(inputs, net=net, optimizer=optimizer, init=init, states=states, told=told):
            optimizer.zero_grad()
            result = net.infer(inputs, init=init, steps=3, optimizer=states, check=False)
            result.backward()
            optimizer.step()
            told.copy_(result.energy)
            return result

        step = Recorder(learn, Replayed) if recorded else learn
        energies = []
        for i in range(7):
            step(batch(net, seed=i))
            energies.append(told.tolist())
        trained.append(([p.detach().clone() for p in net.parameters()], energies))
    for one, other in zip(trained[0][0], trained[1][0]):
        assert torch.equal(one, other)
    assert trained[0][1] == trained[1][1]


# -- infer ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "optimizer",
    [
        SGD(0.1), SGD(0.05, 0.9), SGD({"h1": 0.1, None: 0.02}), Adam(0.02), SGD(Following(5.0, every=2)),
        SGD(Following(5.0, every=4), 0.5), Adam(Following(0.5, every=2)),
    ],
    ids=repr,
)  # fmt: skip
def test_captured_inferences_equal_those_that_are_not(recording, optimizer):
    """Other batches and other weights go in, and states, energies and gradients are those of an ordinary run."""
    net = PCNetwork(pcgraph.graphs.chain([5, 6, 6, 6, 3], activation="gelu"), seed=0)
    init = Forward()
    for i in range(7):
        with torch.no_grad():
            for p in net.parameters():
                p.add_(0.01 * i)
        clamps, found = batch(net, seed=i), []
        for capture in (False, "auto"):
            net.zero_grad()
            result = net.infer(clamps, init=init, steps=4, optimizer=optimizer, capture=capture)
            result.accumulate()
            found.append([*result.states.values(), result.energy, *(p.grad for p in net.parameters())])
        for one, other in zip(*found):
            assert torch.equal(one, other)
    assert len(recording) == 1
    assert recording[0].log == ["warm"] * 3 + ["record"] + ["replay"] * 4


def test_states_of_a_captured_run_stay_what_they_are(recording):
    """The next replay writes into the same buffers."""
    net = PCNetwork(pcgraph.graphs.chain([5, 6, 3]), seed=0)
    kw = {"init": Forward(), "steps": 2, "optimizer": SGD(0.1), "capture": "auto"}
    kept = []
    for i in range(6):
        result = net.infer(batch(net, seed=i), **kw)
        kept.append((result.states["h1"], result.errors["y"], result.predictions["y"]))
        del result
    assert len(recording) == 1
    assert recording[0].log.count("replay") == 3
    for i, seen in enumerate(kept):
        plain = net.infer(batch(net, seed=i), **{**kw, "capture": False})
        for one, other in zip(seen, (plain.states["h1"], plain.errors["y"], plain.predictions["y"])):
            assert torch.equal(one, other)


def test_another_rate_is_recorded_anew(recording):
    """A rate is a number in the recording."""
    net = PCNetwork(pcgraph.graphs.chain([5, 6, 3]), seed=0)
    optimizer = SGD(0.1)
    for rate in (0.1, 0.1, 0.3, 0.3, 0.3, 0.3, 0.3):
        optimizer.lr = rate
        kw = {"init": Forward(), "steps": 3, "optimizer": optimizer}
        one = net.infer(batch(net), capture="auto", **kw).states["h1"]
        assert torch.equal(one, net.infer(batch(net), **kw).states["h1"])
    assert len(recording) == 2


def test_a_rate_of_another_optimizer_is_not_taken_over(recording):
    """Two optimizers that are equal share a recording; one that has changed since must not speak for the other."""
    net = PCNetwork(pcgraph.graphs.chain([5, 6, 3]), seed=0)
    changed, kw = SGD(0.1), {"init": Forward(), "steps": 3}
    net.infer(batch(net), optimizer=changed, capture="auto", **kw)
    changed.lr = 0.5
    for _ in range(4):
        one = net.infer(batch(net), optimizer=SGD(0.1), capture="auto", **kw).states["h1"]
        assert torch.equal(one, net.infer(batch(net), optimizer=SGD(0.1), **kw).states["h1"])
    assert [made.log.count("replay") for made in recording] == [2]


class Careless:
    """Records nothing, and so holds nothing of what the function read."""

    def warm(self, function):
        return function()

    record = warm

    def replay(self):
        pass


def test_rates_that_change_with_every_batch_leave_nothing_behind():
    """The latest are kept, since a run copies nothing from the host, and those that a recording reads."""
    net = PCNetwork(pcgraph.graphs.chain([5, 4, 4, 3]), seed=0)

    def infer(rate, inputs):
        optimizer = SGD({"h1": 0.1, None: rate})
        return net.infer(inputs, init=Forward(), steps=3, optimizer=optimizer).energy

    def rates():
        ((_, programs),) = net.backend._spaces
        return [kept for program in programs.values() for kept in program._rate_sets.values()]

    recorder = Recorder(lambda inputs: infer(0.2, inputs), Careless)
    for _ in range(Recorder.WARM + 1):
        recorder(batch(net))
    recorded = [weakref.ref(tensor) for kept in rates() for tensor in kept.values()]
    assert recorded
    for i in range(50):
        infer(0.2 + 0.001 * (i + 1), batch(net))
    assert rates()
    assert all(len(kept) == traits_of("cpu").rate_sets for kept in rates())
    assert all(tensor() is not None for tensor in recorded)
    assert not any(tensor() is kept for tensor in recorded for one in rates() for kept in one.values())
    del recorder
    assert all(tensor() is None for tensor in recorded)


def test_a_bank_in_another_place_is_recorded_anew(recording):
    """Loading makes new buffers; a recording reads where the old ones were."""
    net, init = PCNetwork(pcgraph.graphs.chain([5, 6, 3]), seed=0), Average(by=None, classes=2)
    kw = {"init": init, "steps": 2, "optimizer": SGD(0.1), "labels": torch.tensor([0, 1, 0, 1])}
    net.infer(batch(net), **kw).backward()
    for _ in range(5):
        net.infer(batch(net), capture="auto", **kw)
    net.infer(batch(net), **kw).backward()  # means are kept in place
    net.infer(batch(net), capture="auto", **kw)
    assert [made.log.count("replay") for made in recording] == [3]
    old = dict(init.named_buffers())
    init.load_state_dict({name: value.clone() for name, value in init.state_dict().items()})
    assert all(old[name].data_ptr() != buffer.data_ptr() for name, buffer in init.named_buffers())
    net.infer(batch(net), capture="auto", **kw)
    assert [made.log.count("replay") for made in recording] == [3, 0]


class Kept(pcgraph.Initializer):
    """Starts from one value, which it keeps in a tensor; all of them share a plan."""

    capturable = True
    plan_key = "kept"

    def __init__(self, value):
        super().__init__()
        self.register_buffer("value", torch.tensor(value))

    def requirement(self, report):
        return report.verdicts["zero"]

    def init(self, block, out, context):
        out.copy_(self.value)


def test_initializers_that_share_a_plan_share_no_recording(recording):
    """A recording reads what the initializer of its first call keeps; that of a later one keeps something else."""
    net = PCNetwork(pcgraph.graphs.chain([5, 6, 3]), seed=0)
    kw, inits = {"steps": 2, "optimizer": SGD(0.1)}, (Kept(0.25), Kept(-0.5))
    for init in (*inits[:1] * 5, *inits[1:] * 5, *inits):
        one = net.infer(batch(net), init=init, capture="auto", **kw).states["h1"]
        assert torch.equal(one, net.infer(batch(net), init=init, **kw).states["h1"])
    assert "replay" in recording[0].log


def test_scratch_that_was_recorded_is_not_given_back(recording):
    """Weight gradients that are first asked for after the recording gather more signals than inference does."""
    net = PCNetwork(pcgraph.graphs.random_groups(12, 4, 3, seed=0))
    clamps = {v: torch.randn(3, *net.structure.shape(v)) for v in [*list(net.graph)[:5], "x", "y"]}
    kw = {"init": Forward(fallback=Zero()), "steps": 3, "optimizer": SGD(0.1), "capture": "auto"}
    for _ in range(4):
        net.infer(clamps, **kw)
    ((ws, _),) = net.backend._spaces
    recorded = {name: weakref.ref(flat) for name, flat in ws._scratch.items()}
    assert recording[0].log[-1] == "replay"
    net.infer(clamps, **kw).accumulate()
    assert any(ws._scratch[name] is not flat() for name, flat in recorded.items()), "nothing has grown"
    assert all(flat() is not None for flat in recorded.values())


def test_class_means_are_captured_once_they_are_complete(recording):
    """Labels come in through a tensor, and the bank stays where it is."""
    nets = []
    for capture in (False, "auto"):
        net = PCNetwork(pcgraph.graphs.chain([5, 6, 6, 3], activation="tanh"), seed=0)
        init = Average(by=None, classes=3)
        for i in range(8):
            labels = torch.randint(0, 3, (12,), generator=torch.Generator().manual_seed(i))
            labels[:3] = torch.arange(3)
            net.infer(
                batch(net, 12, seed=i), init=init, steps=2, optimizer=SGD(0.1), labels=labels, capture=capture
            ).backward()
        nets.append((init.state_dict(), [p.grad for p in net.parameters()]))
    assert recording[-1].log.count("replay") == 4
    for name, bank in nets[0][0].items():
        assert torch.equal(bank, nets[1][0][name])
    for one, other in zip(nets[0][1], nets[1][1]):
        assert torch.equal(one, other)


def test_fit_replays_between_measured_steps(recording):
    """A training by replays ends with the weights of one without; where inference alone is, measured steps are not."""
    trained = []
    for capture in (False, "auto"):
        net = PCNetwork(pcgraph.graphs.chain([5, 6, 6, 3], activation="tanh"), seed=0)
        loader = [tuple(batch(net, seed=i).values()) for i in range(10)]
        pcgraph.fit(
            net, loader, init=Forward(), steps=3, state_optimizer=SGD(0.1), epochs=2, progress=False, measure_every=4,
            optimizer=torch.optim.AdamW(net.parameters(), lr=0.01), capture=capture,
        )  # fmt: skip
        trained.append([p.detach().clone() for p in net.parameters()])
    for one, other in zip(*trained):
        assert torch.equal(one, other)
    # Of ten steps the 2nd, 4th, 6th and 8th are not measured; these and the last are not traced, and replayed, and all
    # but these predict. Three come before a recording.
    assert sorted(made.log.count("replay") for made in recording) == [10 - 3, 12 - 3]


# -- what can be captured ---------------------------------------------------------------------------------------------


def planned(init=None, graph=None, device="cuda", all_move=False):
    """A network, a plan for it, and a device that is not there: plans hold no tensors."""
    net = PCNetwork(pcgraph.graphs.chain([5, 6, 3]) if graph is None else graph)
    plan = net.plan({"x", "y"}, init=init or Forward(), steps=2)
    request = replace(plan.request, all_move=all_move)
    return net, pcgraph.plan.make_plan(net.structure, request, plan.layout), torch.device(device)


class Own(pcgraph.optimizers.StateOptimizer):
    def step(self, state, grad, memory):
        state.sub_(grad, alpha=0.1 if float(grad.sum()) > 0 else 0.2)


def own_energy():
    class Mine(pcgraph.energies.Energy):
        def energy(self, h, mu):
            return (h - mu).abs().flatten(1).sum(1)

    graph = pcgraph.graphs.chain([5, 6, 3])
    graph.nodes["h1"]["energy"] = Mine()
    return graph


def own_activation(attributes):
    graph = pcgraph.graphs.chain([5, 6, 3])
    attributes(graph)["activation"] = lambda a: a if float(a.sum()) > 0 else -a
    return graph


def own_module():
    graph = pcgraph.graphs.chain([5, 6, 3])
    graph.edges["x", "h1"]["transform"] = torch.nn.Linear(5, 6)
    return graph


def clamped(**masked):
    return Clamps(4, {}, masked)


@pytest.mark.parametrize(
    ("made", "clamps", "motion", "options", "reason"),
    [
        (planned(), clamped(), Motion(SGD(0.1)), Options(), None),
        (planned(init=Zero()), clamped(), Motion(Adam(0.1)), Options(), None),
        (planned(device="cpu"), clamped(), Motion(SGD(0.1)), Options(), "only CUDA"),
        (planned(), clamped(x=(torch.zeros(1), torch.ones(1) > 0)), Motion(SGD(0.1)), Options(), "partial"),
        (planned(), clamped(), Motion(SGD(0.1)), Options(trace=True), "trace"),
        (planned(), clamped(), Motion(SGD(0.1), nudges={1: (torch.zeros(1), 1.0)}), Options(), "nudges"),
        (planned(all_move=True), clamped(), Motion(SGD(0.1)), Options(), "incremental"),
        (planned(), clamped(), Motion(Own(0.1)), Options(), "Own"),
        (planned(init=Normal()), clamped(), Motion(SGD(0.1)), Options(), "Normal"),
        (planned(graph=own_module()), clamped(), Motion(SGD(0.1)), Options(), "module"),
        (planned(graph=own_energy()), clamped(), Motion(SGD(0.1)), Options(), "Mine"),
        (planned(graph=own_activation(lambda g: g.nodes["h1"])), clamped(), Motion(SGD(0.1)), Options(), "activation"),
        (planned(graph=own_activation(lambda g: g.edges["h1", "y"])), clamped(), Motion(), Options(), "activation"),
    ],
)  # fmt: skip
def test_what_stands_in_the_way(monkeypatch, made, clamps, motion, options, reason):
    """What decides by values, or draws anew, must not be frozen into a recording."""
    net, plan, device = made
    monkeypatch.setattr(PCNetwork, "device", device)
    found = obstacle(net.backend, net, plan, clamps, motion, options)
    assert found is None if reason is None else reason in found


def test_capture_on_a_cpu():
    """ "auto" runs as ever; True says why it cannot."""
    net = PCNetwork(pcgraph.graphs.chain([5, 6, 3]))
    kw = {"init": Forward(), "steps": 2, "optimizer": SGD(0.1)}
    assert torch.equal(net.infer(batch(net), capture="auto", **kw).energy, net.infer(batch(net), **kw).energy)
    with pytest.raises(ConfigError, match="only CUDA records"):
        net.infer(batch(net), capture=True, **kw)
    with pytest.raises(ConfigError, match="True, False or 'auto'"):
        net.infer(batch(net), capture="yes", **kw)


@pytest.mark.parametrize("capture", [True, "yes"])
@pytest.mark.parametrize("rule", [pcgraph.learning.Standard(), pcgraph.learning.Nudged()], ids=repr)
def test_fit_refuses_before_it_begins(capture, rule):
    """Its first step is measured, and would run as it is and move the weights."""
    net = PCNetwork(pcgraph.graphs.chain([5, 6, 3]), seed=0)
    before = [p.detach().clone() for p in net.parameters()]
    with pytest.raises(ConfigError, match="capture"):
        pcgraph.fit(
            net, [tuple(batch(net).values())] * 3, init=Forward(), steps=2, state_optimizer=SGD(0.1), rule=rule,
            optimizer=torch.optim.SGD(net.parameters(), lr=0.1), progress=False, capture=capture,
        )  # fmt: skip
    assert all(torch.equal(one, other) for one, other in zip(before, net.parameters()))


def test_fit_refuses_to_capture_another_rule(monkeypatch):
    """On a GPU, too, True says what is not captured."""
    net = PCNetwork(pcgraph.graphs.chain([5, 6, 3]))
    monkeypatch.setattr(PCNetwork, "device", torch.device("cuda"))
    settings = {"rule": pcgraph.learning.Incremental(), "optimizer": torch.optim.SGD(net.parameters(), lr=0.1)}
    with pytest.raises(ConfigError, match=r"with the rule Standard \(found Incremental\)"):
        pcgraph.fit(net, [], init=Forward(), steps=2, state_optimizer=SGD(0.1), capture=True, **settings)


# -- nothing waits for the device -------------------------------------------------------------------------------------


def neurons():
    graph = pcgraph.graphs.random_groups(40, 1, 3, seed=0)
    graph.add_edge("x", "y")
    return graph


@pytest.mark.parametrize(
    ("graph", "init", "optimizer"),
    [
        (pcgraph.graphs.chain([5, 6, 6, 3], activation="gelu"), Forward(), SGD(0.1)),
        (pcgraph.graphs.chain([5, 6, 6, 3], activation="gelu"), Forward(), SGD({"h1": 0.1, None: 0.01})),
        (pcgraph.graphs.random_groups(12, 4, 3, seed=0), Forward(fallback=Zero()), SGD(0.1, 0.9)),
        (neurons(), Forward(fallback=Zero()), Adam(0.01)),
        (pcgraph.graphs.chain([4] * 9, activation="tanh"), Zero(), SGD(0.1)),
    ],
)
def test_a_step_never_waits_for_the_device(graph, init, optimizer):
    """One wait a step, and a GPU idles for as long as Python takes."""
    net = PCNetwork(graph)
    nodes = list(net.graph) if len(net.graph) == 9 else ["x", "y"]
    clamps = {v: torch.randn(3, *net.structure.shape(v)) for v in nodes if v != "h3"}
    kw = {"init": init, "steps": 4, "optimizer": optimizer, "check": False}
    for _ in range(2):  # constants are brought to the device once
        net.infer(clamps, **kw).accumulate()
    for grads in ("kept", "new"):
        if grads == "new":
            net.zero_grad()
        with NoWaiting():
            net.infer(clamps, **kw).accumulate()
    with pytest.raises(AssertionError, match="waits"), NoWaiting():
        net.infer(clamps, **{**kw, "check": True})


def test_out_of_memory_says_what_was_needed(monkeypatch):
    """The plan knows, and advises; the estimate is data on the exception."""
    net = PCNetwork(pcgraph.graphs.chain([5, 6, 3]))
    kw = {"init": Forward(), "steps": 1, "optimizer": SGD(0.1)}

    def full(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(TorchProgram, "start", full)
    with pytest.raises(OutOfMemory, match="smaller batch") as caught:
        net.infer(batch(net), **kw)
    assert caught.value.estimate == net.plan({"x", "y"}, init=kw["init"], steps=1, optimizer=kw["optimizer"]).memory(4)
    with pytest.raises(OutOfMemory, match="smaller batch"):
        net.predict({"x": batch(net)["x"]}, "y")
