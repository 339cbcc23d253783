"""The whole training step as a recording, in fit. Oracle: the same run without one, to the last bit."""

from __future__ import annotations

import weakref
from contextlib import nullcontext
from copy import deepcopy
from functools import partial

import pytest
import torch

import pcgraph
from pcgraph import SGD, Adam, Average, Following, Forward, Memory, Normal, Null, PCNetwork, PerNode, Zero
from pcgraph.backends.torch.workspace import Workspace
from pcgraph.data import Images
from pcgraph.errors import ClampError, ConfigError, Diverged, PCGraphWarning
from pcgraph.inference import Recorder
from pcgraph.training import step_recording
from tests.builders import timeless
from tests.replayed import NoWaiting, Replayed, stand_in

STEPS = 12


class OfSteps(Replayed):
    """Told apart from recordings of predictions and of inference alone."""

    made = []  # noqa: RUF012


@pytest.fixture
def recording(monkeypatch):
    """Every step that the rules admit is recorded, on a CPU; returns the list of what records steps."""
    stand_in(monkeypatch)
    OfSteps.made.clear()
    monkeypatch.setattr(step_recording, "_Part", partial(step_recording._Part, graph=OfSteps))
    return OfSteps.made


@pytest.fixture
def workspaces(monkeypatch):
    """Whatever records makes no workspace; returns a list that grows by each that is made elsewhere."""
    made, record = [], Replayed.record

    def watched(self, function):
        before = len(made)
        found = record(self, function)
        assert len(made) == before
        return found

    class Counted(Workspace):
        def __init__(self, *arguments):
            made.append(1)
            super().__init__(*arguments)

    monkeypatch.setattr(Replayed, "record", watched)
    monkeypatch.setattr("pcgraph.backends.torch.backend.Workspace", Counted)
    return made


def batches(count=STEPS, size=6, short=()):
    """Batches with classes as one-hot targets, those of `short` smaller."""
    generator = torch.Generator().manual_seed(0)
    sizes = [size - 2 if i in short else size for i in range(count)]
    return [(torch.randn(n, 5, generator=generator), torch.eye(3)[torch.arange(n) % 3]) for n in sizes]


class Endless(list):
    """A loader that does not say how long it is, so that its last step is one like the others."""

    def __len__(self):
        raise TypeError


def adamw(parameters, lr=0.01):
    return torch.optim.AdamW(parameters, lr=lr, fused=True, capturable=True)


def train(capture, init=Forward, optimizer=adamw, loader=None, scheduler=None, **more):
    """(everything that a run moves, its history, the network)."""
    net = PCNetwork(pcgraph.graphs.chain([5, 6, 6, 3], activation="tanh"), seed=0)
    start, moves = init() if isinstance(init, type) else init(net), optimizer(net.parameters())
    history = pcgraph.fit(
        net, batches() if loader is None else loader, optimizer=moves, capture=capture,
        **({} if scheduler is None else {"scheduler": scheduler(moves)}),
        **{"init": start, "steps": 3, "state_optimizer": SGD(0.1), "progress": False, **more},
    )  # fmt: skip
    return state_of(net, start, moves), history, net


def state_of(net, init, optimizer):
    found = {f"net.{k}": v.detach().clone() for k, v in net.state_dict().items()}
    found |= {f"init.{k}": v.clone() for k, v in init.state_dict().items()}
    for i, state in optimizer.state_dict()["state"].items():
        found |= {f"optimizer.{i}.{k}": v.clone() for k, v in state.items() if v is not None}
    return found


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def replays(recording):
    return sum(made.log.count("replay") for made in recording)


