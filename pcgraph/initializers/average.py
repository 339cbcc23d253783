"""I_avg starts where the previous batches of the same class ended (paper, Section 4.1).

    h_v,i^(0, b+1) = mean of h_v,j^(T, b) over the samples j with y_j = y_i          depth(v) > m      (Eq 7)
    h_v,i^(0, b+1) = mu_v,i                                                          depth(v) <= m     (Eq 10)

The means are kept in a bank with one row a class. A class that a batch lacks keeps its last mean, so that any
composition of batches works; with stream-aligned batches the bank is Eq 7 exactly. The paper writes C/n for the
factor, which is 1/n_c where every class has n/C samples; here it is 1/n_c.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor

from pcgraph.arguments import require_count, require_instance, shown
from pcgraph.errors import ClampError, ConfigError, InvalidInitializer
from pcgraph.initializers.base import Block, Context, Given, Initializer, Layout, Swept
from pcgraph.initializers.basic import Zero
from pcgraph.initializers.forward import Forward
from pcgraph.initializers.remember import Remembering
from pcgraph.network import Structure
from pcgraph.topology import Report, Verdict

__all__ = ["Average"]

Node = Hashable


class Average(Remembering):
    """Starts from class means of the final states, and may sweep the first layers; at test time there is no class.

    Parameters
    ----------
    by : node or None
        The node whose one-hot clamp says the class. None: the classes are given as ``net.infer(..., labels=)``,
        which, where given, are used in any case.
    forward_depth : int
        The paper's m: nodes of at most this depth (the longest path from the sources of the clamp-cut graph; the
        layer index on a chain) are swept forward.
    otherwise : Initializer, optional
        For the first batch, and for samples of a class that has not been seen. The default is
        ``Forward(fallback=Zero())``.
    classes : int, optional
        Number of classes; needed with ``by=None`` alone.

    Notes
    -----
    In a batch with samples of unseen classes, those take the values of `otherwise` on the nodes that have means; nodes
    of depth at most m are swept for all samples.
    """

    across = "blocks"

    def __init__(
        self, by: Node | None = "y", forward_depth: int = 0, otherwise: Initializer | None = None,
        *, classes: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if not isinstance(by, Hashable):
            raise ConfigError(f"by must be the name of a node (found {shown(by)})", key="by")
        if by is None and classes is None:
            raise ConfigError("Average(by=None) needs classes=, since no clamp tells how many there are", key="classes")
        self.by = by
        self.forward_depth = require_count(forward_depth, "forward_depth")
        given = Forward(fallback=Zero()) if otherwise is None else otherwise
        self.otherwise = require_instance(given, "otherwise", Initializer, "pcgraph.Forward()")
        self.classes = None if classes is None else require_count(classes, "classes", least=1)
        self._complete = False

    def requirement(self, report: Report) -> Verdict:
        if self.by is not None and self.by not in report.clamped - report.partial:
            return Verdict(
                False,
                f"needs the class of every sample, known in training only (found no clamp on {self.by!r})",
                None,
                f"Clamp {self.by!r}, give the classes as labels= with Average(by=None, classes=...), or use Forward() "
                "at test time.",
                f"Average(by={self.by!r})",
            )
        first = report.verdict(self.otherwise)
        if not first.valid:
            return first
        return Verdict(True, "holds on any graph, in training", None, "", f"Average(by={self.by!r})")

    # -- classes ----------------------------------------------------------------------------------------------------

    def _count(self, clamps: Any) -> int:
        return self.classes if self.classes is not None else int(clamps[self.by].shape[1])

    def labels_of(self, clamps: Any, labels: Tensor | None) -> Tensor:
        """Give the class of every sample, shape (batch,)."""
        if labels is not None:
            return labels
        if self.by is None:
            raise InvalidInitializer("Average(by=None) needs the classes: net.infer(..., labels=labels)")
        onehot: Tensor = clamps[self.by]
        if onehot.dim() != 2:
            raise ClampError(
                f"Average(by={self.by!r}) reads the class from a one-hot clamp (found shape {tuple(onehot.shape)})",
                node=self.by,
            )
        if not self._complete or onehot.device.type == "cpu":
            top = onehot.max(1).values
            if not bool(((onehot == top.unsqueeze(1)).sum(1) == 1).all()) or not bool((onehot.sum(1) == top).all()):
                raise ClampError(
                    f"Average(by={self.by!r}) reads the class from a one-hot clamp (found rows that are not one-hot); "
                    "give the classes as labels=",
                    node=self.by,
                )
        return onehot.argmax(1)

    def _trusted(self, context: Context) -> bool:
        """Say whether classes are not looked at: on a GPU, which would have to be waited for, once all were seen."""
        told = context.clamps.get(self.by) if context.labels is None else context.labels
        return isinstance(told, Tensor) and told.device.type != "cpu"

    def _check(self, labels: Tensor, count: int) -> None:
        if (not self._complete or labels.device.type == "cpu") and bool(((labels < 0) | (labels >= count)).any()):
            raise ConfigError(
                f"labels must be 0 to {count - 1} (found {int(labels.min())} to {int(labels.max())})", key="labels"
            )

    # -- laying out -------------------------------------------------------------------------------------------------

    def ready(self, context: Context | None) -> object:
        seen = self.recall("seen")
        if context is not None and self.by is not None and context.labels is None and self.by not in context.clamps:
            context = None  # there is no class: requirement() refuses
        if self._complete and context is not None and self._trusted(context):
            return "ready"
        if context is not None and context.batch:
            labels = self.labels_of(context.clamps, context.labels)
            self._check(labels, self._count(context.clamps))
        if seen is None:
            return ("first", self.otherwise.ready(context))
        if self._complete or context is None or not context.batch or not self._unseen(seen, labels, context):
            return "ready"
        return ("mixed", self.otherwise.ready(context))

    def _unseen(self, seen: Tensor, labels: Tensor, context: Context) -> bool:
        """Say whether any sample of the whole batch is of a class without a mean."""
        here = (~seen[labels]).any()
        return bool(here if context.part is None else context.part.largest(here.to(torch.uint8)))

    def layout(self, report: Report, context: Context | None = None) -> Layout:
        phase = self.ready(context)
        if phase != "ready" and phase[0] == "first":  # type: ignore[index]
            return self.otherwise.layout(report, context)
        unknown = set(report.free_roots)
        depth = report.depth
        swept = [v for v in report.free if depth[v] <= self.forward_depth and v not in unknown]
        kept = set(swept)
        means = Given(self, tuple(v for v in report.free if v not in kept))
        before = () if phase == "ready" else self.otherwise.layout(report, context).actions
        return Layout((*before, means, Swept(tuple(sorted(swept, key=depth.__getitem__)))))

    def init(self, block: Block, out: Tensor, context: Context) -> None:
        bank, seen = self.recall(f"group_{block.group}"), self.recall("seen")
        if bank is None or seen is None or bank.shape[0] < block.stop:
            raise ConfigError(
                f"Average() has no means for {block.nodes[0]!r}: it was fixed in the batches before, or belongs to "
                "another network; give each network and each set of clamps an Average() of its own, or call forget()",
                key="init",
            )
        labels = self.labels_of(context.clamps, context.labels)
        means = bank[block.start : block.stop]
        if self._complete and out.is_contiguous() and out.dtype == means.dtype:
            torch.index_select(means, 1, labels, out=out.view(len(means), len(labels), -1))
            return
        rows = means.index_select(1, labels).view(out.shape)
        if self._complete:
            out.copy_(rows)
        else:
            known = seen[labels].view(1, -1, *[1] * (out.dim() - 2))
            torch.where(known, rows, out, out=out)

    # -- remembering ------------------------------------------------------------------------------------------------

    def observe(self, result: Any) -> None:
        super().observe(result)
        clamps = result.clamped_values
        if self._averaged(result, clamps):
            return
        labels = self.labels_of(clamps, result.labels)
        count = self._count(clamps)
        number = (labels == torch.arange(count, device=labels.device).unsqueeze(1)).sum(1)
        own, part = number, result.part
        number = number if part is None else part.sum(number)
        present = number > 0
        divisor = number.clamp(min=1).view(1, -1, 1)
        for name, states in result.group_states(free_only=True):
            sums = _sums(states, labels, own)
            means = (sums if part is None else part.sum(sums)) / divisor.to(states.dtype)
            bank = self.recall(f"group_{name}")
            if bank is not None:
                means = torch.where(present.view(1, -1, 1), means, bank)
            self.remember(f"group_{name}", means)
        seen = self.recall("seen")
        self.remember("seen", present if seen is None else seen | present)
        self._note_complete()

    def _averaged(self, result: Any, clamps: Any) -> bool:
        """Let the backend average, if it can and the clamp says the classes; tell whether it did."""
        if not self._complete or self.by is None or result.labels is not None or result.part is not None:
            return False
        names = [f"group_{name}" for name, _ in result.group_states(free_only=True)]
        kept = {name.removeprefix("group_"): self.recall(name) for name in names}
        onehot = clamps[self.by]
        if onehot.dim() != 2 or any(means is None for means in kept.values()):
            return False
        if onehot.device.type == "cpu":
            self.labels_of(clamps, None)  # refuses rows that are not one-hot
        done: bool = result.class_means(onehot, kept)
        return done

    def _note_complete(self) -> None:
        seen = self.recall("seen")
        self._complete = self._complete or (seen is not None and bool(seen.all()))

    @property
    def capturable(self) -> bool:  # type: ignore[override]
        """Say whether every class has been seen: initialising is one look-up then, and the means are kept in place."""
        return self._complete

    def forget(self) -> None:
        super().forget()
        self._complete = False

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._complete = False
        self._note_complete()

    def misfit(self, structure: Structure | None = None) -> str:
        seen = self.recall("seen")
        means = [value for name, value in self.named_buffers(recurse=False) if name != "seen"]
        fits = seen is None and not means
        if seen is not None and means:
            fits = seen.dtype == torch.bool and all(value.shape[1:2] == seen.shape for value in means)
        return (
            super().misfit(structure) if fits else f"{type(self).__name__} has means for other classes than were seen"
        )

    def keeps(self) -> tuple[Hashable, ...]:
        """Name the node whose classes the means are of."""
        return (self.by,)

    def extra_repr(self) -> str:
        return f"by={self.by!r}, forward_depth={self.forward_depth}"

    @property
    def plan_key(self) -> Hashable:
        return (type(self), id(self), self.by, self.forward_depth, self.otherwise.plan_key)

    def parts(self) -> tuple[Initializer, ...]:
        return (self.otherwise,)


def _sums(states: Tensor, labels: Tensor, number: Tensor) -> Tensor:
    """Sum over the samples of each class, (nodes, classes, size); in their order, where torch is told to keep one."""
    nodes, classes, size = states.shape[0], len(number), states.shape[2]
    if not torch.are_deterministic_algorithms_enabled():
        return states.new_zeros(nodes, classes, size).index_add_(1, labels, states)
    samples = states.transpose(0, 1).reshape(len(labels), -1)
    sums = torch.embedding_bag(samples, labels.argsort(stable=True), number.cumsum(0) - number, mode=0)[0]
    return sums.view(classes, nodes, size).transpose(0, 1)
