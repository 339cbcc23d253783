"""Learning rules through fit. Oracles: the loop that one writes by hand with a rule, and the run never stopped."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import pcgraph
from pcgraph import learning
from pcgraph.data import Images
from pcgraph.errors import CheckpointError, ClampError, ConfigError, Diverged, InvalidInitializer, PCGraphWarning
from pcgraph.learning import Backprop, Incremental, InferenceResult, Nudged, Standard, TrainingStep
from pcgraph.training import History, fit
from tests import builders
from tests.builders import same, timeless

GENERATOR = torch.Generator().manual_seed(5)
X, LABELS = torch.randn(24, 4, generator=GENERATOR), torch.arange(24) % 3
Y = torch.eye(3)[LABELS]
BATCHES = [(X[i : i + 6], Y[i : i + 6]) for i in range(0, 24, 6)]
STATES = pcgraph.SGD(lr=0.1)
chain = partial(builders.chain, 4, 6, 5, 3, seed=0)


def train(net: pcgraph.PCNetwork, rule: Any, loader: Any = BATCHES, **more: Any) -> History:
    settings: dict[str, Any] = {"progress": False, "rule": rule}
    if getattr(rule, "infers", True):
        settings |= {"init": pcgraph.Forward(), "steps": 3, "state_optimizer": STATES}
    settings |= more
    if "optimizer" not in settings:
        settings["optimizer"] = torch.optim.AdamW(net.parameters(), lr=0.01)
    return fit(net, loader, **settings)


def numbers(net: pcgraph.PCNetwork, optimizer: torch.optim.Optimizer, init: Any = None) -> dict[str, Tensor]:
    found = {k: v.clone() for k, v in net.state_dict().items()}
    found |= {f"init.{k}": v.clone() for k, v in (init.state_dict() if init else {}).items()}
    for i, state in optimizer.state_dict()["state"].items():
        found |= {f"optimizer.{i}.{k}": v.clone() for k, v in state.items()}
    return found


def signs(step: TrainingStep) -> InferenceResult:
    """A user's rule."""
    result = step.infer()
    result.backward()
    for parameter in step.net.parameters():
        parameter.grad.sign_()
    return result


# -- by hand, the same ------------------------------------------------------------------------------------------------


def by_standard(net: Any, x: Tensor, y: Tensor, init: Any, optimizer: Any) -> Tensor:
    result = net.infer({"x": x, "y": y}, init=init, steps=3, optimizer=STATES)
    optimizer.zero_grad()
    result.backward()
    optimizer.step()
    return result.energy


def by_signs(net: Any, x: Tensor, y: Tensor, init: Any, optimizer: Any) -> Tensor:
    result = net.infer({"x": x, "y": y}, init=init, steps=3, optimizer=STATES)
    optimizer.zero_grad()
    result.backward()
    for parameter in net.parameters():
        parameter.grad.sign_()
    optimizer.step()
    return result.energy


def by_incremental(net: Any, x: Tensor, y: Tensor, init: Any, optimizer: Any) -> Tensor:
    result = learning.incremental(net, {"x": x, "y": y}, init=init, steps=3, optimizer=STATES, weights=optimizer)
    return result.energy


def by_nudging(**settings: Any) -> Callable[..., Tensor]:
    def learn(net: Any, x: Tensor, y: Tensor, init: Any, optimizer: Any) -> Tensor:
        optimizer.zero_grad()
        cost = learning.nudged(net, {"x": x}, {"y": y}, init=init, steps=3, optimizer=STATES, **settings)
        optimizer.step()
        return cost

    return learn


def by_backprop(net: Any, x: Tensor, y: Tensor, init: Any, optimizer: Any) -> Tensor:
    optimizer.zero_grad()
    loss = learning.backprop(net, {"x": x}, {"y": y})
    optimizer.step()
    return loss


RULES: dict[str, tuple[Any, Callable[..., Tensor]]] = {
    "standard": (Standard(), by_standard),
    "incremental": (Incremental(), by_incremental),
    "positive": (Nudged(0.5, "positive"), by_nudging(strength=0.5, sign="positive")),
    "negative": (Nudged(0.2, "negative"), by_nudging(strength=0.2, sign="negative")),
    "centred": (Nudged(), by_nudging()),
    "backprop": (Backprop(), by_backprop),
    "a user's": (signs, by_signs),
}