OPTIMIZERS = {
    "adamw": adamw,
    "adamw, rate in a tensor": lambda p: adamw(p, torch.tensor(0.01)),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "fused sgd, rate in a tensor": lambda p: torch.optim.SGD(p, lr=torch.tensor(0.05), momentum=0.5, fused=True),
}
# A run's first step is no part of a recording, and some come before it.
LEFT = STEPS - 1 - Recorder.WARM


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_step_is_one_recording_or_two_with_a_look_between_them(recording, optimizer, check):
    """Weights and the optimizer's state are those of a run without recordings."""
    kw = {"optimizer": OPTIMIZERS[optimizer], "check": check, "epochs": 2}
    plain, without, _ = train(False, **kw)
    assert Replayed.made == recording == []
    found, history, _ = train(True, **kw)
    assert_same(found, plain)
    assert [step.energy for step in history.steps] == [step.energy for step in without.steps]
    assert [step.lr for step in history.steps] == [step.lr for step in without.steps]
    assert len(recording) == (2 if check else 1)
    assert [made.log for made in recording] == [["warm"] * 3 + ["record"] + ["replay"] * (LEFT + STEPS)] * len(
        recording
    )


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize(
    "init",
    [
        Average, Null, Zero, Forward, lambda net: Average(by=None, classes=3, forward_depth=1),
        lambda net: PerNode({"h1": Zero()}, default=Average()), lambda net: Null(first=Forward(fallback=Zero())),
    ],
)  # fmt: skip
def test_what_initializers_remember_is_recorded(recording, init, check):
    """Banks and states are kept in place, so that the next replay reads what the last one left."""
    labelled = [(x, y, y.argmax(1)) for x, y in batches()]
    kw = {"init": init, "check": check, "loader": labelled, "epochs": 2}
    plain, _, _ = train(False, **kw)
    found, _, _ = train("auto", **kw)
    assert_same(found, plain)
    assert [made.log.count("replay") for made in recording] == [LEFT + STEPS] * (2 if check else 1)


@pytest.mark.parametrize("states", [SGD(0.05, 0.9), Adam(0.02), SGD({"h1": 0.1, None: 0.02})], ids=repr)
def test_state_optimizers_are_recorded(recording, states):
    """What they keep from step to step begins anew with every replay."""
    kw = {"state_optimizer": states, "check": False}
    assert_same(train("auto", **kw)[0], train(False, **kw)[0])
    assert replays(recording) == LEFT


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("every", [1, 3])
def test_a_rate_that_follows_is_measured_between_replays(recording, check, every):
    """A recording reads the rate where it lies, and counts and measures as runs without one do."""
    rates, ends, seen = [], [], []
    for capture in ("auto", False):
        rate = Following(5.0, every=every)
        found, history, _ = train(capture, state_optimizer=SGD(rate), check=check, epochs=2)
        ends.append(found)
        rates.append((rate.rate, rate.curvature))
        seen.append([step.curvature for step in history.steps])
        assert 0 < rate.rate < 5.0
    assert_same(*ends)
    assert rates[0] == rates[1]
    assert seen[0] == seen[1]
    assert len(set(seen[0])) > 1
    assert replays(recording) == (LEFT + STEPS) * (2 if check else 1)


@pytest.mark.filterwarnings("ignore:the run has fallen over")
@pytest.mark.parametrize("check", [True, False])
def test_a_batch_of_another_shape_runs_as_it_is(recording, check):
    """The last one of an epoch is smaller; the recording stays, and goes on with the next epoch."""
    kw = {"loader": Endless(batches(10, short=(9,))), "check": check, "epochs": 3, "measure_every": 50}
    found, history, _ = train("auto", **kw)
    assert_same(found, train(False, **kw)[0])
    assert [epoch.samples for epoch in history.epochs] == [58] * 3
    assert [made.log.count("replay") for made in recording] == [27 - 1 - Recorder.WARM] * (2 if check else 1)


@pytest.mark.parametrize("check", [True, False])
def test_the_usual_batch_is_recorded_where_another_comes_first(recording, check):
    """An epoch that is resumed near its end begins with the smaller batch."""
    kw = {"loader": Endless(batches(14, short=(1,))), "check": check}
    assert_same(train("auto", **kw)[0], train(False, **kw)[0])
    # The second step is of the smaller batch, the third of the usual one as often: from the fourth on it is recorded.
    kept = recording[-(2 if check else 1) :]
    assert [made.log for made in kept] == [["warm"] * 3 + ["record"] + ["replay"] * 8] * len(kept)


