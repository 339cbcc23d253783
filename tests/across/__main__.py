"""What every rank of the tests runs: ``python -m tests.across first count`` in the environment that torchrun sets."""

from __future__ import annotations

import gc
import sys

import torch
from torch import distributed

from pcgraph.processes import Group
from tests.across import equal, learned, refused, seen


def main(first: int, count: int) -> None:
    distributed.init_process_group("gloo")
    torch.set_num_threads(1)
    group = Group(timeout=20)
    with group.telling():
        done = equal.main(first, count, group)
        done += learned.main(first, count // 2, group)
        seen.main(group)
        refused.predictions(group)
        refused.refusals(group)
    print(f"rank {group.rank}: {done} networks are the same")
    group.barrier()  # the first keeps the store, and goes last
    del group
    gc.collect()  # a network is part of a cycle, and its group is to end here, not when the interpreter does
    distributed.destroy_process_group()


main(int(sys.argv[1]), int(sys.argv[2]))
