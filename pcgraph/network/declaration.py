"""Attributes of nodes and edges are checked here, and turned into what they mean.

A graph of a million edges says a few things again and again. What the same objects say is read once, so that the work
in Python grows with what is said and not with how often.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import networkx as nx
import numpy as np
from torch import nn

from pcgraph import activations, combines, energies, transforms
from pcgraph.activations import Activation
from pcgraph.arguments import is_key, require_number, require_shape, shown
from pcgraph.energies import Energy, Gaussian
from pcgraph.errors import GraphError, nearest
from pcgraph.network.adjacency import Index
from pcgraph.network.biases import read_bias, read_prior
from pcgraph.network.inits import Init, read_init
from pcgraph.network.joint import joint_edge
from pcgraph.network.machine import require_bytes
from pcgraph.network.slots import MAIN, Slot, called, declared_slots, fed_slot
from pcgraph.network.trial import Trial
from pcgraph.transforms import Identity, Linear, SparseLinear, Transform

__all__ = ["EdgeSpec", "Edges", "NodeSpec", "Nodes", "read_edges", "read_nodes", "show"]

Node = Hashable
Shape = tuple[int, ...]

#: What is said of a prediction and its energy, or of what an edge does; and which predictions there are.
SAID_OF_NODES = ("shape", "activation", "bias", "energy", "precision", "prior", "combine")
SAID_OF_EDGES = ("transform", "activation", "trainable", "share", "transpose", "scale", "init")
NODE_ATTRIBUTES = (*SAID_OF_NODES, "slots")
EDGE_ATTRIBUTES = (*SAID_OF_EDGES, "slot", "role")
#: The energy of every node that declares none; precisions are kept by node.
GAUSSIAN = Gaussian()


def show(where: Any) -> str:
    """Name an edge as ``'a' -> 'b'``, a node as it is, and a slot by its node."""
    if isinstance(where, Slot):
        return called(where)
    if isinstance(where, tuple) and len(where) in (2, 3):
        return f"edge {where[0]!r} -> {where[1]!r}" + (f" (key {where[2]!r})" if len(where) == 3 else "")
    return f"node {where!r}"


def _check_attributes(attributes: Mapping[Any, Any], known: tuple[str, ...], owner: str, where: Any, text: str) -> None:
    """Refuse what is nearly one of ours, and what is one of ours and belongs elsewhere, to `owner`."""
    for key in attributes:
        if not isinstance(key, str) or key in known:
            continue
        if key in NODE_ATTRIBUTES or key in EDGE_ATTRIBUTES:
            problem = f"which belongs to {owner}[{key!r}] = ..., or rename it"
        else:
            meant = nearest(key, known, cutoff=0.8)
            if meant is None:
                continue
            problem = f"which is nearly {meant!r}: write {meant!r} if that was meant, or rename it"
        raise GraphError(f"{text} has the attribute {key!r}, {problem}", where=where, found=key)


def _shape(value: Any, node: Node) -> Shape:
    return require_shape(
        value, f"the shape of node {node!r}", refuse=lambda text: GraphError(text, where=node, found=value)
    )


@dataclass
class NodeSpec:
    """This is what a node is declared as, checked and complete.

    Attributes
    ----------
    shape : tuple of int
        The shape of its state, without the batch.
    activation : Activation
        σ of its prediction.
    energy : Energy
        :data:`GAUSSIAN` for every node that declares none; an energy given or named otherwise.
    precision : float
        That of a Gaussian energy; 1 for any other.
    bias : tuple of int, bool or None
        Whether the node has one where it is predicted, one number for each neuron; or the shape of one that neurons
        share. None where nothing is said.
    prior : Tensor or None
        What a root, or a slot that no edge feeds, is predicted as, float64, of the node's shape.
    combine : nn.Module or None
        What makes one prediction of all parents; None for their sum.
    """

    shape: Shape
    activation: Activation
    energy: Energy
    precision: float
    bias: Shape | bool | None
    prior: Any
    combine: nn.Module | None = None


def node_spec(node: Node, attributes: Mapping[str, Any], graph: nx.DiGraph, trial: Trial) -> NodeSpec:
    """Read what one node, or one slot, is declared as.

    Parameters
    ----------
    node : hashable
    attributes : mapping
        As NetworkX keeps them; what is not of ours is metadata.
    graph : nx.DiGraph
        The other nodes, to tell a slip of the pen.
    trial : Trial
        It looks at what is a user's own.

    Raises
    ------
    GraphError
        An attribute is wrong, missing or misspelt; the message names the node.
    """
    text = called(node)
    _check_attributes(attributes, NODE_ATTRIBUTES, "an edge: write graph.edges[u, v]", node, text)
    if "shape" not in attributes:
        raise GraphError(
            f"node {node!r} needs a shape (found none): graph.add_node({node!r}, shape=...)" + _misspelt(node, graph),
            where=node,
        )
    shape = _shape(attributes["shape"], node)
    require_bytes(math.prod(shape) * trial.like.itemsize, f"one state of {text}, of shape {shape},")
    try:
        activation = activations.get(attributes.get("activation"))
        energy, precision = _energy(attributes.get("energy"), attributes.get("precision"))
        energy.require_shape(shape)
        combine = None if attributes.get("combine") is None else combines.get(attributes["combine"])
    except GraphError as error:
        raise GraphError(f"{text}: {error}", where=node, found=error.found) from None
    trial.activation(text, node, activation, shape)
    trial.energy(text, node, energy, shape)
    bias = read_bias(attributes["bias"], node, shape) if "bias" in attributes else None
    prior = attributes.get("prior")
    if prior is not None:
        prior = read_prior(prior, node, shape)
    return NodeSpec(shape, activation, energy, precision, bias, prior, combine)


def _energy(spec: Any, precision: Any) -> tuple[Energy, float]:
    energy = energies.get(spec, precision)
    if type(energy) is not Gaussian:
        return energy, 1.0
    return energy if energy is spec else GAUSSIAN, energy.precision


def _misspelt(node: Node, graph: nx.DiGraph) -> str:
    """Ask whether a node without a shape is a slip of the pen: an edge makes the nodes that it names."""
    if not isinstance(node, str):
        return ""
    guess = nearest(node, [v for v, data in graph.nodes(data=True) if isinstance(v, str) and "shape" in data])
    return f"; or did an edge mean {guess!r}?" if guess and graph.degree(node) else ""


@dataclass(frozen=True, eq=False)
class EdgeSpec:
    """This is what an edge is declared as, checked and complete.

    Attributes
    ----------
    kind : {"linear", "transposed", "sparse", "identity", "module", "joint", "tie"}
        How the network keeps and computes it. A tie is the structure's own: it makes a slot's state that of its node.
    transform : Transform
        f of the source's state.
    phi : Activation
        What happens to the source's state before the transform.
    trainable : bool
        Whether its weights learn.
    share : hashable or None
        Edges with the same key share one weight.
    scale : float
        A fixed factor of all that the edge sends; not zero.
    init : str, callable or None
        How its weights are drawn; None is the default.
    """

    kind: str
    transform: Transform
    phi: Activation
    trainable: bool
    share: Hashable | None
    scale: float = 1.0
    init: Init | None = None

    @property
    def key(self) -> tuple[Any, ...]:
        """Edges of one key do the same, and lie in one bucket where their ends have the same shapes."""
        module = id(self.transform) if self.kind in ("module", "sparse", "joint") else None
        phi = self.phi.name if self.phi.named else id(self.phi.function)
        return (self.kind, module, phi, self.trainable, self.scale)


def _kind(transform: Transform) -> str:
    if type(transform) is Linear:
        return "linear"
    if type(transform) is Identity:
        return "identity"
    if type(transform) is SparseLinear:
        return "sparse"
    return "module"


#: Kinds of edges whose transform holds nothing, so that one is as good as another.
PACKED = ("linear", "transposed", "identity")
#: What an edge without attributes is.
DEFAULT_EDGE = EdgeSpec("linear", Linear(), activations.get(None), True, None)
TIE = EdgeSpec("tie", Identity(), activations.get(None), False, None)


def edge_spec(where: tuple[Any, ...], attributes: Mapping[str, Any]) -> EdgeSpec:
    """Read what one edge is declared as.

    Parameters
    ----------
    where : tuple
        The edge: ``(source, target)``, with its key in a multigraph.
    attributes : mapping
        As NetworkX keeps them; what is not of ours is metadata.

    Raises
    ------
    GraphError
        An attribute is wrong or misspelt; the message names the edge.
    """
    _check_attributes(attributes, EDGE_ATTRIBUTES, f"a node: write graph.nodes[{where[1]!r}]", where, show(where))
    try:
        transform = transforms.get(attributes.get("transform"))
        phi = activations.get(attributes.get("activation"))
    except GraphError as error:
        raise GraphError(f"{show(where)}: {error}", where=where, found=error.found) from None
    trainable = _flag(where, "trainable", attributes.get("trainable", True))
    share = attributes.get("share")
    if not is_key(share):
        text = f"{show(where)} needs a hashable share key that equals itself (found {shown(share)})"
        raise GraphError(text, where=where, found=share)
    kind = _kind(transform)
    if _flag(where, "transpose", attributes.get("transpose", False)):
        kind = _transposed(where, kind, share)
    scale = _scale(where, attributes.get("scale"))
    init = read_init(attributes.get("init"), kind, where, show(where))
    return EdgeSpec(kind, transform, phi, trainable, share, scale, init)


def _flag(where: tuple[Any, ...], name: str, value: Any) -> bool:
    if isinstance(value, bool | np.bool_):
        return bool(value)
    text = f"{show(where)} needs {name}=True or {name}=False (found {shown(value)})"
    raise GraphError(text, where=where, found=value)


def _transposed(where: tuple[Any, ...], kind: str, share: Hashable) -> str:
    """Return the kind of an edge whose weight is the transpose of another's, if it can be one."""
    problem = "share= with the key of the edge whose weight it transposes (found none)"
    if kind != "linear":
        problem = f"a Linear transform, whose weight a network keeps (found {kind})"
        problem += "; modules share what is one parameter: conv_transpose.weight = conv.weight" * (kind == "module")
    elif share is not None:
        return "transposed"
    raise GraphError(f"{show(where)} has transpose=True, and needs {problem}", where=where, found=share)