@pytest.mark.filterwarnings("ignore:inference increased the energy")
@pytest.mark.parametrize("check", [True, False])
def test_what_measured_steps_tell_is_the_same(recording, check):
    """Energies, accuracies, rates and warnings are those of a run without recordings."""
    kw = {
        "state_optimizer": SGD(3.0), "check": check, "epochs": 2, "validate": batches(9),
        "optimizer": OPTIMIZERS["adamw, rate in a tensor"],
    }  # fmt: skip
    plain, found = (train(capture, **kw) for capture in (False, True))
    assert_same(found[0], plain[0])
    assert any("inference increased the energy" in text for text in plain[1].warnings)
    assert timeless(found[1]) == timeless(plain[1])


def test_small_gradients_are_told_of_a_replay_as_well(recording):
    """The early layers of a run from a sweep may learn nothing, recorded or not."""
    kw = {"state_optimizer": SGD(1e-4), "check": False, "epochs": 2}
    told = []
    for capture in (False, True):
        with pytest.warns(PCGraphWarning, match="gradients are below the optimizer's eps|gets no signal"):
            told.append(train(capture, **kw)[1].warnings)
    assert told[0] == told[1]


def test_a_rate_that_is_a_number_is_recorded_anew_when_it_changes(recording):
    """A recording of the last epoch's rate would train on with it."""

    def halved(optimizer):
        return torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5)

    kw = {"scheduler": halved, "epochs": 4, "check": False}
    assert_same(train(True, **kw)[0], train(False, **kw)[0])
    assert [made.log.count("replay") for made in recording] == [LEFT + STEPS, 2 * STEPS - Recorder.WARM]


def test_a_rate_in_a_tensor_moves_in_every_step(recording):
    """Replays read it where it lies."""
    kw = {
        "scheduler": lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.8), "scheduler_each": "step",
        "optimizer": OPTIMIZERS["adamw, rate in a tensor"], "check": False,
    }  # fmt: skip
    found, history, _ = train(True, **kw)
    plain, without, _ = train(False, **kw)
    assert_same(found, plain)
    assert [step.lr for step in history.steps] == [step.lr for step in without.steps]
    assert replays(recording) == LEFT


def of_images():
    """Batches of the library's own, the last one smaller."""
    pixels = torch.randn(130, 5, generator=torch.Generator().manual_seed(0))
    return Images(pixels, torch.arange(130) % 3).batches(6, seed=0)


@pytest.mark.parametrize("loader", [batches, of_images])
@pytest.mark.parametrize("what", ["optimizer", "initializer", "frozen", "weights", "states", "forgotten"])
def test_what_validation_puts_in_another_place_is_recorded_anew(recording, what, loader):
    """A replay would go on with the old tensors, and the run with the new ones."""

    def run(capture):
        net = PCNetwork(pcgraph.graphs.chain([5, 6, 6, 3], activation="tanh"), seed=0)
        init, optimizer, states = Average(), adamw(net.parameters()), SGD(0.1)

        def validate(net):
            if what == "optimizer":
                optimizer.load_state_dict(deepcopy(optimizer.state_dict()))
            elif what == "initializer":
                init.load_state_dict({k: v / 2 if v.is_floating_point() else v for k, v in init.state_dict().items()})
            elif what == "states":
                states.lr /= 2
            elif what == "forgotten":
                init.forget()
            elif what == "frozen":
                next(net.parameters()).requires_grad_(False)
            else:
                for parameter in net.parameters():
                    parameter.data = parameter.data / 2
            return 0.0

        pcgraph.fit(
            net, loader(), init=init, steps=3, optimizer=optimizer, state_optimizer=states, progress=False,
            capture=capture, check=False, epochs=3, validate=validate,
        )  # fmt: skip
        return state_of(net, init, optimizer)

    assert_same(run("auto"), run(False))
    assert replays(recording) > 0


@pytest.mark.parametrize("scheduler_each", ["epoch", "step"])
def test_what_was_decided_is_looked_at_where_somebody_could_have_changed_it(recording, monkeypatch, scheduler_each):
    """With the library's own batches nobody can between two steps, but for a scheduler; a loader of yours can."""
    looks, decided = [], step_recording.StepRecording._decided
    monkeypatch.setattr(step_recording.StepRecording, "_decided", lambda self: looks.append(1) or decided(self))
    kw = {"epochs": 2, "check": False, "curvature_every": 10**6, "scheduler_each": scheduler_each, "init": Average,
          "optimizer": OPTIMIZERS["adamw, rate in a tensor"], "scheduler": exponential}  # fmt: skip
    plain, _, _ = train(False, loader=of_images(), **kw)
    found, history, _ = train("auto", loader=of_images(), **kw)
    assert_same(found, plain)
    steps, seen = history.epochs[-1].step, len(looks)
    looks.clear()
    train("auto", loader=list(of_images()), **kw)
    assert len(looks) >= steps - 1
    assert (seen < len(looks) - steps / 3) == (scheduler_each == "epoch")


