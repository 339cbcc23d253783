"""Networks over several ranks, held against one process; all of one number of ranks in one start of processes."""

from __future__ import annotations

import pytest
import torch

import pcgraph
from pcgraph import PCNetwork
from pcgraph.errors import ConfigError
from tests.across.start import run


@pytest.mark.parametrize(
    ("processes", "first", "count"),
    [
        (2, 0, 24),
        (4, 11, 8),
        pytest.param(2, 1, 440, marks=pytest.mark.slow),
        pytest.param(4, 2, 220, marks=pytest.mark.slow),
    ],
)
def test_ranks_compute_what_one_process_does(processes: int, first: int, count: int) -> None:
    """If it fails, whoever outgrows one machine gets another network than on one."""
    for rank, (status, text) in enumerate(run("tests.across", processes, str(first), str(count), seconds=600)):
        assert status == 0, text
        assert f"rank {rank}: " in text


def test_a_partition_over_ranks_that_were_not_started_is_refused() -> None:
    graph = pcgraph.graphs.chain([3, 4, 2])
    with pytest.raises(ConfigError, match="needs as many processes .found no process group."):
        PCNetwork(graph, partition={"x": 0, "h1": 0, "y": 1})


def test_a_partition_over_one_rank_needs_no_processes() -> None:
    graph = pcgraph.graphs.chain([3, 4, 2])
    net, one = PCNetwork(graph, seed=2, partition=pcgraph.partition(graph, 1)), PCNetwork(graph, seed=2)
    x = torch.ones(2, 3)
    assert torch.equal(net.predict({"x": x}, "y"), one.predict({"x": x}, "y"))
    assert torch.equal(net.weight("x", "h1"), one.weight("x", "h1"))
    assert net.partition == {"x": 0, "h1": 0, "y": 0}
    assert net.rank == 0
