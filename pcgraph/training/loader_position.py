"""A run knows where it stands in its data, and goes on from there.

A loader with ``state_dict()`` and ``load_state_dict()``, such as pcgraph's batches, says itself where the next
``iter()`` has to go on. Any other is begun again as the epoch was begun: the random generators, and a sampler with a
state of its own, are put back where they were, and the batches that were seen are drawn and left. That is exact for
every loader whose order depends on those generators and its own settings alone, torch's DataLoader among them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch

from pcgraph.checkpoints import Transaction, check_generators, generators_state, set_generators

__all__ = ["LoaderPosition", "has_state", "length_of"]


def has_state(loader: Any) -> bool:
    """Say whether a loader or sampler can tell where it stands, and go on from there."""
    return all(callable(getattr(loader, name, None)) for name in ("state_dict", "load_state_dict"))


def length_of(loader: Any) -> int | None:
    """Count the batches of an epoch, where the loader has a length: a DataLoader over a stream has none."""
    try:
        return len(loader)
    except (TypeError, ValueError, OverflowError):  # the last two: what it gives is no length
        return None


class LoaderPosition:
    """Knows where one loader stands, and begins its epochs.

    Parameters
    ----------
    loader : iterable
    device : torch.device
        Whose random generator counts, beside the CPU's.
    """

    def __init__(self, loader: Iterable[Any], device: torch.device) -> None:
        self.loader, self.device = loader, device
        self.tells = has_state(loader)
        inner: dict[str, Any] = {name: getattr(loader, name, None) for name in ("batch_sampler", "sampler")}
        self.samplers = {} if self.tells else {name: part for name, part in inner.items() if has_state(part)}
        found = (getattr(part, "generator", None) for part in (loader, *inner.values()))
        self.generators = [g for g in found if isinstance(g, torch.Generator)]
        self._start: dict[str, Any] = {}
        self._resumed: Mapping[str, Any] | None = None

    def begin(self) -> Iterator[Any]:
        """Begin a new epoch, or the rest of the one that was resumed."""
        if self._resumed is not None:
            resumed, self._resumed = self._resumed, None
            return self._go_on(resumed)
        for sampler in self.samplers.values():
            sampler.load_state_dict(sampler.state_dict())  # it goes on where it stands, now and when resumed
        self._start = self._now()
        batches = iter(self.loader)
        if self.tells:
            self._start["loader"] = self.loader.state_dict()  # type: ignore[attr-defined]
        return batches

    def state(self, done: int, exact: bool, generators: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Say where it stands, as plain data.

        Parameters
        ----------
        done : int
            Batches of this epoch that were trained on.
        exact : bool
            Whether no further batch was drawn.
        generators : mapping, optional
            The state of the global generators; taken now by default.
        """
        if self._resumed is not None:
            return dict(self._resumed)
        state: dict[str, Any] = {"done": done, "start": self._now() if exact and done == 0 else self._start}
        state["generators"] = generators_state(self.device) if generators is None else generators
        state["batches"] = length_of(self.loader)
        if self.tells and exact:
            state["loader"] = self.loader.state_dict()  # type: ignore[attr-defined]
        return state

    def load(self, state: Mapping[str, Any], done: int, transaction: Transaction) -> None:
        """Let the next :meth:`begin` go on where `state` was taken.

        Parameters
        ----------
        state : mapping
            From :meth:`state`.
        done : int
            Batches of the epoch that were trained on.
        transaction : Transaction
            What the loader, its samplers and its generators were is put back if anything later fails.

        Raises
        ------
        ValueError, TypeError, KeyError, RuntimeError
            It is the state of another loader, or malformed.
        """
        start = state["start"]
        if state["done"] != done:
            raise ValueError(f"the loader has given {state['done']} batches, and the run has taken {done}")
        batches = length_of(self.loader)
        if state.get("batches", batches) != batches:
            raise ValueError(f"the loader has {batches} batches, and the one that was saved had {state['batches']}")
        check_generators(start["generators"])
        check_generators(state["generators"])
        if len(start["own"]) != len(self.generators) or start["samplers"].keys() != self.samplers.keys():
            raise ValueError("the loader has other samplers or random generators than the one that was saved")
        if ("loader" in state or "loader" in start) != self.tells:
            raise ValueError("the loader has state_dict(), and the one that was saved had not, or the other way round")
        for generator, saved in zip(self.generators, start["own"]):
            transaction.on_error(partial(generator.set_state, generator.get_state()))
            generator.set_state(saved)
        for name, sampler in self.samplers.items():
            transaction.load(sampler, start["samplers"][name])
        if self.tells:
            transaction.load(self.loader, state.get("loader", start.get("loader")))
        self._resumed = state

    def _now(self) -> dict[str, Any]:
        return {
            "generators": generators_state(self.device),
            "own": [g.get_state() for g in self.generators],
            "samplers": {name: sampler.state_dict() for name, sampler in self.samplers.items()},
        }

    def _go_on(self, state: Mapping[str, Any]) -> Iterator[Any]:
        """Begin the resumed epoch as it was begun, and leave out what was seen; the loader itself is there already."""
        self._start = start = dict(state["start"])
        set_generators(start["generators"], self.device)
        batches = iter(self.loader)
        if self.tells and "loader" not in start:
            start["loader"] = self.loader.state_dict()  # type: ignore[attr-defined]
        if "loader" not in state:
            for _ in range(state["done"]):
                next(batches, None)
        if state["done"]:
            set_generators(state["generators"], self.device)
        return batches