@pytest.mark.filterwarnings("ignore:the run has fallen over")
@pytest.mark.parametrize("check", [True, False])
def test_a_recording_takes_buffers_that_have_run(recording, workspaces, check):
    """New ones bring indices to the device, which no graph can record; validation may have taken the idle ones away."""
    train("auto", loader=Endless(batches()), measure_every=50, check=check)
    assert replays(recording) > 0
    assert len(workspaces) == 1, "the accuracy and the steps take turns"
    sizes = [(torch.randn(n, 5), torch.arange(n) % 3) for n in (2, 3, 4)]
    train("auto", loader=Endless(batches(4)), measure_every=50, validate=sizes, epochs=3, check=check)


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("init", [Average, Forward, Zero])
def test_what_is_measured_beside_a_step_is_recorded_too(recording, workspaces, init, check):
    """Accuracy, both energies and the curvature are to the last bit what they are without, by recordings of their own.

    They take no buffers that other recordings have run on, and make none while they record.
    """
    kw = {
        "init": init, "loader": batches(16, short=(15,)), "epochs": 3, "measure_every": 2, "curvature_every": 4,
        "check": check, "validate": [(torch.randn(n, 5), torch.arange(n) % 3) for n in (2, 6, 4)],
    }  # fmt: skip
    plain, without, _ = train(False, **kw)
    assert Replayed.made == []
    found, history, _ = train("auto", **kw)
    assert_same(found, plain)
    beside = [made for made in Replayed.made if made not in recording and "replay" in made.log]
    measured = [tuple(getattr(step, name) for name in ("energy", "accuracy", "curvature")) for step in history.steps]
    assert measured == [tuple(getattr(s, name) for name in ("energy", "accuracy", "curvature")) for s in without.steps]
    assert sum(step.curvature is not None for step in history.steps) >= 4
    assert history.warnings == without.warnings
    own = [made.log for made in beside if made.log[:2] == ["warm", "record"]]  # the others are of evaluations
    assert len(own) == 4, "hits, the energies at both ends, and the curvature"
    assert all(log.count("replay") >= 2 for log in own)


def test_a_prediction_in_a_recording_has_its_buffers_to_itself(monkeypatch):
    """A replay writes there, so that they must neither be another run's nor be gone."""
    stand_in(monkeypatch)
    net = PCNetwork(pcgraph.graphs.chain([5, 6, 6, 3]), seed=0)
    x, y = batches(1)[0]
    recorder = Recorder(lambda inputs: net.predict(inputs, "y"))
    for _ in range(Recorder.WARM + 1):
        found = recorder({"x": x})
    kept = net.infer({"x": -x, "y": y}, init=Forward(), steps=2, optimizer=SGD(0.1))
    states = {v: h.clone() for v, h in kept.states.items()}
    for n in range(1, 9):  # more than wait for the next run
        net.predict({"x": torch.randn(n, 5)}, "y")
    assert torch.equal(recorder({"x": x}), found)
    assert all(torch.equal(h, kept.states[v]) for v, h in states.items())
    space = next(thing.ws for thing in recorder._kept if hasattr(thing, "ws"))
    assert space.taken
    recorder.forget()
    assert not space.taken


def test_the_gradients_that_are_left_are_those_of_the_step(recording):
    """Not of the last step without a recording."""
    kw = {"loader": Endless(batches()), "check": False, "measure_every": 9}
    left = [[p.grad for p in train(mode, **kw)[2].parameters()] for mode in (False, "auto")]
    assert replays(recording) > 0
    for one, other in zip(*left):
        assert torch.equal(one, other)


# -- what goes wrong --------------------------------------------------------------------------------------------------


