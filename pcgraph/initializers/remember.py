"""These initializers keep tensors from batch to batch; the simplest is Null (paper, Section 3, item 3)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pcgraph.arguments import require_instance
from pcgraph.errors import ConfigError, PCGraphWarning
from pcgraph.initializers.base import Block, Context, Initializer, Layout
from pcgraph.initializers.basic import Zero
from pcgraph.initializers.forward import Forward
from pcgraph.network import Structure
from pcgraph.processes import Part
from pcgraph.topology import Report, Verdict

__all__ = ["Null", "Remembering"]


class Remembering(Initializer):
    """Keeps its memory in buffers that come into being with the first batch.

    They are in ``state_dict``, and ``load_state_dict`` makes them where they do not exist yet.
    """

    #: The structure of the network that was observed last, by its ``id``; it means nothing in another process.
    _observed: int | None = None

    def observe(self, result: Any) -> None:
        """Warn where another network was observed before: its states have nothing to say about this one."""
        structure = id(result.plan.structure)
        if self._observed not in (None, structure):
            warnings.warn(
                f"{type(self).__name__}() remembers states of another network and now learns from this one, too: give "
                "each network an initializer of its own, or call forget() on it",
                PCGraphWarning,
                stacklevel=2,
            )
        self._observed = structure

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_observed": None}

    def remember(self, name: str, value: Tensor) -> None:
        """Keep a copy of `value`, in place where the shape allows it."""
        kept = self._buffers.get(name)
        if kept is not None and kept.shape == value.shape and kept.dtype == value.dtype and kept.device == value.device:
            kept.copy_(value)
        else:
            with torch.inference_mode(False):
                self.register_buffer(name, value.detach().clone())

    def recall(self, name: str) -> Tensor | None:
        """Give what was kept under this name, if anything."""
        return self._buffers.get(name)

    def forget(self) -> None:
        """Start anew, as before the first batch."""
        self._buffers.clear()
        self._observed = None

    def misfit(self, structure: Structure | None = None) -> str:
        """Say why what is remembered is no state of groups of nodes, or not of those of a network; nothing if it is.

        Parameters
        ----------
        structure : Structure, optional
            The network's.
        """
        kept = {key: value for key, value in self._buffers.items() if key.startswith("group_") and value is not None}
        groups = {} if structure is None else {f"group_{group.name}": group for group in structure.groups}
        for name, value in kept.items():
            if value.dim() != 3 or not value.is_floating_point() or len({v.shape[1] for v in kept.values()}) > 1:
                return (
                    f"{type(self).__name__} remembers no states as {name} (shape {tuple(value.shape)}, {value.dtype})"
                )
            if structure is not None and name not in groups:
                return f"{type(self).__name__} remembers {name}, nodes of a shape that the network does not have"
            if structure is not None and (value.shape[0], value.shape[2]) != (groups[name].count, groups[name].size):
                group = groups[name]
                return (
                    f"{type(self).__name__} remembers {value.shape[0]} nodes of {value.shape[2]} neurons as {name}, "
                    f"and the network has {group.count} of {group.size}"
                )
        return ""

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        self._buffers.clear()
        for key, value in state_dict.items():
            name = key.removeprefix(prefix)
            if key.startswith(prefix) and isinstance(value, Tensor) and (name == "seen" or name.startswith("group_")):
                self.register_buffer(name, value.detach().clone())
        super()._load_from_state_dict(state_dict, prefix, *rest)


def misfit(initializer: Initializer, structure: Structure | None) -> str:
    """Say why what an initializer remembers is not of a network's nodes; nothing if it is.

    Parameters
    ----------
    initializer : Initializer
    structure : Structure, optional
        The network's.
    """
    parts = (part for part in initializer.modules() if isinstance(part, Remembering))
    return next(filter(None, (part.misfit(structure) for part in parts)), "")


def _whole(states: Tensor, part: Part | None) -> Tensor:
    """Put the rows of all ranks together, (nodes, batch, size)."""
    return states if part is None else part.join(states.transpose(0, 1)).transpose(0, 1)


class Null(Remembering):
    """Keeps the final states of the previous batch, slot by slot (I_0/). Admitted by every graph.

    Parameters
    ----------
    first : Initializer, optional
        For the first batch, which has none before it. The default is ``Forward(fallback=Zero())``.

    Notes
    -----
    A batch of another size has no slots to take over from and is refused. Only results from which the network has
    learned (``result.backward()``) are remembered, so that a validation pass in between changes nothing.
    """

    across = "blocks"

    def __init__(self, first: Initializer | None = None) -> None:
        super().__init__()
        given = Forward(fallback=Zero()) if first is None else first
        self.first = require_instance(given, "first", Initializer, "pcgraph.Zero()")

    def requirement(self, report: Report) -> Verdict:
        own = report.verdicts["null"]
        return report.verdict(self.first) if own.valid else own

    def ready(self, context: Context | None) -> object:
        kept = next(iter(self._buffers.values()), None)
        if kept is None:
            return ("first", self.first.ready(context))
        if context is not None and context.batch and context.whole != kept.shape[1]:
            raise ConfigError(
                f"Null() keeps the states of the previous batch, slot by slot, so every batch needs its size "
                f"{kept.shape[1]} (found {context.whole}): drop the last, smaller batch of an epoch (drop_last=True), "
                "or call forget() on the initializer",
                key="batch",
            )
        return "null"

    def layout(self, report: Report, context: Context | None = None) -> Layout:
        return super().layout(report) if self._buffers else self.first.layout(report, context)

    def init(self, block: Block, out: Tensor, context: Context) -> None:
        kept = self.recall(f"group_{block.group}")
        if kept is None or kept.shape[0] < block.stop:
            raise ConfigError(
                f"Null() has no previous states for {block.nodes[0]!r}: it was fixed in the batch before, or belongs "
                "to another network; give each network and each set of clamps a Null() of its own, or call forget()",
                key="init",
            )
        rows = kept[block.start : block.stop]
        out.copy_((rows if context.part is None else rows[:, context.part.rows]).reshape(out.shape))

    def observe(self, result: Any) -> None:
        super().observe(result)
        for name, states in result.group_states(free_only=True):
            self.remember(f"group_{name}", _whole(states, result.part))

    @property
    def capturable(self) -> bool:  # type: ignore[override]
        """Say whether there are states to take over."""
        return bool(self._buffers)

    def parts(self) -> tuple[Initializer, ...]:
        return (self.first,)