@pytest.mark.parametrize("name", RULES)
def test_fit_with_a_rule_is_the_loop_that_one_writes_by_hand(name: str) -> None:
    """Measuring, validating and watching change nothing of what is learned."""
    rule, by_hand = RULES[name]
    one, two = chain(), chain()
    optimizers = [torch.optim.AdamW(net.parameters(), lr=0.01) for net in (one, two)]
    history = train(one, rule, epochs=3, validate=BATCHES, optimizer=optimizers[0])
    init, energies, accuracies = pcgraph.Forward(), [], []
    for _ in range(3):
        for x, y in BATCHES:
            accuracies.append(float((two.predict({"x": x}, "y").argmax(1) == y.argmax(1)).float().mean()))
            energies.append(float(by_hand(two, x, y, init, optimizers[1]).mean()))
    assert same(numbers(one, optimizers[0]), numbers(two, optimizers[1]))
    assert [r.energy for r in history.steps] == energies
    assert [r.accuracy for r in history.steps] == pytest.approx(accuracies)
    assert (history.stopped, len(history), history.warnings) == ("finished", 3, [])


@pytest.mark.parametrize("name", RULES)
def test_every_rule_learns(name: str) -> None:
    """A rule wired to the wrong node, or with the wrong sign, still runs."""
    net = chain()
    more = {"steps": 12} if getattr(RULES[name][0], "infers", True) else {}
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    before = pcgraph.evaluate(net, BATCHES).energy
    train(net, RULES[name][0], epochs=20, optimizer=optimizer, **more)
    assert pcgraph.evaluate(net, BATCHES).energy < 0.7 * before


@pytest.mark.parametrize("name", ["incremental", "positive", "negative", "centred"])
def test_null_goes_from_batch_to_batch_under_every_rule(name: str) -> None:
    """What it keeps is what the rule's last phase left, once a batch."""
    rule, by_hand = RULES[name]
    one, two = chain(), chain()
    optimizers = [torch.optim.AdamW(net.parameters(), lr=0.01) for net in (one, two)]
    inits = [pcgraph.Null(first=pcgraph.Zero()) for _ in range(2)]
    train(one, rule, init=inits[0], epochs=2, optimizer=optimizers[0])
    for _ in range(2):
        for x, y in BATCHES:
            by_hand(two, x, y, inits[1], optimizers[1])
    assert inits[0].state_dict()
    assert same(numbers(one, optimizers[0], inits[0]), numbers(two, optimizers[1], inits[1]))


def test_the_phase_that_is_remembered_is_the_free_one() -> None:
    """And where there is none, the one towards the target."""
    for sign, nudge in (("positive", 0.0), ("negative", 0.0), ("centred", 0.5)):
        net, init = chain(), pcgraph.Null(first=pcgraph.Zero())
        y = net.structure.number["y"]
        motion = pcgraph.backends.Motion(STATES, nudges={y: (Y[:6], nudge)})
        expected = net.run(
            {"x": X[:6]}, init=pcgraph.Zero(), steps=3, labels=None, motion=motion, options=pcgraph.inference.Options()
        ).states
        learning.nudged(net, {"x": X[:6]}, {"y": Y[:6]}, strength=0.5, sign=sign, init=init, steps=3, optimizer=STATES)
        kept = net.infer({"x": X[:6]}, init=init, steps=0).states
        for node in ("h1", "h2", "y"):
            assert torch.equal(kept[node], expected[node]), (sign, node)


@pytest.mark.parametrize("sign", ["positive", "negative", "centred"])
def test_the_cost_of_nudging_is_that_of_the_free_phase(sign: str) -> None:
    """From a sweep that has settled it is half the squared error of the prediction."""
    net = chain(dtype=torch.float64)
    x, y = X.double(), Y.double()
    settings: dict[str, Any] = {"steps": 5, "optimizer": STATES, "sign": sign}
    costs = [learning.nudged(net, {"x": x}, {"y": y}, strength=s, **settings) for s in (1e-2, 1e-3)]
    expected = 0.5 * (net.predict({"x": x}, "y") - y).square().sum(1)
    assert costs[0].shape == (24,)
    torch.testing.assert_close(costs[1], expected, rtol=1e-5, atol=0)
    if sign == "centred":  # the error goes with the square of the strength
        worst = [float((cost - expected).abs().max()) for cost in costs]
        assert 50 < worst[0] / worst[1] < 200
    else:
        torch.testing.assert_close(costs[0], expected, rtol=1e-12, atol=0)


def test_average_works_where_the_classes_are_known() -> None:
    """Under nudging the target is free, so that the classes come as labels, or not at all."""
    average = pcgraph.Average(by="y")
    train(chain(), Incremental(), init=average)
    assert bool(average.recall("seen").all())
    with pytest.raises(InvalidInitializer, match=r"needs the class of every sample.*no clamp on 'y'"):
        train(chain(), Nudged(), init=pcgraph.Average(by="y"))
    average = pcgraph.Average(by=None, classes=3)
    history = train(chain(), Nudged(), [(X, Y, LABELS)], init=average, epochs=2)
    assert (history.stopped, bool(average.recall("seen").all())) == ("finished", True)