def spoiled(at, value):
    """Batches of which one has a value that spoils it."""
    found = batches(20)
    found[at][0][0, 0] = value
    return found


def relus():
    return PCNetwork(pcgraph.graphs.chain([5, 6, 6, 3], activation="relu"), seed=0)


@pytest.mark.parametrize("init", [Forward, Average, Null])
def test_a_step_that_diverges_changes_nothing(recording, tmp_path, init):
    """Weights, optimizer and initializer are those before it, and are saved so; the error says where it broke."""
    found, errors = [], []
    for mode in (False, True):
        net, start = relus(), init()
        optimizer = adamw(net.parameters())
        with pytest.raises(Diverged) as caught:
            pcgraph.fit(
                net, spoiled(15, 1e30), init=start, steps=3, optimizer=optimizer, state_optimizer=SGD(0.1),
                progress=False, capture=mode, checkpoint=tmp_path / str(mode),
            )  # fmt: skip
        found.append(state_of(net, start, optimizer))
        errors.append(caught.value)
        saved = pcgraph.load(tmp_path / str(mode))
        assert saved.step == 15
        assert all(torch.equal(v, net.state_dict()[k]) for k, v in saved.state("network").items())
    assert_same(*found)
    assert replays(recording) > 0, "the step before was no replay"
    assert str(errors[0]) == str(errors[1])
    assert [(e.step, e.node) for e in errors] == [(errors[0].step, errors[0].node)] * 2
    assert all("as it was after training step 15" in e.__notes__[0] for e in errors)
    assert all(t.isfinite().all() for t in found[1].values())


def test_a_clamp_that_is_not_finite_is_refused(recording):
    """As without a recording: before anything runs."""
    for mode in (False, "auto"):
        with pytest.raises(ClampError, match="clamp of 'x' must be finite") as caught:
            train(mode, loader=spoiled(15, float("nan")))
        assert len(caught.value.history.steps) == 4
    assert replays(recording) > 0


def test_without_a_check_the_next_measured_step_tells(recording):
    """The weights may be damaged by then, as fit says."""
    with pytest.raises(Diverged, match="it was not looked at in every step"):
        train("auto", loader=spoiled(15, float("nan")), check=False)
    assert replays(recording) > 0


@pytest.mark.parametrize(("check", "part", "whole"), [(True, 0, True), (True, 1, False), (False, 0, False)])
def test_an_error_in_a_replay_is_saved_where_nothing_has_moved(recording, monkeypatch, tmp_path, check, part, whole):
    """Inference moves nothing that a checkpoint holds; what follows it may have moved a part."""
    replay = Replayed.replay

    def broken(self):
        if self.log.count("replay") and self is OfSteps.made[part]:
            raise RuntimeError("lost")
        replay(self)

    monkeypatch.setattr(Replayed, "replay", broken)
    with pytest.raises(RuntimeError, match="lost") as caught:
        train("auto", check=check, checkpoint=tmp_path)
    says = "as it was after training step 5" if whole else "in the middle of an update"
    assert says in caught.value.__notes__[0]
    assert pcgraph.load(tmp_path).step == (5 if whole else 0)


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("optimizer", ["adamw, rate in a tensor", "momentum"])
def test_a_run_is_resumed_to_the_same_bits(recording, tmp_path, optimizer, check):
    """Checkpoints hold what replays have moved, and a resumed run records what it has loaded."""

    def run(**more):
        kw = {"optimizer": OPTIMIZERS[optimizer], "init": Average, "check": check, "epochs": 3}
        each = {"scheduler": lambda moves: torch.optim.lr_scheduler.StepLR(moves, 1, gamma=0.5)}
        return train("auto", **kw | each | more)[0]

    class Stopped(Exception):
        pass

    class Broken(list):
        def __iter__(self):
            yield from self[:9]
            raise Stopped

    whole = run()
    with pytest.raises(Stopped):
        run(loader=Broken(batches()), checkpoint=tmp_path)
    before = replays(recording)
    assert_same(run(resume=tmp_path, checkpoint=tmp_path), whole)
    assert replays(recording) > before


def test_the_recording_ends_with_the_run(recording):
    """Its memory on the device is free again at once, and not when Python collects."""
    train("auto", check=False)
    graph = weakref.ref(recording.pop())
    assert recording == []
    assert graph() is None


