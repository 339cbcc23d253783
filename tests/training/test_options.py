"""What fit looks at before the first step, and what it takes. The bad values stand in ``tests/bad_calls``."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from torch import Tensor

import pcgraph
from pcgraph.errors import ClampError, ConfigError, Diverged, PCGraphWarning
from pcgraph.training import EarlyStopping, History, evaluate, fit

GENERATOR = torch.Generator().manual_seed(5)
X, LABELS = torch.randn(24, 4, generator=GENERATOR), torch.arange(24) % 3
Y = torch.eye(3)[LABELS]
BATCHES = [(X[i : i + 6], Y[i : i + 6]) for i in range(0, 24, 6)]


def chain(names: tuple[str, ...] = ("x", "h", "y"), **settings: Any) -> pcgraph.PCNetwork:
    graph = nx.DiGraph()
    for node, size in zip(names, (4, 6, 3)):
        graph.add_node(node, shape=size, activation="tanh" if node == "h" else None)
    nx.add_path(graph, names)
    return pcgraph.PCNetwork(graph, **{"seed": 0} | settings)


def train(net: pcgraph.PCNetwork, loader: Any = BATCHES, **more: Any) -> History:
    settings: dict[str, Any] = {
        "init": pcgraph.Forward(), "steps": 2, "state_optimizer": pcgraph.SGD(lr=0.1), "progress": False, **more,
    }  # fmt: skip
    if "optimizer" not in settings:
        settings["optimizer"] = torch.optim.SGD(net.parameters(), lr=0.05)
    return fit(net, loader, **settings)


# -- what batches are ------------------------------------------------------------------------------------------------


def test_mappings_need_no_names() -> None:
    """A batch that names its nodes itself was refused for two nodes that nobody had named."""
    mappings = [{"image": x, "digit": y} for x, y in BATCHES]
    one, two = chain(("image", "h", "digit")), chain()
    history = train(one, mappings, predict="digit", validate=mappings, epochs=2)
    expected = train(two, validate=BATCHES, epochs=2)
    assert all(map(torch.equal, one.parameters(), two.parameters()))
    assert [r.validation for r in history] == [r.validation for r in expected]
    assert [r.accuracy for r in history.steps] == [r.accuracy for r in expected.steps]
    found = evaluate(one, mappings, predict="digit")
    assert found == evaluate(two, BATCHES)
    assert train(one, mappings).stopped == "finished"


def test_tuples_need_names_where_there_is_no_x_and_y() -> None:
    net = chain(("image", "h", "digit"))
    for call in (lambda: train(net), lambda: evaluate(net, BATCHES, predict="digit")):
        with pytest.raises(ClampError, match=r"nothing says which nodes the entries .* \(found a tuple of 2\)"):
            call()
    assert train(net, clamp=("image", "digit")).stopped == "finished"


def test_mappings_with_names_for_the_target_alone() -> None:
    net = chain()
    assert train(net, [{"x": X, "y": LABELS, "labels": LABELS}]).steps[0].accuracy is not None


# -- what is known before, and what the first epoch tells -------------------------------------------------------------


@pytest.mark.parametrize("each", [{"metric": "acuracy"}, {"early_stopping": EarlyStopping(metric="acuracy")}])
def test_a_metric_that_a_function_does_not_measure_is_told_after_the_first_epoch(
    tmp_path: Path, each: dict[str, Any]
) -> None:
    """There would never be a best checkpoint, and no word of it. The run is saved, and goes on with the right name."""
    with pytest.raises(ConfigError, match=r"metric 'acuracy' \(found accuracy, energy\)") as caught:
        train(chain(), validate=lambda net: {"accuracy": 0.5}, epochs=5, checkpoint=tmp_path, **each)
    assert caught.value.key == "metric"
    assert "fit(..., resume=...) goes on from there" in caught.value.__notes__[0]
    folders = {"checkpoint": tmp_path, "resume": tmp_path}
    history = train(chain(), validate=lambda net: {"accuracy": 0.5}, epochs=3, metric="accuracy", **folders)
    assert [record.epoch for record in history] == [1, 2, 3]
    assert pcgraph.load(tmp_path / "best").extra == {"metric": "accuracy", "value": 0.5}


def test_what_is_followed_may_be_what_a_function_measures() -> None:
    stopping = EarlyStopping(metric="loss")
    found = train(chain(), validate=lambda net: {"loss": 0.5}, metric="loss", early_stopping=stopping)
    assert found.stopped == "finished"


def test_a_refused_run_leaves_nothing_behind(tmp_path: Path) -> None:
    """Neither a folder nor a log that says that it has begun."""
    for bad in ({"validate": 3}, {"callbacks": [3]}, {"early_stopping": 5}, {"metric": "acuracy"}):
        with pytest.raises(ConfigError):
            train(chain(), checkpoint=tmp_path / "c", log=tmp_path / "log.csv", **bad)
    scheduler = torch.optim.lr_scheduler.StepLR(torch.optim.SGD([torch.zeros(1)], lr=0.1), 1)
    with pytest.raises(ConfigError, match="scheduler StepLR moves the rate of another optimizer"):
        train(chain(), checkpoint=tmp_path / "c", scheduler=scheduler)
    assert list(tmp_path.iterdir()) == []


def test_looking_at_the_arguments_draws_no_dice() -> None:
    """fit of one epoch and of two begin with the same batches, whatever the loader throws dice for."""
    data = torch.utils.data.TensorDataset(X, LABELS)
    first = []
    for epochs in (1, 2):
        torch.manual_seed(0)
        seen: list[Tensor] = []
        loader = torch.utils.data.DataLoader(data, 24, shuffle=True, collate_fn=partial(_kept, seen))
        train(chain(), loader, epochs=epochs)
        first.append(seen[0])
    assert torch.equal(*first)


def _kept(seen: list[Tensor], rows: Any) -> tuple[Tensor, Tensor]:
    x, y = torch.stack([row[0] for row in rows]), torch.stack([row[1] for row in rows])
    seen.append(x)
    return x, y


@pytest.mark.parametrize("steps", [np.int64(2), torch.tensor(2), np.uint8(2)])
def test_numbers_of_numpy_and_torch_train_as_pythons_do(steps: Any) -> None:
    one, two = chain(), chain()
    train(one, steps=steps, epochs=np.int32(2), state_optimizer=pcgraph.SGD(lr=np.float64(0.1)))
    train(two, steps=2, epochs=2)
    assert all(map(torch.equal, one.parameters(), two.parameters()))


@pytest.mark.parametrize("name", [
    "ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Rprop", "SGD",
])  # fmt: skip
def test_optimizers_of_torch_train_and_are_resumed(tmp_path: Path, name: str) -> None:
    """Measured steps look at gradients and the optimizer's eps, which Adafactor has two of."""
    kind = getattr(torch.optim, name)
    whole, part, again = chain(), chain(), chain()
    train(whole, optimizer=kind(whole.parameters()), epochs=3, measure_every=1)
    train(part, optimizer=kind(part.parameters()), epochs=2, measure_every=1, checkpoint=tmp_path)
    train(again, optimizer=kind(again.parameters()), epochs=3, measure_every=1, checkpoint=tmp_path, resume=tmp_path)
    assert all(map(torch.equal, whole.parameters(), again.parameters()))


