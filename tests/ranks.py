"""Several processes on this machine, which are started once and run one function after another, as torchrun's would.

The store of the process group lies in the test's own process, as under torchrun it does with the agent, on a port that
the system chooses; so ranks can be killed, and no port is ever taken twice.
"""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

import torch

#: Seconds that a test waits for a rank, which is longer than any rank waits for another.
PATIENCE = 240


class RankError(AssertionError):
    """A rank has raised what no test expected."""


class Ranks:
    """Runs functions on `size` processes, which live until :meth:`close`.

    Parameters
    ----------
    size : int
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        context = multiprocessing.get_context("forkserver")  # which imports torch once for all
        context.set_forkserver_preload(["pcgraph", "torch.distributed", "torch._dynamo"])  # which optimizers import
        self.pipes, self.processes = [], []
        for rank in range(size):
            mine, theirs = context.Pipe()
            process = context.Process(target=_work, args=(rank, size, self.store.port, theirs), daemon=True)
            process.start()
            self.pipes.append(mine)
            self.processes.append(process)

    def __enter__(self) -> Ranks:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def begin(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Begin ``function(*arguments)`` on all ranks."""
        for pipe in self.pipes:
            pipe.send((function, arguments))

    def answers(self, ranks: Sequence[int] | None = None) -> list[Any]:
        """Wait for what the function returns, by rank; an error comes as itself."""
        return [self._answer(rank) for rank in (range(self.size) if ranks is None else ranks)]

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Run ``function(*arguments)`` on all ranks, and return what it returns, by rank.

        Raises
        ------
        RankError
            It has raised an error on some rank.
        """
        self.begin(function, *arguments)
        found = self.answers()
        for rank, answer in enumerate(found):
            if isinstance(answer, BaseException):
                raise RankError(f"rank {rank}: {answer}\n{getattr(answer, 'told', '')}")
        return found

    def _answer(self, rank: int) -> Any:
        if not self.pipes[rank].poll(PATIENCE):
            raise RankError(f"rank {rank} did not answer in {PATIENCE} s")
        try:
            return self.pipes[rank].recv()
        except EOFError:
            raise RankError(f"rank {rank} is dead") from None

    def close(self) -> None:
        """End all processes."""
        for pipe in self.pipes:
            with suppress(OSError):
                pipe.send(None)
        for process in self.processes:
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()


def _work(rank: int, size: int, port: int, pipe: Any) -> None:
    torch.set_num_threads(1)
    store = torch.distributed.TCPStore("127.0.0.1", port, is_master=False)
    torch.distributed.init_process_group(
        "gloo", store=store, rank=rank, world_size=size, timeout=timedelta(seconds=PATIENCE)
    )
    while (task := pipe.recv()) is not None:
        function, arguments = task
        try:
            answer = function(*arguments)
        except BaseException as error:
            answer = error
            answer.told = traceback.format_exc()
        try:
            pipe.send(answer)
        except Exception:
            pipe.send(RankError(repr(answer)))
    os._exit(0)  # without waiting for ranks that may be gone