# -- what stands in the way -------------------------------------------------------------------------------------------


class Hooked(torch.optim.SGD):
    pass


def hooked(parameters):
    optimizer = torch.optim.SGD(parameters, lr=0.05)
    optimizer.register_step_pre_hook(lambda *arguments: None)
    return optimizer


def cycle(optimizer):
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=100)


def exponential(optimizer):
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"optimizer": lambda p: torch.optim.AdamW(p, lr=0.01)}, r"needs capturable=True.*\(found AdamW without it\)"),
        ({"optimizer": lambda p: torch.optim.Adagrad(p, lr=0.01)}, r"\(found Adagrad without it\)"),
        ({"optimizer": lambda p: Hooked(p, lr=0.01)}, r"\(found Hooked without it\)"),
        ({"optimizer": hooked}, "step has hooks"),
        ({"optimizer": lambda p: torch.optim.SGD(p, lr=torch.tensor(0.05))}, "needs fused=True"),
        ({"callbacks": lambda record: None}, "callbacks get the result of every step"),
        ({"scheduler": exponential, "scheduler_each": "step"}, "moves the learning rate in every.*lr=torch.tensor"),
        ({"scheduler": cycle, "scheduler_each": "step", "optimizer": OPTIMIZERS["adamw, rate in a tensor"]},
         "cycle_momentum=False"),
        ({"rule": lambda step: pcgraph.learning.Standard()(step)}, r"with the rule Standard \(found <lambda>\)"),
    ],
)  # fmt: skip
def test_what_stands_in_the_way(recording, settings, reason):
    """True refuses before the run begins; "auto" replays the inference alone, and the weights are the same."""
    with pytest.raises(ConfigError, match=f"cannot be captured: .*{reason}"):
        train(True, **settings)
    plain, _, _ = train(False, **settings)
    assert Replayed.made == []
    assert_same(train("auto", **settings)[0], plain)
    assert recording == []
    assert replays(Replayed.made) > 0


@pytest.mark.filterwarnings("ignore:the optimizer does not hold the parameters of Memory")
@pytest.mark.parametrize(
    ("init", "reason"),
    [
        (lambda net: Memory(net, patterns=2, heads=1, embed_dim=2), "does not promise to do the same work"),
        (lambda net: Normal(), "Normal does not promise to do the same work"),
        (lambda net: Average(otherwise=Normal()), "Normal does not promise to remember"),
    ],
)
def test_an_initializer_that_does_not_promise_to_be_recorded(recording, init, reason):
    """A count that is kept in Python would stand still."""
    kw = {"init": init, "check": False}
    with pytest.raises(ConfigError, match=reason):
        train(True, **kw)
    assert_same(train("auto", **kw)[0], train(False, **kw)[0])


def test_a_partial_clamp_is_not_recorded(recording):
    """Its mask is a part of the batch."""
    masked = [{"x": x, "y": pcgraph.Masked(y, torch.rand(y.shape) < 0.7)} for x, y in batches()]
    kw = {"loader": masked}
    with pytest.raises(ConfigError, match="a clamp is partial"):
        train(True, **kw)
    assert_same(train("auto", **kw)[0], train(False, **kw)[0])
    assert replays(recording) == 0


@pytest.mark.parametrize("check", [True, False])
def test_a_switch_of_torchs_that_is_thrown_on_the_way_is_obeyed(recording, check):
    """What was recorded without autocast must not stand for a step under it, nor the other way round."""

    class Throws(Endless):
        def __iter__(self):
            for i, one in enumerate(list.__iter__(self)):
                torch.set_autocast_enabled("cpu", 8 <= i < 16)
                yield one

    kw = {"loader": Throws(batches(24)), "check": check, "measure_every": 100}
    try:
        plain, found = (train(capture, **kw)[0] for capture in (False, True))
    finally:
        torch.set_autocast_enabled("cpu", False)
    assert_same(found, plain)
    assert replays(recording) == (7 - 3 + 8 - 3 + 8 - 3) * (2 if check else 1)


# -- nothing waits for the device -------------------------------------------------------------------------------------