# -- what is not kept -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["last step", "before"])
def test_weights_that_are_no_longer_finite_are_not_kept(tmp_path: Path, where: str) -> None:
    """A run would end as finished, or be saved at its end, with NaN for weights."""
    net = chain()

    def ruin(record: Any) -> None:
        if record.kind == "step" and record.step == (8 if where == "last step" else 5):
            net.weight("x", "h").fill_(math.inf)

    with pytest.raises(Diverged, match="no longer finite") as caught:
        train(net, epochs=2, callbacks=ruin, checkpoint=tmp_path)
    saved = pcgraph.load(tmp_path)
    assert saved.step == 4
    assert all(tensor.isfinite().all() for tensor in saved.state("network").values())
    assert "could not be saved: the weights are no longer finite" in caught.value.__notes__[-1]


def test_in_half_precision_the_advice_is_another_precision() -> None:
    """A smaller rate does not help where an energy is larger than the largest number there is."""
    net = chain(dtype=torch.float16)

    def huge(step: Any) -> Tensor:
        step.infer().backward()
        return torch.full((24,), math.inf)

    for check in (True, False):
        with pytest.raises(Diverged, match=r"In float16 no number above 65504 is finite.*bfloat16 or float32"):
            train(net, [(X, Y)], rule=huge, check=check)
    with pytest.raises(Diverged) as caught:
        train(chain(), [(X, Y)], rule=huge)
    assert "float16" not in str(caught.value)


def test_a_warning_names_the_line_that_called_fit() -> None:
    net = chain()
    with pytest.warns(PCGraphWarning, match="inference increased") as told:
        train(net, steps=5, state_optimizer=pcgraph.SGD(lr=5.0), optimizer=torch.optim.SGD(net.parameters(), lr=1e-9))
    assert told[0].filename == __file__


@pytest.mark.parametrize(
    "found",
    [
        None, "0.5", b"1", [0.5], (1, 2), 1j, torch.ones(3), 10**400, object(), float, {"a": None}, {"a": "0.5"},
        {"a": [1]}, {"a": torch.ones(3)}, {"a": 1j}, {"a": 10**400}, {"a": 0.5, "b": None},
    ],
)  # fmt: skip
def test_what_validation_returns_is_a_number_or_several_by_name(found: Any) -> None:
    """A function that prints and returns nothing ended in Python's error about None."""
    with pytest.raises(ConfigError, match=r"validate= is a function of the network that returns a number") as caught:
        train(chain(), validate=lambda net: found)
    assert caught.value.key == "validate"


class Odd(list[Any]):
    """A loader whose length is none."""

    def __len__(self) -> int:
        return -1


def test_a_loader_with_a_length_that_is_none_has_no_length() -> None:
    assert len(train(chain(), Odd(BATCHES)).epochs) == 1
