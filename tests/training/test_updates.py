"""Gradients gathered, clipped and averaged; several targets; any metric. Oracles: torch's own loop by hand."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
import torch
import torchmetrics
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import pcgraph
from pcgraph.errors import CheckpointError, ClampError, ConfigError
from pcgraph.learning import Backprop, Incremental, Nudged
from pcgraph.training import Evaluation, evaluate, fit
from tests import builders
from tests.builders import EXACT

GENERATOR = torch.Generator().manual_seed(5)
X, LABELS = torch.randn(24, 4, generator=GENERATOR, dtype=torch.float64), torch.arange(24) % 3
Y = torch.eye(3, dtype=torch.float64)[LABELS]
CUTS = (0, 5, 11, 14, 20, 24)
BATCHES = [(X[a:b], Y[a:b]) for a, b in zip(CUTS, CUTS[1:])]
chain = partial(builders.chain, 4, 6, 3, seed=0, dtype=torch.float64)


def train(net: pcgraph.PCNetwork, loader: Any = BATCHES, **more: Any) -> Any:
    settings: dict[str, Any] = {
        "init": pcgraph.Forward(), "steps": 2, "state_optimizer": pcgraph.SGD(lr=0.1), "progress": False,
    }  # fmt: skip
    settings |= more
    if "optimizer" not in settings:
        settings["optimizer"] = torch.optim.SGD(net.parameters(), lr=0.3, momentum=0.5)
    return fit(net, loader, **settings)


def alike(one: pcgraph.PCNetwork, two: pcgraph.PCNetwork) -> bool:
    return all(torch.allclose(a, b, rtol=1e-11, atol=1e-13) for a, b in zip(one.parameters(), two.parameters()))


def average(net: pcgraph.PCNetwork, decay: float = 0.8) -> AveragedModel:
    return AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(decay))


# -- accumulation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [None, Nudged(), Backprop()], ids=["standard", "nudged", "backprop"])
def test_batches_of_any_size_are_accumulated_to_the_update_of_one_large_batch(rule: Any) -> None:
    """The point of accumulation is a larger batch than memory holds; a plain sum would move further instead."""
    inference = {"init": None, "steps": None, "state_optimizer": None} if isinstance(rule, Backprop) else {}
    parts, whole = chain(), chain()
    train(parts, BATCHES, accumulate=2, rule=rule, epochs=2, **inference)
    large = [(X[a:b], Y[a:b]) for a, b in ((0, 11), (11, 20), (20, 24))]  # the last update takes what is left
    train(whole, large, rule=rule, epochs=2, **inference)
    assert alike(parts, whole)
    assert not alike(parts, chain())


def test_a_scheduler_of_steps_steps_with_the_updates() -> None:
    net = chain()
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    train(net, optimizer=optimizer, scheduler=scheduler, scheduler_each="step", accumulate=2, epochs=2)
    assert optimizer.param_groups[0]["lr"] == 0.5**6


def test_a_rule_that_moves_the_weights_itself_is_refused() -> None:
    """It would drop what was accumulated, without a word."""

    def own(step: Any) -> Any:
        result = step.infer()
        result.backward()
        step.update()
        return result

    for rule in (Incremental(), own):
        net = chain()
        with pytest.raises(ConfigError, match="accumulate"):
            train(net, accumulate=2, rule=rule)
        assert alike(net, chain())


@pytest.mark.parametrize("stop", [1, 2, 3, 6])
def test_a_run_stopped_between_two_updates_goes_on_as_if_it_had_not_been(tmp_path: Path, stop: int) -> None:
    """The gradients held in between, and the average of the weights, are a part of the run."""

    def run(folder: Path, callbacks: Any = (), **more: Any) -> tuple[pcgraph.PCNetwork, AveragedModel]:
        net = chain()
        ema = average(net)
        train(net, epochs=3, accumulate=3, clip=0.05, ema=ema, checkpoint=folder, callbacks=callbacks, **more)
        return net, ema

    never_stopped, its_average = run(tmp_path / "whole")
    run(tmp_path / "parts", lambda record: record.kind == "step" and record.step == stop)
    resumed, average_of_it = run(tmp_path / "parts", resume=tmp_path / "parts")
    assert all(map(torch.equal, resumed.parameters(), never_stopped.parameters()))
    assert all(map(torch.equal, average_of_it.state_dict().values(), its_average.state_dict().values()))


def test_a_run_with_an_average_does_not_go_on_without_it(tmp_path: Path) -> None:
    net = chain()
    train(net, ema=average(net), checkpoint=tmp_path / "c")
    other = chain()
    with pytest.raises(CheckpointError, match="with ema="):
        train(other, epochs=2, resume=tmp_path / "c")
    assert alike(other, chain())


# -- clipping, the average, half precision ----------------------------------------------------------------------------


def by_hand(net: pcgraph.PCNetwork, clip: float, decay: float) -> AveragedModel:
    """The loop that one would write with torch's own parts."""
    optimizer, ema = torch.optim.SGD(net.parameters(), lr=0.3, momentum=0.5), average(net, decay)
    for x, y in BATCHES:
        optimizer.zero_grad()
        net.infer(
            {"x": x, "y": y}, init=pcgraph.Forward(), steps=2, optimizer=pcgraph.SGD(lr=0.1)
        ).backward()  # fmt: skip
        torch.nn.utils.clip_grad_norm_(net.parameters(), clip)
        optimizer.step()
        ema.update_parameters(net)
    return ema


