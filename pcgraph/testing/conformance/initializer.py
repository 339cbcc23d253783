"""Check an initializer."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping

import torch
from torch import Tensor

import pcgraph.topology as topology
from pcgraph import graphs
from pcgraph.errors import InvalidInitializer
from pcgraph.initializers import Context, Given, Initializer
from pcgraph.initializers.base import Block
from pcgraph.model import PCNetwork
from pcgraph.optimizers import SGD
from pcgraph.testing.conformance.promises import BATCH, Draws, agree, broken, unmoved
from pcgraph.topology import Report, Verdict

__all__ = ["check_initializer"]

Clamps = Mapping[Hashable, Tensor]


def check_initializer(
    initializer: Initializer,
    net: PCNetwork | None = None,
    clamps: Clamps | None = None,
    *,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> None:
    """Test an initializer.

    Parameters
    ----------
    initializer : Initializer
        A copy of it is tested in each network.
    net : PCNetwork, optional
        In float64. None: a classifier, a decoder with a free root, and a cyclic graph, one after the other.
    clamps : mapping, optional
        Node -> (3, *shape), for `net`.
    seed : int
        Of the values drawn.
    device : torch.device or str, optional
        Where all is computed; torch's default device if None.

    Raises
    ------
    BrokenPromise

    Examples
    --------
    >>> from pcgraph import Normal
    >>> check_initializer(Normal(std=0.1))
    """
    if not isinstance(initializer, Initializer):
        raise broken(
            initializer, "to be an Initializer", type(initializer).__name__,
            "derive it from pcgraph.initializers.Initializer",
        )  # fmt: skip
    cases = _cases(Draws(seed, device)) if net is None else [(net, dict(clamps or {}))]
    for network, values in cases:
        tested = copy.deepcopy(initializer)
        report = topology.check(network.graph, set(values))
        if _requirement(tested, tested.requirement(report)):
            _values(tested, network, values, report)
            agree(tested, network, values, tested, SGD(lr=0.01))
            _memory(tested, network, values)
        else:
            _refused(tested, network, values)


def _cases(draw: Draws) -> list[tuple[PCNetwork, Clamps]]:
    cyclic = graphs.lateral([3, 4, 2], activation="tanh")
    found: list[tuple[PCNetwork, Clamps]] = []
    for graph in (graphs.chain([3, 4, 4, 2], activation="tanh"), graphs.decoder([2, 4, 3]), cyclic):
        net = draw.network(graph)
        clamps: dict[Hashable, Tensor] = {"x": draw((BATCH, 3))}
        if "y" in graph:
            clamps["y"] = torch.eye(2, dtype=net.dtype, device=net.device)[torch.tensor([0, 1, 0], device=net.device)]
        found.append((net, clamps))
    return found


def _requirement(initializer: Initializer, verdict: Verdict) -> bool:
    if not isinstance(verdict, Verdict):
        raise broken(
            initializer, "that requirement(report) returns a Verdict", type(verdict).__name__,
            'return one of report.verdicts, such as report.verdicts["zero"] where every graph will do',
        )  # fmt: skip
    if not verdict.valid and not (verdict.reason and verdict.remedy):
        raise broken(
            initializer, "a reason and a remedy where it refuses a graph", repr(verdict),
            "say in the verdict what is missing and what to do",
        )  # fmt: skip
    return bool(verdict.valid)


def _refused(initializer: Initializer, net: PCNetwork, clamps: Clamps) -> None:
    try:
        net.infer(clamps, init=initializer, steps=0)
    except InvalidInitializer:
        return
    except Exception as error:
        raise broken(
            initializer, "to be refused with InvalidInitializer where requirement() says so", repr(error),
            "let ready() and layout() bear a graph that requirement() does not admit",
        ) from error  # fmt: skip
    raise broken(
        initializer, "that a graph which it refuses is not run", "that it was", "let requirement() alone decide"
    )


def _values(initializer: Initializer, net: PCNetwork, clamps: Clamps, report: Report) -> None:
    try:
        first = unmoved(initializer, "init", lambda: net.infer(clamps, init=initializer, steps=0, check=False))
        second = net.infer(clamps, init=initializer, steps=0, check=False)
    except InvalidInitializer as error:
        raise broken(
            initializer, "a value for every free node of a graph that it admits", str(error),
            "let layout() name all of report.free, or requirement() refuse",
        ) from error  # fmt: skip
    for v in net.graph:
        if not bool(torch.isfinite(first.states[v]).all()):
            raise broken(initializer, "finite states", f"others in node {v!r}", "write every entry of `out`")
        if not torch.equal(first.states[v], second.states[v]):
            raise broken(
                initializer, "the same states for the same batch, as long as backward() has not been called",
                f"others in node {v!r}", "change what is remembered in observe() alone, and draw from your own seed",
            )  # fmt: skip
    _writes(initializer, net, clamps, report)


def _writes(initializer: Initializer, net: PCNetwork, clamps: Clamps, report: Report) -> None:
    """Every entry that no earlier action has written is written, and with zeros where that is promised."""
    initializer = copy.deepcopy(initializer)
    context = Context(BATCH, dict(clamps), None, net)
    s = net.structure
    written: set[Hashable] = set()
    for action in initializer.layout(report, context).actions:
        before, written = written, written | set(action.nodes)
        if not isinstance(action, Given) or action.source is not initializer:
            continue
        for v in action.nodes:
            i = s.number[v]
            g, p = s.place(i)
            shape = s.groups[g].shape
            out = torch.full((1, BATCH, *shape), torch.nan, dtype=net.dtype, device=net.device)
            with torch.no_grad():
                out = out if v not in before else torch.zeros_like(out)
                initializer.init(Block((v,), shape, s.groups[g].name, p, p + 1, i), out, context)
            if bool(torch.isnan(out).any()):
                raise broken(
                    initializer, "that init(block, out, context) writes every entry of `out`", f"gaps in {v!r}",
                    "write in place, as in out.copy_(values): what lies in `out` before is arbitrary",
                )  # fmt: skip
            if initializer.writes_zeros and bool((out != 0).any()):
                raise broken(
                    initializer, "writes_zeros", f"other values in {v!r}",
                    "set writes_zeros = False, its default: plans would leave out products with these states",
                )  # fmt: skip


def _memory(initializer: Initializer, net: PCNetwork, clamps: Clamps) -> None:
    """After it has learned, what is in its state_dict is all that it needs."""
    result = net.infer(clamps, init=initializer, steps=1, optimizer=SGD(lr=0.01))
    blank = copy.deepcopy(initializer)
    result.backward()
    blank.load_state_dict(initializer.state_dict())
    expected = net.infer(clamps, init=initializer, steps=0)
    found = net.infer(clamps, init=blank, steps=0)
    for v in net.graph:
        if not torch.equal(expected.states[v], found.states[v]):
            raise broken(
                initializer, "that its state_dict() holds all that it remembers", f"other states of {v!r} from a copy "
                "with the same state_dict", "keep it in buffers (register_buffer), or in get_extra_state()",
            )  # fmt: skip
