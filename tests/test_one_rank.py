"""A process group of one rank: every collective is the device's own, NCCL's where it is a GPU, and changes nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed

import pcgraph
from pcgraph import SGD, Average
from pcgraph.processes import Group
from tests import ROOT, pretend


def collectives(group: Group, device: torch.device) -> None:
    rows = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).to(device)
    for found in (group.sum(rows.clone()), group.largest(rows.clone()), group.broadcast(rows.clone()),
                  group.gather(rows)[0], group.gather_rows(rows, [5])):  # fmt: skip
        assert torch.equal(found, rows)
        assert found.device == rows.device
    assert torch.equal(group.gather(rows > 0)[0], rows > 0)
    flat = rows.flatten()
    assert torch.equal(group.swap(flat, [15], [15]), flat)
    assert group.gather_numbers([1.5, 2.0]).tolist() == [[1.5, 2.0]]
    assert group.gather_data({"a": "é"}) == [{"a": "é"}]
    assert group.any(True)
    group.agree({"graph": "the same"})
    group.barrier()


def trained(device: torch.device, **settings) -> list[torch.Tensor]:
    """Train a small chain, and return its weights and what it predicts."""
    partition = settings.pop("partition", None)
    graph = pcgraph.graphs.chain([6, 8, 7, 3], activation="tanh")
    parts = {} if partition is None else {"partition": dict.fromkeys(graph, 0)}
    net = pcgraph.PCNetwork(graph, seed=0, device=device, dtype=torch.float64, **parts)
    generator = torch.Generator().manual_seed(1)
    x, labels = torch.randn(40, 6, generator=generator, dtype=torch.float64), torch.arange(40) % 3
    data = pcgraph.data.Images(x, labels, ["a", "b", "c"])
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    pcgraph.fit(
        net, data.batches(8, seed=0), init=Average(forward_depth=1), steps=4, optimizer=optimizer, epochs=2,
        state_optimizer=SGD(lr=0.1), progress=False, validate=data.batches(16, shuffle=False), **settings,
    )  # fmt: skip
    accuracy = pcgraph.evaluate(net, data.batches(16, shuffle=False), **settings).accuracy
    return [*(p.detach() for p in net.parameters()), torch.tensor(float(accuracy))]


def main(where: str, store: str) -> None:
    device = torch.device(where)
    wanted = trained(device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, init_method=Path(store).as_uri(), rank=0, world_size=1)
    group = Group()
    collectives(group, device)
    for found in (trained(device, group=group), trained(device, partition=True, group=False)):
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)
    del group
    distributed.destroy_process_group()
    print("the same")


@pytest.mark.skipif(not distributed.is_available(), reason="torch was built without torch.distributed")
def test_a_group_of_one_rank_changes_nothing(device: torch.device, tmp_path: Path) -> None:
    where = "cpu" if device == pretend.DEVICE else str(device)
    done = subprocess.run(
        [sys.executable, "-m", "tests.test_one_rank", where, str(tmp_path / "store")], cwd=ROOT, capture_output=True,
        text=True, encoding="utf-8", timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("the same\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
