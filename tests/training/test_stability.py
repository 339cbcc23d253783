"""What fit sees of inference: its curvature, how far it goes, and where it learns nothing. Oracles: closed forms."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
import torch

import pcgraph
from pcgraph import SGD, Errors, Following, Forward, PCNetwork, Zero, graphs
from pcgraph.errors import CheckpointError, PCGraphWarning
from pcgraph.training import EpochRecord, History
from pcgraph.training.collapse import at_chance
from tests import builders

GENERATOR = torch.Generator().manual_seed(5)
X, LABELS = torch.randn(24, 4, generator=GENERATOR), torch.arange(24) % 3
Y = torch.eye(3)[LABELS]
BATCHES = [(X[i : i + 6], Y[i : i + 6]) for i in range(0, 24, 6)]


def train(net: PCNetwork, loader: Any = BATCHES, **more: Any) -> History:
    settings: dict[str, Any] = {
        "init": Forward(), "steps": 3, "state_optimizer": SGD(lr=0.1), "progress": False,
        "optimizer": torch.optim.SGD(net.parameters(), lr=0.0),
    }  # fmt: skip
    return pcgraph.fit(net, loader, **settings | more)


def chain(**more: Any) -> PCNetwork:
    return builders.chain(4, 6, 5, 3, seed=0, **more)


# -- curvature --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coordinates", [None, Errors()], ids=repr)
def test_the_curvature_is_that_of_the_network_and_says_how_far_inference_goes(coordinates: Errors | None) -> None:
    """f = 1 - (1 - lr * curvature)^T, without which nobody knows whether a run is backpropagation in effect."""
    net = chain()
    history = train(net, coordinates=coordinates, epochs=3, curvature_every=5)
    x, y = BATCHES[0]
    true = net.curvature({"x": x, "y": y}, init=Forward(), coordinates=coordinates, iterations=300).max()
    seen = [record for record in history.steps if record.curvature is not None]
    assert [record.step for record in seen] == [1, 6, 11]
    assert seen[0].curvature == pytest.approx(float(true), rel=0.02)
    assert seen[0].curvature <= float(true) * (1 + 1e-3)
    for record in seen:
        assert record.reach == pytest.approx(1 - (1 - 0.1 * record.curvature) ** 3)
    assert [record.curvature for record in history.epochs] == [record.curvature for record in seen]
    assert history.warnings == []


def test_runs_are_the_same_whether_it_is_looked_at_or_not() -> None:
    ends = []
    for every in (0, 1):
        net = chain()
        moves = torch.optim.AdamW(net.parameters(), lr=0.01)
        history = train(net, optimizer=moves, epochs=2, curvature_every=every, init=pcgraph.Normal(std=0.2))
        ends.append([p.detach().clone() for p in net.parameters()])
        assert all((record.curvature is None) == (every == 0) for record in history.steps)
    assert all(map(torch.equal, *ends))


@pytest.mark.parametrize(
    "settings",
    [
        {"state_optimizer": pcgraph.Adam(0.01)}, {"state_optimizer": pcgraph.LBFGS()},
        {"rule": pcgraph.learning.Nudged()}, {"steps": 0},
    ],
)  # fmt: skip
def test_what_no_rate_is_told_of_is_not_looked_at(settings: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        history = train(chain(), **settings)
    assert all(record.curvature is None for record in (*history.steps, *history.epochs))


def linear(dtype: torch.dtype = torch.float64) -> tuple[PCNetwork, dict[str, torch.Tensor]]:
    net = PCNetwork(graphs.chain([4, 5, 3], activation="identity"), seed=0, dtype=dtype)
    return net, {"x": X.to(dtype), "y": Y.to(dtype)}


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.5, False), (0.9, False), (0.5, True), (0.9, True)])
@pytest.mark.parametrize("below", [True, False])
def test_the_limit_is_where_descent_on_a_quadratic_energy_turns(momentum: float, nesterov: bool, below: bool) -> None:
    """2 for plain descent; with momentum more, and less if it looks ahead."""
    net, clamps = linear()
    curvature = float(net.curvature(clamps, init=Zero(), iterations=2000).max())
    history = train(
        net, [(clamps["x"], clamps["y"])], init=Zero(), state_optimizer=SGD(1e-3, momentum, nesterov), steps=1,
        curvature_every=1,
    )  # fmt: skip
    assert history.warnings == []
    limit = 2 * (1 + momentum) / (1 + 2 * momentum if nesterov else 1) / curvature
    optimizer = SGD(limit * (0.98 if below else 1.02), momentum, nesterov)
    ends = [net.infer(clamps, init=Zero(), steps=t, optimizer=optimizer, check=False).energy.max() for t in (40, 4000)]
    assert (ends[1] < 2 * ends[0]) == below
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(
            net, [(clamps["x"], clamps["y"])], init=Zero(), state_optimizer=optimizer, steps=1, curvature_every=1,
        )  # fmt: skip
    told = [str(w.message) for w in caught if "ate × curvature is" in str(w.message)]
    assert bool(told) == (not below)


def test_a_rate_beyond_the_limit_is_told_once_with_the_remedy() -> None:
    net = chain()
    with torch.no_grad():
        net.weight("h2", "y").mul_(20)
    x, y = BATCHES[0]
    rate = 2.1 / float(net.curvature({"x": x, "y": y}, init=Forward(), iterations=300).max())
    with pytest.warns(PCGraphWarning, match="passes the stability limit in training step 1: rate × curvature is"):
        history = train(net, curvature_every=1, epochs=2, state_optimizer=SGD(lr=rate))
    (text,) = [text for text in history.warnings if "stability" in text]
    assert f"Following({rate:g})" in text
    held = train(net, curvature_every=1, epochs=2, state_optimizer=SGD(lr=Following(0.1)))
    assert held.warnings == []
    assert all(record.reach < 2.0 for record in held.epochs)
    assert held.epochs[-1].curvature > 20


# -- a rate that follows, in checkpoints ------------------------------------------------------------------------------


def run_of(net: PCNetwork, rate: Following | float, **more: Any) -> History:
    moves = torch.optim.AdamW(net.parameters(), lr=0.02)
    return train(net, optimizer=moves, state_optimizer=SGD(lr=rate), epochs=4, **more)


class Stopped(Exception):
    """Ends a run."""


class Broken(list[Any]):
    """Ends after seven batches."""

    def __iter__(self) -> Any:
        yield from self[:3]
        raise Stopped


@pytest.mark.parametrize("every", [1, 3, 30])
def test_a_rate_that_follows_goes_on_from_a_checkpoint_to_the_last_bit(tmp_path: Path, every: int) -> None:
    """Its direction, and when it is due, are part of the run."""
    whole, rate = chain(), Following(5.0, every=every, iterations=1)
    history = run_of(whole, rate)
    part = chain()
    with pytest.raises(Stopped):
        run_of(part, Following(5.0, every=every, iterations=1), loader=Broken(BATCHES), checkpoint=tmp_path)
    again, fresh = chain(), Following(5.0, every=every, iterations=1)
    resumed = run_of(again, fresh, resume=tmp_path, checkpoint=tmp_path)
    assert all(map(torch.equal, whole.parameters(), again.parameters()))
    assert (fresh.rate, fresh.curvature) == (rate.rate, rate.curvature)
    assert [r.curvature for r in resumed.steps] == [r.curvature for r in history.steps]
    assert 0 < rate.rate < 5.0


@pytest.mark.parametrize(("was", "now"), [(Following(0.1), 0.1), (0.1, Following(0.1))], ids=repr)
def test_a_run_of_another_kind_of_rate_is_not_gone_on_with(tmp_path: Path, was: Any, now: Any) -> None:
    net = chain()
    run_of(net, was, checkpoint=tmp_path)
    before = [p.detach().clone() for p in net.parameters()]
    with pytest.raises(CheckpointError, match="state rate that .*go on with the state_optimizer as it was"):
        run_of(net, now, resume=tmp_path)
    assert all(map(torch.equal, before, net.parameters()))


def test_a_refused_resume_leaves_the_rate_as_it_was(tmp_path: Path) -> None:
    run_of(chain(), Following(5.0), checkpoint=tmp_path)
    rate = Following(5.0)
    with pytest.raises(CheckpointError):
        run_of(builders.chain(4, 7, 5, 3), rate, resume=tmp_path)
    assert (rate.rate, rate.curvature, rate.direction) == (5.0, None, None)


# -- validation at chance ---------------------------------------------------------------------------------------------


def leaking() -> nx.DiGraph:
    """The class predicts what predicts it."""
    graph = graphs.chain([4, 8, 3], activation="tanh")
    graph.add_edge("y", "h1")
    return graph


def test_a_label_that_leaks_is_told_when_validation_stays_at_chance() -> None:
    """The energy falls, since the label is copied, and nothing else says that no image is looked at."""
    labels = torch.randint(0, 3, (240,), generator=torch.Generator().manual_seed(0))
    x = 0.02 * torch.randn(240, 4, generator=torch.Generator().manual_seed(1))  # there is nothing to learn
    loader = [(x[i : i + 6], torch.eye(3)[labels[i : i + 6]]) for i in range(0, 240, 6)]
    net = PCNetwork(leaking(), seed=0)
    how: dict[str, Any] = {"init": Forward(fallback=Zero()), "steps": 10}

    def ask(net: PCNetwork) -> pcgraph.training.Evaluation:
        return pcgraph.evaluate(net, loader, optimizer=SGD(lr=0.1), **how)

    with pytest.warns(PCGraphWarning, match="validation stays at chance: in 3 epochs .* leak y → h1 → y: the target"):
        history = train(
            net, loader, **how, optimizer=torch.optim.Adam(net.parameters(), lr=0.01), epochs=6, validate=ask
        )
    assert len([text for text in history.warnings if "chance" in text]) == 1


def epochs(*pairs: tuple[float, float], steps: int = 100) -> list[EpochRecord]:
    return [
        EpochRecord(i + 1, steps * (i + 1), 1, energy, None, 0.1, 1.0, {"accuracy": accuracy})
        for i, (energy, accuracy) in enumerate(pairs)
    ]


@pytest.mark.parametrize(
    ("records", "classes", "told"),
    [
        (epochs((1.0, 0.1), (0.5, 0.15)), 10, True),
        (epochs((1.0, 0.1), (0.9, 0.15)), 10, False),  # the energy does not fall
        (epochs((1.0, 0.3), (0.5, 0.15)), 10, False),  # it was better than chance once
        (epochs((1.0, 0.1)), 10, False),
        (epochs((1.0, 0.1), (0.5, 0.1), steps=20), 10, False),  # too early to tell
        (epochs((1.0, 0.5), (0.5, 0.52)), 2, True),
        (epochs((1.0, 0.5), (0.5, 0.6)), 2, False),
        (epochs((1.0, 0.5), (0.5, 0.5)), 0, False),
        ([EpochRecord(1, 100, 1, 1.0, 0.1, 0.1, 1.0), EpochRecord(2, 200, 1, 0.1, 0.1, 0.1, 2.0)], 10, False),
    ],
)
def test_when_validation_is_at_chance(records: list[EpochRecord], classes: int, told: bool) -> None:
    found = at_chance(records, classes, lambda: [])
    assert bool(found) == told
    if told:
        assert "pcgraph.advise" in found[0]


# -- layers without a signal ------------------------------------------------------------------------------------------


def deep(layers: int, dtype: torch.dtype = torch.float32) -> PCNetwork:
    return PCNetwork(graphs.chain([4, *[6] * layers, 3], activation="tanh"), seed=0, dtype=dtype)


def test_an_error_that_float32_loses_is_told_with_its_node_and_its_step() -> None:
    """By the plan it is there; by the numbers it is not, and the first layers never learn."""
    with pytest.warns(PCGraphWarning, match="node 'h1' gets no signal: by the plan an error is there from step 12 on"):
        history = train(deep(12), steps=30, epochs=2)
    (text,) = [text for text in history.warnings if "no signal" in text]
    assert "'x' -> 'h1'" in text
    assert "float32" in text
    assert "Errors()" in text
    for better in (
        {"net": deep(12, torch.float64), "loader": [(x.double(), y.double()) for x, y in BATCHES]},
        {"net": deep(12), "coordinates": Errors()},
    ):
        history = train(**{"steps": 30, "epochs": 2, **better})
        assert not any("no signal" in text for text in history.warnings)


@pytest.mark.parametrize(("layers", "lost"), [(12, True), (3, False)])
def test_too_few_steps_say_whether_more_would_do(layers: int, lost: bool) -> None:
    with pytest.warns(PCGraphWarning, match=f"give steps={layers} or more"):
        history = train(deep(layers), steps=1, state_optimizer=SGD(lr=0.05), epochs=2)
    text = next(text for text in history.warnings if "bring" in text)
    assert ("0.05^12 = 2e-16, which float32 loses" in text) == lost