def _scale(where: tuple[Any, ...], value: Any) -> float:
    def refuse(text: str) -> GraphError:
        return GraphError(f"{show(where)}: {text}", where=where, found=value)

    scale = 1.0 if value is None else require_number(value, "the scale", refuse=refuse)
    if scale == 0:
        text = f"the scale must not be zero, with which nothing would be sent (found {shown(value)}): remove the edge"
        raise refuse(text)
    return scale


# -- whole graphs -----------------------------------------------------------------------------------------------------


@dataclass
class Nodes:
    """All nodes of a declaration are held here, in its order; then their slots.

    Attributes
    ----------
    names : list
    specs : list of NodeSpec
        What nodes are declared as, each named once.
    which : ndarray of int64, shape (nodes,)
        The number in `specs` of each node.
    owners : ndarray of int64, shape (slots,)
        The number of each slot's node.
    """

    names: list[Node]
    specs: list[NodeSpec]
    which: Index
    owners: Index


@dataclass
class Edges:
    """All edges of a declaration are held here, in its order; then the ties.

    Attributes
    ----------
    source, target : ndarray of int64, shape (edges,)
        Nodes are counted as they were declared.
    keys : list or None
        The key of each edge of a multigraph.
    specs : list of EdgeSpec
        One for each :attr:`EdgeSpec.key`, in the order in which the edges bring them.
    which : ndarray of int64, shape (edges,)
        The number in `specs` of each edge.
    shared : dict
        Edge number -> the key under which it shares a weight.
    inits : dict
        Edge number -> how its weights are drawn, where the edge says it.
    """

    source: Index
    target: Index
    keys: list[Hashable] | None
    specs: list[EdgeSpec]
    which: Index
    shared: dict[int, Hashable]
    inits: dict[int, Init]


