"""I_fw sweeps in topological order, ``h_v = mu_v``, from the known values on (paper, Section 3, item 4; Section 3.1).

``Forward()`` follows Proposition 3.2 as printed: the graph is acyclic and every root is clamped, a promise for every
phase. With `roots` or `fallback` it follows what a sweep really needs (Theorem 1 of the topology notes): it sweeps the
largest set of nodes that can be swept, and the rest is given by others.
"""

from __future__ import annotations

from collections.abc import Hashable

from pcgraph.arguments import require_instance
from pcgraph.initializers.base import Context, Given, Initializer, Layout, Swept, only
from pcgraph.topology import Report, Verdict

__all__ = ["Forward"]


class Forward(Initializer):
    """Sweeps the graph in topological order; every swept node starts with exactly zero error.

    Parameters
    ----------
    roots : Initializer, optional
        Gives the free roots a value, from which the sweep goes on.
    fallback : Initializer, optional
        Gives a value to whatever cannot be swept: nodes on a cycle of free nodes, or behind one, or behind a root
        without a value.

    Examples
    --------
    >>> import torch
    >>> import pcgraph
    >>> net = pcgraph.PCNetwork(pcgraph.graphs.decoder([2, 3, 4]))
    >>> x = torch.zeros(1, 4)
    >>> net.infer({"x": x}, init=Forward(), steps=1, optimizer=pcgraph.SGD(lr=0.1))
    Traceback (most recent call last):
    ...
    pcgraph.errors.InvalidInitializer: Forward() needs a clamp on every root (found h0). Clamp h0, or use ...
    >>> result = net.infer({"x": x}, init=Forward(roots=pcgraph.Zero()), steps=1, optimizer=pcgraph.SGD(lr=0.1))
    """

    def __init__(self, roots: Initializer | None = None, fallback: Initializer | None = None) -> None:
        super().__init__()
        for key, part in (("roots", roots), ("fallback", fallback)):
            if part is not None:
                require_instance(part, key, Initializer, "pcgraph.Zero()")
        self.roots = roots
        self.fallback = fallback

    def requirement(self, report: Report) -> Verdict:
        if self.roots is None and self.fallback is None:
            return report.verdicts["forward"]
        for part in self.parts():
            verdict = report.verdict(part)
            if not verdict.valid:
                return verdict
        return report.verdicts["forward(roots)" if self.fallback is None else "forward(fallback)"]

    def layout(self, report: Report, context: Context | None = None) -> Layout:
        roots = tuple(report.free_roots) if self.roots is not None else ()
        sweep = report.sweep(initialised=frozenset(roots))
        actions: list[Given | Swept] = []
        if roots and self.roots is not None:
            actions += only(self.roots.layout(report, context), roots)
        left = sweep.blocked - set(roots)
        if left and self.fallback is not None:
            actions += only(self.fallback.layout(report, context), left)
        given = set(roots)
        return Layout((*actions, Swept(tuple(n for n in sweep.order if n not in given))))

    def ready(self, context: Context | None) -> object:
        return tuple(part.ready(context) for part in self.parts())

    @property
    def plan_key(self) -> Hashable:
        return (type(self), *(None if part is None else part.plan_key for part in (self.roots, self.fallback)))

    def parts(self) -> tuple[Initializer, ...]:
        return tuple(part for part in (self.roots, self.fallback) if part is not None)
