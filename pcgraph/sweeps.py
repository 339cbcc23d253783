"""What a sweep computes is a plain nn.Module as well: it can be differentiated, exported and compiled like any other.

    h_v = sigma_v( b_v + sum_u c_uv f_uv(phi_uv(h_u)) )        v in the order of the sweep, from the given nodes on

The engine works on buffers of its own, by local gradients, and torch sees nothing of it. A :class:`SweepModule` has the
network's parameters and computes the same with torch's operations alone.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Hashable, Iterable
from typing import Any, NamedTuple, ParamSpec, Self, TypeVar, cast

import torch
from torch import Tensor, nn

from pcgraph.activations import Activation
from pcgraph.arguments import is_key, shown
from pcgraph.errors import ClampError, ConfigError, InvalidInitializer
from pcgraph.network import Network
from pcgraph.network.joint import Joint, JointPrediction
from pcgraph.topology import check

__all__ = ["SweepModule", "eagerly", "read_nodes"]

P = ParamSpec("P")
R = TypeVar("R")

Node = Hashable


class _Edge(NamedTuple):
    """This is an edge: where its source's state is kept, what it does, and by which parameter."""

    source: int
    kind: str
    phi: Activation
    scale: float
    name: str
    row: int
    pattern: str


class _Node(NamedTuple):
    """This is a node: where its state is kept, its shape, what comes in, and where its bias or prior lies."""

    place: int
    shape: tuple[int, ...]
    sigma: Activation
    edges: tuple[_Edge, ...]
    bias: tuple[str, int] | None
    prior: str | None