def _said(attributes: Mapping[str, Any], known: tuple[str, ...]) -> tuple[Any, ...]:
    """Make a key of the names, and of the identity of every value that means something to us.

    Metadata counts by its name alone, since a name may be a slip of the pen.
    """
    return (*attributes, *map(id, map(attributes.get, known)))


def read_nodes(graph: nx.DiGraph, trial: Trial) -> Nodes:
    """Read what the nodes of a graph, and their slots, are declared as.

    Raises
    ------
    GraphError
        An attribute is wrong; that of the first node for which one is.
    """
    number: dict[tuple[Any, ...], int] = {}
    specs: list[NodeSpec] = []
    which: list[int] = []
    owners: list[int] = []
    slots: list[tuple[Slot, dict[str, Any]]] = []  # it grows while the nodes are read, and is read after them
    for node, data in chain(graph.nodes(data=True), slots):
        said = _said(data, SAID_OF_NODES)
        kind = number.get(said)
        if kind is None:
            kind, spec = len(specs), node_spec(node, data, graph, trial)
            specs.append(spec)
            if spec.energy is data.get("energy") or spec.energy is GAUSSIAN:
                number[said] = kind  # else it was made from a name, and of this node alone
        if "slots" in data:
            found = declared_slots(node, data)
            owners += [len(which)] * len(found)
            slots += found
        which.append(kind)
    for slot, _ in slots:
        if slot in graph:
            raise GraphError(
                f"there is a node {tuple(slot)!r}, by which the {slot} would be asked for: rename the slot or the node",
                where=slot,
            )
    names = [*graph, *(slot for slot, _ in slots)]
    for name in names:
        if name != name:
            raise GraphError(f"a node's name equals itself, so that it can be looked up (found {name!r})", where=name)
    return Nodes(names, specs, np.array(which, dtype=np.int64), np.array(owners, dtype=np.int64))


