"""Cuts are refined by what crosses exactly, which is counted here edge by edge."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pcgraph
from pcgraph import PCNetwork, Zero
from pcgraph.network import Structure
from pcgraph.plan import Ranks, refinement
from pcgraph.plan.refinement import crossing, refined


@st.composite
def cuts(draw):
    """A random multigraph with loops, sizes, weights, and a cut of it."""
    parts, count = draw(st.integers(2, 4)), draw(st.integers(4, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    source, target = rng.integers(0, count, (2, int(rng.integers(0, 4 * count))))
    size, weight = rng.integers(1, 9, count), rng.integers(1, 9, count)
    found = rng.permutation(np.arange(count) % parts)
    fixed = set(rng.choice(count, int(rng.integers(0, 3)), replace=False).tolist())
    return (found, source, target, size), weight, parts, fixed


def counted(found, source, target, size):
    return sum(size[u] for u, _ in {(u, found[v]) for u, v in zip(source, target) if found[u] != found[v]})


@settings(max_examples=200, deadline=None)
@given(cuts())
def test_less_crosses_and_no_rank_has_more_to_do(problem) -> None:
    cut, weight, parts, fixed = problem
    found, *rest = cut
    better = refined(*cut, weight, parts, fixed)
    assert crossing(found, *rest) == counted(found, *rest)
    assert crossing(better, *rest) == counted(better, *rest) <= counted(found, *rest)
    before, after = (np.bincount(p, weights=weight, minlength=parts) for p in (found, better))
    assert after.max() <= max(before.max(), 1.005 * weight.sum() / parts)
    assert (np.bincount(better, minlength=parts) > 0).all()
    assert all(better[i] == found[i] for i in fixed)
    assert (refined(*cut, weight, parts, fixed) == better).all()


@settings(max_examples=40, deadline=None)
@given(cuts())
def test_what_a_move_is_said_to_save_it_saves(problem) -> None:
    """If it fails, moves are chosen by wrong numbers, which only makes cuts worse."""
    (found, *rest), weight, parts, _ = problem
    source, target, size = rest
    u, v = np.array(sorted({(u, v) for u, v in zip(source, target) if u != v}) or [(0, 1)]).T
    cut, rest = refinement._Cut(found, u, v, size, weight, parts), (u, v, size)
    for i in range(len(found)):
        for loss, node, to in cut._moves(i):
            moved = np.array(cut.part)
            moved[node] = to
            assert counted(np.array(cut.part), *rest) - counted(moved, *rest) == -loss
        cut._move(i, (cut.part[i] + 1) % parts)  # what is counted of children is kept up to date


def test_two_communities_that_were_mixed_are_found() -> None:
    rng = np.random.default_rng(0)
    side = np.arange(40) % 2
    u, v = rng.integers(0, 40, (2, 400))
    inside = (side[u] == side[v]) & (u != v)
    mixed = side.copy()
    mixed[:8] = 1 - mixed[:8]
    found = refined(mixed, u[inside], v[inside], np.ones(40, dtype=int), np.ones(40, dtype=int), 2)
    assert crossing(found, u[inside], v[inside], np.ones(40, dtype=int)) == 0


def test_a_partition_sends_less_than_that_of_metis(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = pcgraph.graphs.random_groups(120, 8, 4, seed=0)
    plan = PCNetwork(graph).plan({"x", "y"}, init=Zero(), steps=3)
    module, sent = sys.modules["pcgraph.plan.partition"], []
    for refine in (refined, lambda found, *_: found):
        monkeypatch.setattr(module, "refined", refine)
        ranks = Ranks(plan.across(pcgraph.partition(graph, 2)), 10)
        sent.append(sum(part.sum() for part in ranks.a_step))
    assert sent[0] < 0.9 * sent[1]


def test_a_node_that_fits_nowhere_keeps_no_other_where_it_is() -> None:
    """A hub with very many parents would save most by its move, and no rank has room for it."""
    count = 2000
    leaves, hub, ones = np.arange(1, count), np.zeros(count - 1, dtype=int), np.ones(count, dtype=int)
    found, weight = (np.arange(count) > 730).astype(int), np.where(np.arange(count) == 0, 500, 1)
    better = refined(found, leaves, hub, ones, weight, 2)
    assert (found == 0).sum() + 499 == 1230 < 1269 == (found == 1).sum()
    assert better[0] == 0
    assert crossing(better, leaves, hub, ones) <= crossing(found, leaves, hub, ones) - 39


def test_a_graph_that_takes_too_long_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many looks are taken in all, wherever the refinement is by then; and none of a graph that needs more."""
    structure = Structure(pcgraph.graphs.random_groups(60, 8, 4, seed=0))
    count = len(structure.nodes)
    ones, found = np.ones(count, dtype=int), np.arange(count) % 2
    sums = []
    for looks in (10, 2000, 10**6):
        monkeypatch.setattr(refinement, "LOOKS", looks)
        better = refined(found, structure.source, structure.target, ones, ones, 2)
        assert (better is found) == (looks == 10)
        sums.append(crossing(better, structure.source, structure.target, ones))
    assert sums[0] > sums[1] > sums[2]