class SweepModule(nn.Module):
    """It maps the states of given nodes to those of wanted ones, by a sweep over what lies between.

    ``net.as_module("x", "y")`` makes one. Its parameters are the network's own tensors: what the network learns, it has
    learned, and it moves and is converted with the network alone. ``copy.deepcopy(module)`` is one that stands alone.
    A network to which other tensors are given (``load_state_dict(..., assign=True)``) makes another module.

    Attributes
    ----------
    given, wanted : tuple of node
    single : bool
        Whether it returns the state of the one wanted node; else a dict of all of them.
    order : tuple of node
        The nodes that are computed, in order.

    Examples
    --------
    >>> import pcgraph
    >>> net = pcgraph.PCNetwork(pcgraph.graphs.chain([4, 3, 2], activation="tanh"))
    >>> module = net.as_module("x", "y")
    >>> x = torch.ones(5, 4, requires_grad=True)
    >>> module(x).sum().backward()
    >>> x.grad.shape, torch.equal(module(x), net.predict({"x": x.detach()}, "y"))
    (torch.Size([5, 4]), True)
    """

    def __init__(self, net: Network, given: tuple[Node, ...], wanted: tuple[Node, ...], single: bool) -> None:
        super().__init__()
        self.given, self.wanted, self.single = given, wanted, single
        self.order = _order(net, given, wanted)
        s = net.structure
        place = {s.number[v]: k for k, v in enumerate((*given, *self.order))}
        self.shapes = tuple(s.shape(v) for v in given)
        self._tokens = frozenset(v for v in given if s.number[v] in s.tokens)
        self.weights, self.biases, self.transforms = nn.ParameterDict(), nn.ParameterDict(), nn.ModuleDict()
        self._nodes = tuple(self._node(net, s.number[v], place) for v in self.order)
        self._wanted = tuple(place[s.number[v]] for v in wanted)
        #: Whether the parameters are the network's, and no copies.
        self._lent = True

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Stand alone, as a deep copy does and one from a file."""
        super().__setstate__({**state, "_lent": False})  # type: ignore[no-untyped-call]

    def __copy__(self) -> Self:
        """Make one that has the same parameters, the network's or its own."""
        made = type(self).__new__(type(self))
        made.__dict__.update(self.__dict__)
        return made

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Convert or move all parameters, for ``to()`` and its like.

        Raises
        ------
        ConfigError
            They are the network's, which would not know of it.
        """
        for tensor in (*self.parameters(), *self.buffers()):
            new = fn(tensor[:0])
            if self._lent and (new.dtype, new.device) != (tensor.dtype, tensor.device):
                raise ConfigError(
                    "the parameters of this module are the network's own, and are converted and moved with it: call "
                    "net.to(...), or copy.deepcopy(module).to(...) for one that stands alone"
                )
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def _node(self, net: Network, i: int, place: dict[int, int]) -> _Node:
        s = net.structure
        edges = tuple(self._edge(net, e, place) for e in s.by_target.at(i).tolist())
        bias, prior = net.bias_place(s.nodes[i]), None
        if bias is not None:
            self.biases[bias[0]] = net.biases[bias[0]]
        elif i in s.priors:
            prior = f"prior_{place[i]}"
            self.register_buffer(prior, s.priors[i].to(net.dtype).to(net.device), persistent=False)
        return _Node(place[i], s.shape(s.nodes[i]), s.segments[int(s.segment_of[i])].activation, edges, bias, prior)

    def _edge(self, net: Network, e: int, place: dict[int, int]) -> _Edge:
        s = net.structure
        bucket, pattern, row = s.buckets[int(s.bucket_of[e])], "", 0
        name = bucket.packed or bucket.name
        if bucket.packed is not None:
            self.weights[name], row = net.weights[name], bucket.row(e)
        if bucket.kind == "sparse":
            pattern = f"entries_{bucket.name}"
            self.register_buffer(pattern, bucket.pattern(s.groups).to(net.device), persistent=False)
        if bucket.kind in ("module", "joint"):
            self.transforms[bucket.name] = net.edge_modules[bucket.name]
        return _Edge(place[int(s.source[e])], bucket.kind, bucket.phi, bucket.scale, name, row, pattern)

    def forward(self, x: Tensor, *more: Tensor) -> Tensor | dict[Node, Tensor]:
        """Compute the wanted nodes.

        Parameters
        ----------
        x, *more : Tensor, shape (batch, *shape)
            The states of the given nodes, in their order; or of one sample, (\\*shape), as under ``torch.vmap``.

        Returns
        -------
        Tensor, or dict of node to Tensor
            The states of the wanted nodes, with a batch if the given ones have one.

        Raises
        ------
        ClampError
            What is given has another shape, dtype or device than the node's; tokens may be of any whole numbers.
        """
        given = (x, *more)
        if len(given) != len(self.shapes):
            raise ClampError(f"the module takes {len(self.shapes)} tensors, for {self._said} (found {len(given)})")
        alone = all(isinstance(x, Tensor) and x.dim() == len(shape) for x, shape in zip(given, self.shapes))
        states: list[Tensor] = []
        for name, h, shape in zip(self.given, given, self.shapes):
            if not isinstance(h, Tensor) or tuple(h.shape[0 if alone else 1 :]) != shape:
                size = f"({'' if alone else 'batch, '}{', '.join(map(str, shape))})"
                raise ClampError(f"{name!r} needs a tensor of shape {size} (found {shown(h)})", node=name)
            self._require_alike(name, h)
            states.append(h.unsqueeze(0) if alone else h)
        for node in self._nodes:
            states.append(self._predict(node, states))
        found = [states[k].squeeze(0) if alone else states[k] for k in self._wanted]
        return found[0] if self.single else dict(zip(self.wanted, found))

    def _require_alike(self, name: Node, h: Tensor) -> None:
        """Refuse a tensor of another dtype or device than the parameters; autocast converts by itself.

        Raises
        ------
        ClampError
        """
        own = next((t for t in (*self.parameters(), *self.buffers()) if t.is_floating_point()), h)
        converted = torch.is_autocast_enabled(own.device.type) or (name in self._tokens and not h.is_floating_point())
        if h.device != own.device or (h.dtype != own.dtype and not converted):
            raise ClampError(
                f"{name!r} needs a tensor of {own.dtype} on {own.device}, as the module's parameters are (found "
                f"{h.dtype} on {h.device}): convert it with .to({own.dtype}).to({str(own.device)!r})",
                node=name,
            )

    def _predict(self, node: _Node, states: list[Tensor]) -> Tensor:
        total: Tensor | None = None
        if node.bias is not None:
            total = self.biases[node.bias[0]][node.bias[1]].expand(node.shape).flatten()
        elif node.prior is not None:
            prior = self.get_buffer(node.prior).flatten()
            total = prior if (like := next(self.parameters(), None)) is None else prior.to(like)
        joint = bool(node.edges) and node.edges[0].kind == "joint"
        for edge in node.edges[:1] if joint else node.edges:
            sent = self._combine(node, states) if joint else self._send(edge, states[edge.source], node)
            sent = sent if joint or edge.scale == 1.0 else edge.scale * sent
            total = sent if total is None else total + sent
        assert total is not None
        if total.dim() == 1:  # nothing comes in
            total = total.expand(states[0].shape[0], -1)
        return node.sigma(total.reshape(-1, *node.shape))

    def _combine(self, node: _Node, states: list[Tensor]) -> Tensor:
        parts = [(cast(Joint, self.transforms[edge.name]), edge.phi, edge.scale) for edge in node.edges]
        return JointPrediction(parts).of([states[edge.source] for edge in node.edges]).flatten(1)

    def _send(self, edge: _Edge, h: Tensor, node: _Node) -> Tensor:
        x: Tensor = edge.phi(h)
        if edge.kind in ("linear", "transposed"):
            weight: Tensor = self.weights[edge.name][edge.row]
            return nn.functional.linear(x.flatten(1), weight.t() if edge.kind == "transposed" else weight)
        if edge.kind == "module":
            module: nn.Module = self.transforms[edge.name]
            return module(x).flatten(1)  # type: ignore[no-any-return]
        x = x.flatten(1)
        if edge.kind != "sparse":
            return x
        weight = self.weights[edge.name][edge.row]
        source, target = self.get_buffer(edge.pattern).to(weight.device)
        sent: Tensor = x.index_select(1, source) * weight
        return sent.new_zeros(x.shape[0], math.prod(node.shape)).index_add(1, target, sent)

    @property
    def _said(self) -> str:
        return ", ".join(map(repr, self.given))

    def extra_repr(self) -> str:
        return f"{self._said} -> {', '.join(map(repr, self.wanted))}, {len(self.order)} nodes computed"


def _order(net: Network, given: tuple[Node, ...], wanted: tuple[Node, ...]) -> tuple[Node, ...]:
    """Order what lies between, each node after all that it reads.

    Raises
    ------
    InvalidInitializer
        It lies on a cycle, or depends on a root that is not given.
    """
    s = net.structure
    known, found, stack = {s.number[v] for v in given}, set(), [s.number[v] for v in wanted]
    while stack:
        i = stack.pop()
        if i not in known and i not in found:
            found.add(i)
            stack += s.source[s.by_target.at(i)].tolist()
    names = {s.nodes[i] for i in found}
    report = check(net.graph, given, repair=False)
    swept = report.sweep(among=names)
    if swept.witness is not None or not all(s.has_energy[i] for i in found):  # nothing predicts a lone node
        raise InvalidInitializer(
            f"no module leads from {', '.join(map(repr, given))} to {', '.join(map(repr, wanted))}: "
            f"{report.verdicts['forward'].reason}. Give what is in the way as well, ask for nodes before it, or "
            "predict by inference, as in net.predict(clamps, node, init=..., steps=...)",
            verdict=report.verdicts["forward"],
        )
    priors = [s.nodes[i] for i in sorted(found) if i in s.priors]
    return (*priors, *(v for v in swept.order if v not in priors))


def read_nodes(net: Network, value: Any, key: str) -> tuple[tuple[Node, ...], bool]:
    """Read one node or several; and say whether it was one.

    Raises
    ------
    ClampError
        There is no such node, or the same one twice, or none.
    """
    single = isinstance(value, str) or not isinstance(value, Iterable)
    if isinstance(value, tuple):
        single = value in net.structure.number if is_key(value) else False
    nodes = (value,) if single else tuple(value)
    for node in nodes:
        net.structure.require_node(node, ClampError)
    if not nodes or len(set(nodes)) < len(nodes):
        raise ClampError(f"{key} is one node or several, each once, as in {key}=['h1', 'y'] (found {shown(value)})")
    return nodes, single


def eagerly(call: Callable[P, R]) -> Callable[P, R]:
    """Let the engine run as it is where torch compiles what calls it, and refuse to where torch is tracing.

    Raises
    ------
    ConfigError
        By what is returned: see :func:`_require_eager`.
    """
    apart: list[Callable[P, R]] = []

    @functools.wraps(call)
    def called(*given: P.args, **keywords: P.kwargs) -> R:
        _require_eager()
        if "torch._dynamo" not in sys.modules:  # which takes a second to import, and without which nothing is compiled
            return call(*given, **keywords)
        if not apart:
            apart.append(torch.compiler.disable(call))  # type: ignore[no-untyped-call]
        return apart[0](*given, **keywords)

    return called


def _require_eager() -> None:
    """Refuse to run the engine where torch is tracing, which would keep the buffers of one run as constants.

    Raises
    ------
    ConfigError
    """
    tracing = "torch.jit.trace" if torch._C._is_tracing() else None
    if torch.compiler.is_exporting():
        tracing = "torch.export"
    elif torch._C._functorch.maybe_current_level() is not None:
        tracing = "a transform of torch.func, such as vmap,"
    if tracing is not None:
        raise ConfigError(
            f"{tracing} cannot follow the engine, which computes in buffers of its own: use the plain module that "
            "net.as_module('x', 'y') makes, which can be traced, exported, differentiated and mapped"
        )