def read_edges(graph: nx.DiGraph, pairs: tuple[Index, Index], nodes: Nodes) -> Edges:
    """Read what the edges of a graph are declared as, and add the ties of its slots.

    Parameters
    ----------
    graph : nx.DiGraph
    pairs : pair of ndarray
        Those of :func:`pcgraph.network.copying.pairs_of`.
    nodes : Nodes
        What :func:`read_nodes` makes of the graph.

    Raises
    ------
    GraphError
        An attribute is wrong; that of the first edge for which one is. Or no edge feeds a slot.
    """
    (source, target), keys = pairs, None
    between: Iterable[Any] = (entry for _, row in graph.adjacency() for entry in row.values())
    if graph.is_multigraph():
        parallel = list(between)
        counts = np.fromiter(map(len, parallel), dtype=np.int64, count=len(parallel))
        source, target = np.repeat(source, counts), np.repeat(target, counts)
        keys = list(chain.from_iterable(parallel))
        between = chain.from_iterable(entry.values() for entry in parallel)
    attributes: list[Mapping[str, Any]] = list(between)
    names, target = nodes.names, target.copy()
    slots = {name: i for i, name in enumerate(names[len(graph) :], len(graph))}
    seen: dict[tuple[Any, ...], tuple[np.int64, Hashable, Init | None]] = {}
    number, specs = {DEFAULT_EDGE.key: 0}, [DEFAULT_EDGE]
    which: Index = np.zeros(len(attributes), dtype=np.int64)
    shared: dict[int, Hashable] = {}
    inits: dict[int, Init] = {}

    def where(i: int) -> tuple[Any, ...]:
        return (names[source[i]], names[target[i]], *([] if keys is None else [keys[i]]))

    for i in np.flatnonzero(np.fromiter(map(bool, attributes), dtype=bool, count=len(attributes))).tolist():
        said = _said(attributes[i], SAID_OF_EDGES)
        if said in seen:
            which[i], share, init = seen[said]
        else:
            spec = edge_spec(where(i), attributes[i])
            which[i], share, init = number.setdefault(spec.key, len(specs)), spec.share, spec.init
            if which[i] == len(specs):
                specs.append(spec)
            # A module made from a name is of this edge alone.
            if spec.kind in PACKED or spec.transform is attributes[i].get("transform"):
                seen[said] = which[i], share, init
        if share is not None:
            shared[i] = share
        if init is not None:
            inits[i] = init
        if "slot" in attributes[i]:
            slot = attributes[i]["slot"]
            if slot is not None and not (isinstance(slot, str) and slot == MAIN):
                target[i] = fed_slot(where(i), slot, slots, graph.nodes[names[target[i]]].get("slots"))
    for i in _joined(nodes, target, attributes, where):
        spec, given = edge_spec(where(i), attributes[i]), nodes.specs[nodes.which[target[i]]].combine
        joint = joint_edge(attributes[i], spec.transform, given, show(where(i)), where(i))
        which[i] = len(specs)
        specs.append(replace(spec, kind="joint", transform=joint))
    found, first, which = np.unique(which, return_index=True, return_inverse=True)
    order = np.argsort(first)
    edges = Edges(
        source, target, keys, [specs[found[k]] for k in order.tolist()], np.argsort(order)[which], shared, inits
    )  # fmt: skip
    return _tied(edges, nodes) if slots else edges


