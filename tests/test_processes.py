"""The one door to other processes: collectives, agreement, and what is said of a rank that is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import pcgraph
from pcgraph import SGD
from pcgraph.errors import ConfigError
from pcgraph.processes import Group, Part, read_group
from tests import ROOT
from tests.ranks import RankError, Ranks

#: The longest that a rank may need to tell of another: a look, the roll, and a slow machine.
BOUND = 40


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    with Ranks(3) as started:
        yield started


# -- collectives ------------------------------------------------------------------------------------------------------


def told() -> dict[str, Any]:
    group = Group()
    own = torch.randn(1001, generator=torch.Generator().manual_seed(group.rank))
    part = Part(group, 4)
    rows = torch.arange(8.0).view(4, 2)
    return {
        "sum": group.sum(own.clone()),
        "all": group.gather(own),
        "largest": group.largest(own.clone()),
        "numbers": group.gather_numbers([group.rank, 0.5]),
        "data": group.gather_data({"rank": group.rank, "text": "é" * group.rank}),
        "first": group.broadcast(own.clone(), 2),
        "any": group.any(group.rank == 1, False),
        "counts": part.counts,
        "joined": part.join(rows[part.rows]),
        "mask": part.join(rows[part.rows] > 3),
        "some": part.first(rows[part.rows], 3),
        "mean": part.mean(rows[part.rows][:, 0]),
        "few": Part(group, 1).join(rows[Part(group, 1).rows]),
    }


def test_every_rank_gets_the_same_bits(ranks: Ranks) -> None:
    """If it fails, ranks drift apart, or one takes another's rows for its own."""
    first, *others = ranks.run(told)
    draws = [torch.randn(1001, generator=torch.Generator().manual_seed(rank)) for rank in range(3)]
    rows = torch.arange(8.0).view(4, 2)
    torch.testing.assert_close(first["sum"], sum(draws))
    assert all(torch.equal(a, b) for a, b in zip(first["all"], draws))
    assert torch.equal(first["largest"], torch.stack(draws).max(0).values)
    assert first["numbers"].tolist() == [[0, 0.5], [1, 0.5], [2, 0.5]]
    assert first["data"] == [{"rank": rank, "text": "é" * rank} for rank in range(3)]
    assert torch.equal(first["first"], draws[2])
    assert first["any"] == [True, False]
    assert first["counts"] == (2, 1, 1)
    assert torch.equal(first["joined"], rows)
    assert torch.equal(first["mask"], rows > 3)
    assert torch.equal(first["some"], rows[:3])
    assert first["mean"] == [3.0]
    assert torch.equal(first["few"], rows[:1])
    for other in others:
        for key, value in first.items():
            same = torch.equal(other[key], value) if isinstance(value, torch.Tensor) else True
            assert same if isinstance(value, torch.Tensor | list) else other[key] == value, key


# -- agreement --------------------------------------------------------------------------------------------------------


def trained(seed: int = 0, steps: int = 2, rows: int = 6, order: int = 1, **more: Any) -> Any:
    """Train on all ranks, with the arguments given on rank 1 alone."""
    net = pcgraph.PCNetwork(more.pop("graph", None) or pcgraph.graphs.chain([4, 5, 3]), seed=seed)
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))[:rows][:: order or 1]
    loader = [(x.flip(0) if order < 0 else x, torch.zeros(len(x), dtype=torch.int64))]
    settings = {"init": pcgraph.Forward(), "state_optimizer": SGD(lr=0.1), "progress": False, **more}
    return pcgraph.fit(
        net, loader, steps=steps, optimizer=torch.optim.SGD(net.parameters(), lr=0.1), **settings
    ).stopped


def on_one(changed: dict[str, Any]) -> str:
    if "order" in changed and torch.distributed.get_rank() == 1:
        return outcome({}, flipped=True)
    return outcome(changed if torch.distributed.get_rank() == 1 else {})


def outcome(changed: dict[str, Any], flipped: bool = False) -> str:
    try:
        if flipped:
            net = pcgraph.PCNetwork(pcgraph.graphs.chain([4, 5, 3]), seed=0)
            x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).flip(0)
            return pcgraph.fit(
                net, [(x, torch.zeros(6, dtype=torch.int64))], steps=2, init=pcgraph.Forward(), progress=False,
                state_optimizer=SGD(lr=0.1), optimizer=torch.optim.SGD(net.parameters(), lr=0.1),
            ).stopped  # fmt: skip
        return trained(**changed)
    except ConfigError as error:
        return str(error)


class Nameless:
    """A node whose name differs from process to process, as that of one that has no ``__repr__`` nearly always does."""

    def __repr__(self) -> str:
        return f"<Nameless at {os.getpid():#x}>"  # processes forked from one may well have an object at one address