def test_clipping_and_the_average_are_those_of_torch() -> None:
    ours, theirs, free = chain(), chain(), chain()
    ema = average(ours)
    seen: list[pcgraph.PCNetwork] = []
    train(ours, clip=0.01, ema=ema, validate=lambda net: len(seen.append(net) or seen))
    expected = by_hand(theirs, 0.01, 0.8)
    assert alike(ours, theirs)
    assert alike(ema.module, expected.module)
    assert seen == [ema.module]
    train(free)
    assert not alike(ours, free)


def test_the_best_checkpoint_is_the_network_that_was_validated(tmp_path: Path) -> None:
    net = chain()
    ema = average(net)
    train(net, ema=ema, validate=BATCHES, checkpoint=tmp_path / "c")
    assert alike(pcgraph.load(tmp_path / "c" / "best").net, ema.module)
    assert alike(pcgraph.load(tmp_path / "c").net, net)


def test_autocast_is_that_of_torch() -> None:
    """An option that changes nothing would be believed."""
    batches = [(x.float(), y.float()) for x, y in BATCHES]
    make = partial(builders.chain, 4, 6, 3, seed=0)
    option, switch, full = make(), make(), make()
    train(option, batches, autocast=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        train(switch, batches)
    train(full, batches)
    assert all(map(torch.equal, option.parameters(), switch.parameters()))
    assert not all(map(torch.equal, option.parameters(), full.parameters()))
    assert option.dtype == torch.float32


# -- several targets --------------------------------------------------------------------------------------------------


def forked() -> pcgraph.PCNetwork:
    graph = nx.DiGraph()
    for name, shape in (("x", 4), ("h", 6), ("y", 3), ("z", 2)):
        graph.add_node(name, shape=shape, activation="tanh" if name == "h" else "identity")
    graph.add_edges_from(["xh", "hy", "hz"])
    return pcgraph.PCNetwork(graph, seed=0, dtype=torch.float64)


Z = X[:, :2].sin()
BOTH = [(X[a:b], Y[a:b], Z[a:b]) for a, b in zip(CUTS, CUTS[1:])]


def test_several_targets_are_evaluated_as_each_alone() -> None:
    net = forked()
    found = evaluate(net, BOTH, predict=["y", "z"])
    assert list(found) == ["y", "z"]
    assert found["y"] == evaluate(net, [(x, y) for x, y, _ in BOTH])
    assert found["z"] == evaluate(net, [(x, z) for x, _, z in BOTH], predict="z")
    assert found["z"].accuracy is None
    by_inference = {"init": pcgraph.Forward(), "steps": 3, "optimizer": pcgraph.SGD(lr=0.1)}
    inferred = evaluate(net, BOTH, predict=["y", "z"], **by_inference)
    assert inferred["y"] == evaluate(net, [(x, y) for x, y, _ in BOTH], **by_inference)


@pytest.mark.parametrize("rule", [Backprop(), Nudged()], ids=["backprop", "nudged"])
def test_a_rule_that_predicts_learns_all_targets(rule: Any) -> None:
    """With the last of them alone, the rest would be clamped: an input of what is to be learned."""
    net = forked()
    inference = {"init": None, "steps": None, "state_optimizer": None} if isinstance(rule, Backprop) else {}
    history = train(
        net, BOTH, clamp=("x", "y", "z"), predict=["y", "z"], rule=rule, validate=BOTH, epochs=3,
        metric="z_squared_error", **inference,
    )  # fmt: skip
    first, last = history.epochs[0].validation, history.epochs[-1].validation
    assert set(last) == {"y_accuracy", "y_squared_error", "y_energy", "z_squared_error", "z_energy"}
    assert last["y_squared_error"] < first["y_squared_error"]
    assert last["z_squared_error"] < first["z_squared_error"]
    assert history.epochs[-1].accuracy is not None


def test_backprop_to_two_targets_is_that_of_torch() -> None:
    net = forked()
    expected = copy.deepcopy(net)
    train(
        net, [(X, Y, Z)], clamp=("x", "y", "z"), predict=["y", "z"], rule=Backprop(), init=None, steps=None,
        state_optimizer=None, optimizer=torch.optim.SGD(net.parameters(), lr=0.1),
    )  # fmt: skip
    weights = [expected.weight(*e).clone().requires_grad_() for e in (("x", "h"), ("h", "y"), ("h", "z"))]
    h = (X @ weights[0].T + expected.bias("h")).tanh()
    loss = 0.5 * ((h @ weights[1].T + expected.bias("y") - Y).square().sum(1) + (
        h @ weights[2].T + expected.bias("z") - Z).square().sum(1)).mean()  # fmt: skip
    for edge, weight, grad in zip((("x", "h"), ("h", "y"), ("h", "z")), weights, torch.autograd.grad(loss, weights)):
        torch.testing.assert_close(net.weight(*edge), weight.detach() - 0.1 * grad, **EXACT)


# -- metrics ----------------------------------------------------------------------------------------------------------


def test_metrics_are_those_of_torchmetrics_on_all_predictions() -> None:
    net = forked()
    f1 = partial(torchmetrics.F1Score, task="multiclass", num_classes=3, average="macro")
    each = torchmetrics.Recall(task="multiclass", num_classes=3, average=None)
    r2 = partial(torchmetrics.R2Score, multioutput="uniform_average")
    stale = f1()
    stale.update(torch.eye(3), torch.tensor([1, 2, 0]))  # what it has seen before does not count
    found = evaluate(net, BOTH, predict=["y", "z"], metrics={"y": {"f1": stale, "recall": each}, "z": {"r2": r2()}})
    predicted = net.predict({"x": X}, "y")
    assert found["y"].metrics["f1"] == pytest.approx(float(f1()(predicted, LABELS)))
    assert found["y"].metrics["recall"].shape == (3,)
    assert "recall" not in found["y"].as_dict()
    assert found["z"].metrics["r2"] == pytest.approx(float(r2()(net.predict({"x": X}, "z"), Z)), rel=1e-5)
    assert "f1" in str(found["y"])


def test_what_a_metric_finds_is_validation() -> None:
    net = chain()
    metric = torchmetrics.Accuracy(task="multiclass", num_classes=3, average="micro")
    history = train(net, validate=lambda net: evaluate(net, BATCHES, metrics={"micro": metric}), metric="micro")
    assert history.values("micro") == pytest.approx(history.values("accuracy"))


def test_a_metric_that_does_not_take_the_predictions_is_named() -> None:
    with pytest.raises(ConfigError, match="the metric 'mse' does not take predictions of shape"):
        evaluate(chain(), BATCHES, metrics={"mse": torchmetrics.MeanSquaredError()})


def test_classes_in_some_batches_alone_are_refused() -> None:
    metric = torchmetrics.Accuracy(task="multiclass", num_classes=3)
    with pytest.raises(ConfigError, match="classes in the first batch"):
        evaluate(chain(), [(X, Y), (X, 0.5 * Y)], metrics={"a": metric})


def test_an_evaluation_is_equal_to_itself() -> None:
    assert Evaluation(0.5, 1.0, 0.5, 3) == Evaluation(0.5, 1.0, 0.5, 3, {})


def test_several_targets_need_values_of_each() -> None:
    with pytest.raises(ClampError, match="targets of 'z'"):
        evaluate(forked(), [{"x": X, "y": Y}], predict=["y", "z"])


def test_a_tuple_of_targets_is_told_to_be_a_list() -> None:
    """A tuple may be a node, so that it cannot stand for several; nobody knows that before it is said."""
    with pytest.raises(ConfigError, match=r"give predict=\['y', 'z'\]"):
        evaluate(forked(), BOTH, predict=("y", "z"))