def test_a_memory_learns_under_incremental_learning() -> None:
    """Its gradient comes once a batch, with the last of the weights' steps."""
    one, two = chain(), chain()
    memories = [pcgraph.Memory(net, patterns=4, heads=2, embed_dim=8, beta=2.0) for net in (one, two)]
    optimizers = [
        torch.optim.AdamW([*net.parameters(), *memory.parameters()], lr=0.01)
        for net, memory in zip((one, two), memories)
    ]
    train(one, Incremental(), init=memories[0], optimizer=optimizers[0])
    for x, y in BATCHES:
        by_incremental(two, x, y, memories[1], optimizers[1])
    assert same(numbers(one, optimizers[0], memories[0]), numbers(two, optimizers[1], memories[1]))


# -- stopped and resumed ----------------------------------------------------------------------------------------------


class Drifting:
    """A user's rule with something to remember: each batch's gradients are scaled a little more."""

    def __init__(self) -> None:
        self.scale = 1.0

    def __call__(self, step: TrainingStep) -> InferenceResult:
        result = step.infer()
        result.backward()
        for parameter in step.net.parameters():
            parameter.grad *= self.scale
        self.scale *= 0.9
        return result

    def state_dict(self) -> dict[str, float]:
        return {"scale": self.scale}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.scale = state["scale"]


class Setting:
    """A run, made anew as a script makes it anew when it is started again."""

    def __init__(self, rule: str) -> None:
        self.net = chain()
        self.rule = Drifting() if rule == "drifting" else RULES[rule][0]
        infers = getattr(self.rule, "infers", True)
        self.init = pcgraph.Null(first=pcgraph.Normal(std=0.1)) if infers else None
        self.ways = {"init": self.init, "steps": 3, "state_optimizer": pcgraph.Adam(lr=0.05)} if infers else {}
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.02, momentum=0.9)
        self.loader = Images(X, LABELS).batches(6, seed=3)

    def fit(self, **more: Any) -> History:
        scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 3, gamma=0.9)
        return fit(
            self.net, self.loader, rule=self.rule, optimizer=self.optimizer, epochs=3, scheduler=scheduler,
            scheduler_each="step", validate=BATCHES, progress=False, **self.ways, **more,
        )  # fmt: skip

    def numbers(self) -> dict[str, Tensor]:
        return numbers(self.net, self.optimizer, self.init)


@pytest.mark.parametrize("name", [*RULES, "drifting"])
def test_a_run_with_a_rule_goes_on_to_the_last_bit(tmp_path: Path, name: str) -> None:
    """Optimizer, initializer, place in the data, and what the rule itself remembers."""

    def boom(record: Any) -> None:
        if record.kind == "step" and record.step == 6:
            raise RuntimeError

    whole, part, again = Setting(name), Setting(name), Setting(name)
    expected = whole.fit()
    with pytest.raises(RuntimeError):
        part.fit(checkpoint=tmp_path, callbacks=boom, log=tmp_path / "log.csv")
    found = again.fit(checkpoint=tmp_path, resume=tmp_path, log=tmp_path / "log.csv")
    assert same(whole.numbers(), again.numbers())
    assert timeless(found) == timeless(expected)
    assert (tmp_path / "log.csv").read_text(encoding="utf-8").count("\n") == 1 + len(found.steps) + len(found.epochs)


def test_another_rule_does_not_go_on(tmp_path: Path) -> None:
    """The optimizer's means would be of other gradients, and the log of another energy."""
    Setting("centred").fit(checkpoint=tmp_path)
    with pytest.raises(CheckpointError, match=r"with the learning rule Nudged, not Backprop: .*pcgraph\.load"):
        Setting("backprop").fit(resume=tmp_path, checkpoint=tmp_path)


@pytest.mark.parametrize(
    ("changed", "found"),
    [({"strength": 0.5}, "strength=0.5, sign='centred'"), ({"sign": "positive"}, "strength=0.1, sign='positive'")],
)
def test_the_same_rule_with_other_settings_does_not_go_on(tmp_path: Path, changed: Any, found: str) -> None:
    """A pull of another strength or sign is another gradient; the run would end where neither of the two would."""
    before = Setting("centred")
    before.rule = Nudged()
    before.fit(checkpoint=tmp_path)
    other = Setting("centred")
    other.rule = Nudged(**changed)
    says = re.escape(f"the learning rule Nudged(strength=0.1, sign='centred'), not Nudged({found}): go on with")
    with pytest.raises(CheckpointError, match=says):
        other.fit(resume=tmp_path)
    other.rule = Nudged(strength=0.1)
    with pytest.warns(PCGraphWarning, match="nothing is left to do"):
        other.fit(resume=tmp_path)