def _joined(
    nodes: Nodes, target: Index, attributes: Sequence[Mapping[str, Any]], where: Callable[[int], tuple[Any, ...]]
) -> list[int]:
    """Find the edges into nodes with a combine; a role anywhere else is refused, and such a node without a parent."""
    own = np.array([spec.combine is not None for spec in nodes.specs])[nodes.which]
    own[len(nodes.names) - len(nodes.owners) :] = False
    for v in np.flatnonzero(own & (np.bincount(target, minlength=len(own)) == 0)).tolist():
        node = nodes.names[v]
        raise GraphError(f"{called(node)} has a combine and no edge to combine: add edges with a role", where=node)
    roles = [i for i, said in enumerate(attributes) if "role" in said and said["role"] is not None]
    for i in [i for i in roles if not own[target[i]]]:
        raise GraphError(
            f"{show(where(i))} has the role {attributes[i]['role']!r}, and its target combines nothing: say combine= "
            f"on node {where(i)[1]!r}",
            where=where(i),
            found=attributes[i]["role"],
        )
    return np.flatnonzero(own[target]).tolist() if own.any() else []


def _tied(edges: Edges, nodes: Nodes) -> Edges:
    """Add an edge from each node with slots to each of them.

    Raises
    ------
    GraphError
        No edge feeds a slot without a prior, or one feeds a slot with it.
    """
    count, ties = len(nodes.names) - len(nodes.owners), len(nodes.owners)
    fed = np.bincount(edges.target, minlength=len(nodes.names))[count:]
    constant = np.array([spec.prior is not None for spec in nodes.specs])[nodes.which[count:]]
    for k in np.flatnonzero((fed == 0) != constant).tolist():
        slot: Any = nodes.names[count + k]
        why = "has a prior, which is its prediction, and is fed by an edge: feed another slot"
        if not constant[k]:
            why = f"is fed by no edge: say slot={slot.name!r} on an edge into {slot.node!r}, give it a prior"
        raise GraphError(f"the {slot} {why}, or take it out of slots=", where=slot)
    return replace(
        edges,
        source=np.concatenate([edges.source, nodes.owners]),
        target=np.concatenate([edges.target, np.arange(count, count + ties)]),
        keys=None if edges.keys is None else [*edges.keys, *[None] * ties],
        specs=[*edges.specs, TIE],
        which=np.concatenate([edges.which, np.full(ties, len(edges.specs))]),
    )