def nameless() -> Any:
    graph = pcgraph.graphs.chain([4, 5, 3])
    graph.add_node(Nameless(), shape=2)
    graph.add_edge("h1", next(v for v in graph if isinstance(v, Nameless)))
    return outcome({"graph": graph})


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"seed": 1}, "seed"),
        ({"steps": 3}, "steps"),
        ({"graph": pcgraph.graphs.chain([4, 6, 3])}, "graph"),
        ({"state_optimizer": SGD(lr=0.2)}, "state_optimizer"),
        ({"init": pcgraph.Zero()}, "init"),
        ({"rows": 5}, "6 samples on rank 0, 5 on rank 1"),
        ({"order": -1}, "another order"),
        ({}, "finished"),
    ],
    ids=["seed", "steps", "graph", "rate", "init", "rows", "order", "nothing"],
)
def test_what_differs_on_a_rank_is_told_on_all_of_them(ranks: Ranks, changed: dict[str, Any], said: str) -> None:
    """If it fails, ranks that do not do the same learn something that nobody asked for, or wait for each other."""
    answers = ranks.run(on_one, changed)
    assert all(said in answer for answer in answers), answers
    assert not changed or all("rank 1" in answer for answer in answers), answers


def test_names_that_differ_from_process_to_process_are_refused(ranks: Ranks) -> None:
    assert all("graph" in answer for answer in ranks.run(nameless))


def test_without_a_process_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, four processes of torchrun train four networks, and nobody is told."""
    assert read_group(None) is None
    with pytest.raises(ConfigError, match="needs a process group"):
        Group()
    for name, value in {"RANK": "0", "WORLD_SIZE": "4", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="4 processes, and they have no process group"):
        read_group(None)
    assert read_group(False) is None


# -- faults -----------------------------------------------------------------------------------------------------------


def lost(victim: int, how: str) -> Any:
    """Train, while one rank fails in step 3; returns what this rank is told, and after how many seconds."""
    group = Group(timeout=4)
    net = pcgraph.PCNetwork(pcgraph.graphs.chain([4, 5, 3]), seed=0)
    x, y = torch.randn(8, 4, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3
    began = [time.monotonic()]

    def rule(step: Any) -> Any:
        if group.step == 3:
            began[0] = time.monotonic()
        if group.step == 3 and group.rank == victim:
            if how == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "hang":
                time.sleep(BOUND)
            if how == "diverge":
                step.clamps["x"] = step.clamps["x"] * float("inf")
        return pcgraph.learning.Standard()(step)

    before = [p.detach().clone() for p in net.parameters()]
    try:
        pcgraph.fit(
            net, [(x, y)] * 5, init=pcgraph.Forward(), steps=2, state_optimizer=SGD(lr=0.1), rule=rule, progress=False,
            optimizer=torch.optim.SGD(net.parameters(), lr=0.1), group=group,
        )  # fmt: skip
    except pcgraph.PCGraphError as error:
        assert any(not torch.equal(a, b) for a, b in zip(before, net.parameters()))
        name = type(error).__name__
        return name, str(error), getattr(error, "ranks", ()), getattr(error, "step", None), time.monotonic() - began[0]
    return None


def check_lost(how: str, victim: int = 1) -> list[Any]:
    with Ranks(3) as started:
        started.begin(lost, victim, how)
        others = [rank for rank in range(3) if rank != victim]
        answers = started.answers(others)
        for name, text, who, step, seconds in answers:
            assert (name, who, step) == ("RankFailed", (victim,), 3), text
            assert f"rank {victim} of 3" in text
            assert "training step 3" in text
            assert seconds < BOUND
        return answers


def test_a_rank_that_diverges_ends_the_others() -> None:
    """If it fails, the others wait for a rank that is no more."""
    assert all("must be finite" in text for _, text, *_ in check_lost("diverge"))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["die", "hang"])
@pytest.mark.parametrize("victim", [0, 2])
def test_a_rank_that_dies_or_hangs_ends_the_others(how: str, victim: int) -> None:
    assert all("died, or hangs" in text for _, text, *_ in check_lost(how, victim))


@pytest.mark.slow
@pytest.mark.parametrize(("victim", "step"), [(0, 1), (0, 16), (1, 7), (1, 13)])
def test_a_killed_rank_loses_nothing(tmp_path: Path, victim: int, step: int) -> None:
    """torchrun starts all ranks again, which go on from the last checkpoint, and end on the same bits."""
    found = []
    for name, at in (("whole", 0), ("killed", step)):
        folder = tmp_path / name
        folder.mkdir()
        subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts",
             "1", str(ROOT / "tests/training/restarted.py"), str(folder), str(victim), str(at)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}, check=True, timeout=300,
            capture_output=True,
        )  # fmt: skip
        found += [torch.load(folder / f"{rank}.pt") for rank in range(2)]
    for other in found[1:]:
        assert all(torch.equal(other[key], value) for key, value in found[0].items())


def test_a_dead_rank_is_noticed_by_the_tests_themselves() -> None:
    with Ranks(2) as started:
        started.begin(os._exit, 1)
        with pytest.raises(RankError, match="is dead"):
            started.answers()