def test_what_a_rule_knew_is_neither_dropped_nor_made_up(tmp_path: Path) -> None:
    """A rule of the same name with another idea of what it keeps would not end where the run would have."""
    Setting("drifting").fit(checkpoint=tmp_path / "knows")
    forgetful = Setting("drifting")
    forgetful.rule = type("Drifting", (), {"__call__": Drifting.__call__, "scale": 1.0})()
    with pytest.raises(CheckpointError, match="what it knew, but it lacks state_dict"):
        forgetful.fit(resume=tmp_path / "knows")
    forgetful.fit(checkpoint=tmp_path / "knows not")
    with pytest.raises(CheckpointError, match="Drifting nothing, but it has state_dict"):
        Setting("drifting").fit(resume=tmp_path / "knows not")


def test_a_refused_resume_leaves_the_rule_as_it_was(tmp_path: Path) -> None:
    """Its state belongs to the network that was refused."""
    Setting("drifting").fit(checkpoint=tmp_path)
    other = Setting("drifting")
    other.net = pcgraph.PCNetwork(pcgraph.graphs.chain([7, 5, 3]))
    other.optimizer = torch.optim.SGD(other.net.parameters(), lr=0.02, momentum=0.9)
    with pytest.raises(CheckpointError, match="another graph"):
        other.fit(resume=tmp_path)
    assert other.rule.scale == 1.0


# -- what a rule is told ----------------------------------------------------------------------------------------------


def test_a_rule_may_move_the_weights_itself() -> None:
    """Then fit does not, and a measured step still tells the energy that the rule returned."""
    moved: list[Tensor] = []

    def twice(step: TrainingStep) -> InferenceResult:
        for _ in range(2):
            step.clear()
            result = step.infer()
            result.backward()
            step.update()
            moved.append(step.net.weight("x", "h1").clone())
        return result

    net = chain()
    history = train(net, twice)
    assert len(moved) == 8
    assert not any(map(torch.equal, moved, moved[1:]))
    assert torch.equal(net.weight("x", "h1"), moved[-1])
    assert len(history.steps) == 4


def test_callbacks_see_the_inference_where_there_is_one() -> None:
    told: list[Any] = []
    train(chain(), Incremental(), callbacks=told.append)
    assert torch.equal(told[0].result.states["y"], Y[:6])
    told.clear()
    train(chain(), Backprop(), callbacks=told.append)
    assert told[0].result is None


def test_a_state_rate_above_the_safe_one_is_told_with_incremental_learning() -> None:
    """The energy is that of every inference step, with the weights that move between them."""
    net = chain()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4)
    with pytest.warns(PCGraphWarning, match=r"inference increased the energy ×.*lr=1\.5.*pcgraph\.safe_rate") as told:
        train(net, Incremental(), state_optimizer=pcgraph.SGD(lr=1.5), optimizer=optimizer)
    assert len(told) == 1
    assert told[0].filename == __file__


@pytest.mark.parametrize("name", ["incremental", "centred", "backprop"])
def test_a_run_that_diverges_is_saved_where_it_was_whole(tmp_path: Path, name: str) -> None:
    """Backprop and nudging leave all as it was before the step; incremental learning had moved the weights by then."""
    rule, _ = RULES[name]
    one, two = chain(), chain()
    optimizers = [torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9) for net in (one, two)]
    huge = [*BATCHES, (X[:6] * 1e30, Y[:6] * 1e30)]
    with pytest.raises(Diverged, match="no longer finite"):
        train(one, rule, huge, optimizer=optimizers[0], checkpoint=tmp_path, checkpoint_every=1)
    train(two, rule, optimizer=optimizers[1])
    assert pcgraph.load(tmp_path).step == 4
    assert same(numbers(pcgraph.load(tmp_path).net, optimizers[1]), numbers(two, optimizers[1]))
    if name != "incremental":
        assert same(numbers(one, optimizers[0]), numbers(two, optimizers[1]))


class Counting:
    """A user's rule that counts its batches, and says of nothing that it changes."""

    def __init__(self, infers: bool) -> None:
        self.infers, self.count = infers, 0

    def __call__(self, step: TrainingStep) -> Tensor:
        self.count += 1
        return learning.backprop(step.net, step.inputs, step.targets, check=not self.infers)

    def state_dict(self) -> dict[str, int]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.count = state["count"]