@pytest.mark.parametrize("waits", [False, True])
def test_a_replayed_step_never_waits_for_the_device(recording, waits):
    """One wait a step, and a GPU idles for as long as Python takes. With a check there is one, which is asked for."""
    watching = NoWaiting()
    watching.on = False

    class Watched(Endless):
        def __iter__(self):
            for i, one in enumerate(list.__iter__(self)):
                watching.on = i > Recorder.WARM + 1
                yield one
            watching.on = False

    kw = {
        "loader": Watched(batches(20)), "measure_every": 50, "optimizer": OPTIMIZERS["adamw, rate in a tensor"],
        "scheduler": exponential, "scheduler_each": "step",
    }  # fmt: skip
    with watching, pytest.raises(AssertionError, match="waits") if waits else nullcontext():
        train(True, check=waits, **kw)
    assert replays(recording) == (2 if waits else 16)  # with a check the first replayed step comes before the watch


# -- on a GPU ---------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("init", [Forward, Average, Null])
def test_on_a_gpu_recorded_steps_train_as_others_do(init, check):
    """With torch's own graphs: nothing in a step is forbidden while they record, and replays compute what it would."""
    found = []
    for mode in (False, True):
        net = PCNetwork(pcgraph.graphs.chain([5, 6, 6, 3], activation="tanh"), seed=0, device="cuda")
        pcgraph.fit(
            net, batches(40, short=(39,) if init is not Null else ()), init=init(), steps=3, state_optimizer=SGD(0.1),
            optimizer=adamw(net.parameters(), torch.tensor(0.01, device="cuda")), progress=False, capture=mode,
            check=check, epochs=2, measure_every=10,
        )  # fmt: skip
        found.append([p.detach() for p in net.parameters()])
    for one, other in zip(*found):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
def test_on_a_gpu_a_recorder_notices_that_tf32_was_allowed():
    """A caller's own step in full precision must not go on as it was recorded, nor the other way round."""
    torch.manual_seed(0)
    net = PCNetwork(pcgraph.graphs.chain([256, 256, 256], activation="tanh"), seed=0, device="cuda")
    clamps = {v: torch.randn(64, 256).to("cuda") for v in ("x", "y")}

    def infer(inputs):
        return net.infer(inputs, init=Forward(), steps=3, optimizer=SGD(0.1), check=False)

    recorder, precision = Recorder(infer), torch.get_float32_matmul_precision()
    try:
        for allowed in ("highest", "high", "highest"):
            torch.set_float32_matmul_precision(allowed)
            plain = infer(clamps).states["h1"]
            for _ in range(6):
                found = recorder(clamps).states["h1"]
            assert recorder.recorded
            torch.testing.assert_close(found, plain, rtol=1e-6, atol=1e-6)
    finally:
        torch.set_float32_matmul_precision(precision)


@pytest.mark.gpu
def test_on_a_gpu_measured_steps_and_evaluations_tell_the_same():
    """Energies, accuracies and validation of a recorded run are those of one without, to rounding."""
    found = []
    for mode in (False, True):
        net = PCNetwork(pcgraph.graphs.chain([5, 6, 6, 3], activation="tanh"), seed=0, device="cuda")
        history = pcgraph.fit(
            net, batches(20, short=(19,)), init=Average(), steps=3, state_optimizer=SGD(0.1), epochs=3, progress=False,
            optimizer=adamw(net.parameters()), capture=mode, check=False, measure_every=3, validate=batches(9),
        )  # fmt: skip
        found.append([(record.energy, record.accuracy, *record.validation.values()) for record in history])
    torch.testing.assert_close(torch.tensor(found[0]), torch.tensor(found[1]), rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
def test_on_a_gpu_recorded_inferences_end_as_others_do():
    """With torch's own graph; the third batch is smaller."""
    net = PCNetwork(pcgraph.graphs.chain([5, 6, 6, 3], activation="gelu"), seed=0, device="cuda")
    for x, y in batches(8, short=(2,)):
        clamps, kw = {"x": x.to("cuda"), "y": y.to("cuda")}, {"init": Forward(), "steps": 4, "optimizer": SGD(0.1)}
        states = [net.infer(clamps, capture=mode, **kw).states["h1"] for mode in (False, True)]
        torch.testing.assert_close(*states)
