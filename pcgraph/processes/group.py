"""The one door to other processes: what ranks of ``torch.distributed`` tell each other goes through a :class:`Group`.

Every collective returns the same bits on all ranks: what is added up is added up once, and then passed on. Every wait
is watched, so that no rank waits for ever. A rank that fails says so in the store of the process group, where the
others look while they wait; one that has died or hangs does not answer a call of the roll. Either way all ranks end
with a :class:`~pcgraph.errors.RankFailed` that names the rank and the step. A group is of no more use after that.

Nothing here starts processes: ``torchrun`` does. ``torch.distributed`` is imported where it is used.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pcgraph.arguments import require_number
from pcgraph.errors import ConfigError, RankFailed

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store
    from torch.distributed import ProcessGroup, Work

__all__ = ["TIMEOUT", "Group", "first_line", "initialised", "started_by_torchrun"]

#: Seconds between two looks at what other ranks have said of themselves.
LOOK = 1.0
#: Seconds that the others have to answer a call of the roll.
ROLL = 3.0
#: Seconds that a rank waits for the others.
TIMEOUT = 600.0
#: A value of :meth:`Group.agree` is shown with so many characters.
SHOWN = 60


#: How many groups were made of each process group, by its name.
_made: dict[str, int] = {}
#: Names of the process groups whose ranks have compared their versions.
_compared: set[str] = set()


def initialised() -> bool:
    """Say whether this process has a process group."""
    from torch import distributed

    return distributed.is_available() and distributed.is_initialized()


def started_by_torchrun() -> int:
    """Return how many processes torchrun has started with this one; 1 where there was no torchrun."""
    size = os.environ.get("WORLD_SIZE", "1")
    known = all(name in os.environ for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"))
    return int(size) if known and size.isdigit() else 1


class Group:
    """A group is the ranks of one process group, as one of them sees it.

    All ranks call the same methods in the same order.

    Parameters
    ----------
    process_group : torch.distributed.ProcessGroup, optional
        The default is all ranks.
    timeout : float
        Seconds that a rank waits for the others before it asks who is still there, and fails.
    within : Group, optional
        A larger group, of which these ranks are some: a rank that is lost there is lost to these, too, and is named
        as that one numbers it.

    Attributes
    ----------
    rank, size : int
        The number of this rank in the group, and how many there are.
    step : int or None
        The training step at hand, which errors name.

    Raises
    ------
    ConfigError
        There is no process group, or this process is not in it.
    """

    def __init__(
        self, process_group: ProcessGroup | None = None, *, timeout: float = TIMEOUT, within: Group | None = None
    ) -> None:  # fmt: skip
        from torch import distributed

        self.timeout = require_number(timeout, "timeout", above=0)
        if not initialised():
            raise ConfigError(
                "a group of ranks needs a process group (found none that is initialised): call "
                "torch.distributed.init_process_group() first, under torchrun",
                key="group",
            )
        everyone: Any = distributed.group.WORLD
        self.process_group: ProcessGroup = everyone if process_group is None else process_group
        self.rank = distributed.get_rank(self.process_group)
        self.size = distributed.get_world_size(self.process_group)
        if self.rank < 0:
            raise ConfigError("this process is not in the process group that was given", key="group")
        self.step: int | None = None
        self._within = within
        #: The numbers of the group's ranks among all, which point-to-point calls of torch take.
        self.ranks: tuple[int, ...] = tuple(distributed.get_process_group_ranks(self.process_group))
        name = self.process_group.group_name
        #: Ranks make their groups in the same order, and so the n-th of one process group is the n-th on all of them.
        _made[name] = _made.get(name, 0) + 1
        self._key = f"pcgraph/{name}/{_made[name]}"
        self._asked = False

    def __repr__(self) -> str:
        return f"Group(rank={self.rank}, size={self.size})"

    @property
    def leads(self) -> bool:
        """Say whether this is the rank that writes and shows: the first."""
        return self.rank == 0

    # -- collectives --------------------------------------------------------------------------------------------------

    def sum(self, tensor: Tensor) -> Tensor:
        """Add up `tensor` over the ranks, in place; all ranks get the same bits."""
        self.wait(self.begin_sum(tensor))
        return tensor

    def begin_sum(self, tensor: Tensor) -> Work:
        """Begin to add up `tensor` in place, to be ended by :meth:`wait`; the tensor is not to be touched meanwhile."""
        from torch import distributed

        return self._begun(distributed.all_reduce, tensor, group=self.process_group)

    def largest(self, tensor: Tensor) -> Tensor:
        """Take the largest over the ranks, neuron by neuron, in place."""
        from torch import distributed

        self.wait(
            self._begun(distributed.all_reduce, tensor, op=distributed.ReduceOp.MAX, group=self.process_group)
        )  # fmt: skip
        return tensor

    def broadcast(self, tensor: Tensor, source: int = 0) -> Tensor:
        """Overwrite `tensor` by that of the rank `source`."""
        from torch import distributed

        self.wait(self._begun(distributed.broadcast, tensor, src=self.ranks[source], group=self.process_group))
        return tensor

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Give every rank the tensors of all ranks, in their order; they are of one shape."""
        from torch import distributed

        sent = tensor.contiguous()
        # NCCL and gloo gather no bool.
        plain = sent.view(torch.uint8) if sent.dtype == torch.bool else sent
        found = [torch.empty_like(plain) for _ in range(self.size)]
        self.wait(self._begun(distributed.all_gather, found, plain, group=self.process_group))
        return [t.view(sent.dtype) for t in found]

    def swap(self, sent: Tensor, out: Sequence[int], into: Sequence[int]) -> Tensor:
        """Send a piece of a flat tensor to each rank, and return what comes from each, one after the other.

        Parameters
        ----------
        sent : Tensor, shape (sum of out,)
        out, into : sequence of int
            How many numbers go to, and come from, each rank.
        """
        from torch import distributed

        received = sent.new_empty(sum(into))
        try:
            work = distributed.all_to_all_single(
                received, sent, list(into), list(out), group=self.process_group, async_op=True
            )  # fmt: skip
        except RuntimeError as error:
            raise self._lost(first_line(error)) from error
        self.wait(work)
        return received

    def gather_rows(self, tensor: Tensor, counts: Sequence[int]) -> Tensor:
        """Put together the rows of all ranks, in their order.

        Parameters
        ----------
        tensor : Tensor, shape (rows, ...)
            Of which the first ``counts[rank]`` count; there may be more.
        counts : sequence of int
            How many rows each rank has to give.

        Returns
        -------
        Tensor, shape (sum of counts, ...)
        """
        padded = tensor.new_zeros(max(counts), *tensor.shape[1:])
        own = counts[self.rank]
        padded[:own] = tensor[:own]
        return torch.cat([rows[:count] for rows, count in zip(self.gather(padded), counts, strict=True)])

    def gather_numbers(self, numbers: Sequence[float]) -> Tensor:
        """Give every rank the numbers of all, as float64 on the CPU where the group can: shape (size, numbers)."""
        return torch.stack(
            self.gather(self._small(torch.tensor(list(numbers), dtype=torch.float64, device="cpu")))
        ).cpu()

    def gather_data(self, value: Any) -> list[Any]:
        """Give every rank the plain data (what JSON has) of all, in their order."""
        text = self._small(torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8))
        counts = [int(count) for count in self.gather_numbers([len(text)]).flatten().tolist()]
        joined = bytes(self.gather_rows(text, counts).cpu().tolist())
        ends = [0, *accumulate(counts)]
        return [json.loads(joined[a:b]) for a, b in pairwise(ends)]

    def barrier(self) -> None:
        """Wait until all ranks are here."""
        self.gather_numbers([0.0])

    def agree(self, facts: Mapping[str, Any]) -> None:
        """Compare what the ranks think, and refuse, on all ranks, where they differ.

        Parameters
        ----------
        facts : mapping
            What it is -> plain data, or anything with a ``repr`` that is the same in every process.

        Raises
        ------
        ConfigError
            It names what differs, and on which rank.
        """
        own = {name: value if isinstance(value, str) else repr(value) for name, value in facts.items()}
        everyone = self.gather_data(own)
        for name in dict.fromkeys(name for theirs in everyone for name in theirs):
            found: dict[str, list[int]] = {}
            for rank, theirs in enumerate(everyone):
                found.setdefault(theirs.get(name, "nothing"), []).append(rank)
            if len(found) > 1:
                first, other = [*found][:2]
                texts = (_short(first, other), *(_short(text, first) for text in [*found][1:]))
                each = ", and ".join(f"{text} on {_named(ranks)}" for text, ranks in zip(texts, found.values()))
                raise ConfigError(
                    f"all ranks need the same {name} (found {each}): start the same script with the same arguments on "
                    "all of them",
                    key=name,
                )

    def require_same_versions(self) -> None:
        """Compare the versions of pcgraph and of torch on all ranks, once for each process group.

        Raises
        ------
        ConfigError
            They differ; it names what each rank has.
        """
        name = self.process_group.group_name
        if name not in _compared:
            self.agree({
                "version of pcgraph": sys.modules["pcgraph"].__version__,
                "version of torch": str(torch.__version__),
            })  # fmt: skip
            _compared.add(name)

    def _small(self, tensor: Tensor) -> Tensor:
        """Move what comes from the host to where the group can send it from."""
        kinds = {device.type: device for device in self.process_group._device_types}
        return tensor if "cpu" in kinds else tensor.to(next(iter(kinds.values())))

    def _begun(self, collective: Any, *arguments: Any, **keywords: Any) -> Work:
        try:
            work: Work = collective(*arguments, **keywords, async_op=True)
        except RuntimeError as error:
            raise self._lost(str(error)) from error
        return work

    # -- waiting, and what goes wrong ---------------------------------------------------------------------------------

    def wait(self, work: Work) -> None:
        """Wait for a collective, or for a message; not for ever, and not for a rank that has failed.

        Raises
        ------
        RankFailed
            Another rank has failed, has died, or has not come in time.
        """
        until = time.monotonic() + self.timeout
        while True:
            try:
                work.wait(timedelta(seconds=LOOK))
                return
            except RuntimeError as error:
                if not _timed_out(error):
                    raise self._lost(first_line(error)) from error
            self.look()
            if time.monotonic() > until:
                raise self._lost(f"no answer in {self.timeout:g} s")

    def look(self) -> None:
        """See whether a rank has said that it failed, or asks who is still there.

        Raises
        ------
        RankFailed
        """
        if self._within is not None:
            self._within.look()
            return
        told = self._read("failed")
        if told is not None:
            rank, step, why = told
            raise self._failed((rank,), step, f"it has failed: {why}")
        if not self._asked and self._read("roll") is not None:
            raise self._lost("another rank has lost it")

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Tell the other ranks of an error that leaves this block, so that they do not wait for this one."""
        try:
            yield
        except RankFailed:
            raise
        except BaseException as error:
            with suppress(Exception):
                self._write("failed", [self.rank, self.step, f"{type(error).__name__}: {error}"])
            raise

    def any(self, *flags: bool) -> list[bool]:
        """Say of each flag whether it is up on any rank."""
        return [bool(up) for up in self.gather_numbers([float(flag) for flag in flags]).any(0).tolist()]

    def _lost(self, why: str) -> RankFailed:
        """Call the roll: name those who do not answer."""
        if self._within is not None:
            return self._within._lost(why)
        self._asked = True
        try:
            self.look()
            self._write("roll", self.rank)
            self._write(f"here/{self.rank}", self.step)
            until = time.monotonic() + ROLL
            absent = [rank for rank in range(self.size) if rank != self.rank]
            while absent and time.monotonic() < until:
                time.sleep(0.05)
                absent = [rank for rank in absent if not self._has(f"here/{rank}")]
            self.look()
        except RankFailed as failed:
            return failed
        who = tuple(absent)
        return self._failed(who, self.step, f"it has died, or hangs ({why})" if who else why)

    def _failed(self, ranks: tuple[int, ...], step: int | None, why: str) -> RankFailed:
        who = ", ".join(f"rank {rank}" for rank in ranks) or "the group of ranks"
        when = "" if step is None else f" in training step {step}"
        return RankFailed(
            f"{who} of {self.size} is lost{when}, as rank {self.rank} sees it: {why}. Start all ranks again; under "
            "torchrun --max-restarts=3 that happens by itself, and a run with checkpoint= goes on",
            ranks=ranks, step=step,
        )  # fmt: skip

    @property
    def _store(self) -> Store:
        from torch.distributed import distributed_c10d

        return distributed_c10d._get_default_store()

    def _write(self, key: str, value: Any) -> None:
        try:
            self._store.set(f"{self._key}/{key}", json.dumps(value))
        except RuntimeError as error:
            raise self._no_store(error) from error

    def _has(self, key: str) -> bool:
        try:
            return bool(self._store.check([f"{self._key}/{key}"]))
        except RuntimeError as error:
            raise self._no_store(error) from error

    def _read(self, key: str) -> Any:
        """Read what was written under `key`, or None; it waits for nothing."""
        return json.loads(self._store.get(f"{self._key}/{key}")) if self._has(key) else None

    def _no_store(self, error: Exception) -> RankFailed:
        """Say that the process is gone which keeps the store: rank 0, unless torchrun does itself."""
        own = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        ranks = () if own or self.leads else (0,)
        return self._failed(ranks, self.step, f"the store of the process group does not answer ({first_line(error)})")


def _short(text: str, other: str) -> str:
    """Cut a text that is too long to where it begins to differ from another."""
    if max(len(text), len(other)) <= SHOWN:
        return text
    same = next((i for i, (a, b) in enumerate(zip(text, other)) if a != b), min(len(text), len(other)))
    begin = max(0, same - SHOWN // 3)
    piece = text[begin : begin + SHOWN]
    return ("…" if begin else "") + piece + ("…" if begin + SHOWN < len(text) else "")


def _named(ranks: Sequence[int]) -> str:
    """Name some ranks, and of very many the first."""
    listed = ", ".join(map(str, ranks[:8])) + (", …" if len(ranks) > 8 else "")
    return f"rank{'s' if len(ranks) > 1 else ''} {listed}"


def _timed_out(error: Exception) -> bool:
    return "operation timed out" in str(error).lower()


def first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].partition(". This is typically")[0]