@pytest.mark.parametrize("infers", [False, True])
def test_a_rule_is_not_saved_ahead_of_the_weights(tmp_path: Path, infers: bool) -> None:
    """Its error comes from inside of it, or of what it returned: it has counted a batch that moved nothing."""
    huge = [*BATCHES, (X[:6] * 1e30, Y[:6] * 1e30)]
    with pytest.raises(Diverged, match="no longer finite") as caught:
        train(chain(), Counting(infers), huge, checkpoint=tmp_path, checkpoint_every=3)
    assert "in the middle of an update" in caught.value.__notes__[-1]
    saved = pcgraph.load(tmp_path)
    assert saved.step == saved.extra["rule_state"]["count"] == 3


def test_incremental_learning_that_diverges_says_that_weights_have_moved() -> None:
    """The inference that failed changed none, and says so; the steps before it in the batch did."""
    net = chain()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4)
    with pytest.raises(Diverged) as caught:
        train(net, Incremental(), steps=40, state_optimizer=pcgraph.SGD(lr=4.0), optimizer=optimizer)
    assert "of 40 of incremental learning; those before moved the weights" in caught.value.__notes__[0]
    assert not same(numbers(net, optimizer), numbers(chain(), optimizer))


# -- what is refused --------------------------------------------------------------------------------------------------


def nothing(step: TrainingStep) -> Any:
    step.infer().backward()


def no_gradients(step: TrainingStep) -> Any:
    return step.infer()


def a_mean(step: TrainingStep) -> Any:
    result = step.infer()
    result.backward()
    return result.energy.mean()


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("incremental", r"found 'incremental'\): give rule=pcgraph\.learning\.Incremental\(\)"),
        (learning.nudged, r"found nudged\): give rule=pcgraph\.learning\.Nudged\(\)"),
        (Backprop, r"found Backprop\): give rule=pcgraph\.learning\.Backprop\(\)"),
        (3, r"found 3\): see pcgraph\.learning\.fitting"),
        (["standard"], r"found \['standard'\]\)"),
        (nothing, r"the rule nothing must return the result of an inference.*found NoneType"),
        (no_gradients, r"the rule no_gradients left no gradients: call result\.backward\(\)"),
        (a_mean, r"an energy per sample, shape \(6,\) \(found a tensor of shape \(\)\)"),
    ],
)
def test_what_is_no_rule_is_refused_before_the_weights_move(rule: Any, says: str) -> None:
    net = chain()
    before = [p.clone() for p in net.parameters()]
    with pytest.raises(ConfigError, match=says):
        train(net, rule)
    assert all(map(torch.equal, before, net.parameters()))


def test_what_a_rule_needs_and_what_it_does_not_is_said() -> None:
    net = chain()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(ConfigError, match=r"Standard infers: it needs init= and steps=, as in init="):
        fit(net, BATCHES, optimizer=optimizer)
    with pytest.raises(ConfigError, match=r"Nudged infers: it needs steps="):
        fit(net, BATCHES, optimizer=optimizer, rule=Nudged(), init=pcgraph.Forward())
    with pytest.raises(ConfigError, match=r"Backprop has no inference \(found init=, steps=, state_optimizer=\)"):
        train(net, Backprop(), init=pcgraph.Forward(), steps=3, state_optimizer=STATES)
    with pytest.raises(ConfigError, match=r"steps must be a positive integer \(found 0\)"):
        train(net, Incremental(), steps=0)
    for rule in (Nudged(), Backprop()):
        with pytest.raises(ConfigError, match=r"there is none to predict: name two nodes in clamp="):
            train(net, rule, [X], clamp="x")
        with pytest.raises(ClampError, match=r"whole targets of 'y' \(found none\)"):
            train(net, rule, [{"x": X}])
        with pytest.raises(ClampError, match=r"whole targets of 'y' \(found a partial clamp\)"):
            train(net, rule, [{"x": X, "y": pcgraph.Masked(Y, Y > 0)}])
    with pytest.raises(ConfigError, match="strength must be a positive number"):
        Nudged(strength=-1)
    with pytest.raises(ConfigError, match="centred"):
        Nudged(sign="both")  # type: ignore[arg-type]


def test_backprop_on_a_cycle_names_it() -> None:
    graph = pcgraph.graphs.chain([4, 6, 3])
    graph.add_edge("y", "h1")
    net = pcgraph.PCNetwork(graph)
    with pytest.raises(InvalidInitializer, match="cycle"):
        train(net, Backprop())
    assert math.isfinite(train(net, Nudged(), init=pcgraph.Zero()).epochs[0].energy)
