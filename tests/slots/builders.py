"""What the tests of slots build: the same energy without slots."""

from __future__ import annotations

from collections.abc import Hashable

import networkx as nx


def helpers(graph: nx.DiGraph) -> tuple[nx.MultiDiGraph, set[Hashable]]:
    """Return a graph without slots that has a clamped node for each of them, and these nodes.

    The node reads its owner, by an identity with the key "state", and all that feeds the slot, so that its error
    depends on what the slot's does. A sweep of free nodes never passes through it. Other edges keep their keys.
    """
    twin = nx.MultiDiGraph()
    twin.add_nodes_from((v, {k: x for k, x in data.items() if k != "slots"}) for v, data in graph.nodes(data=True))
    nodes = set()
    for v, data in graph.nodes(data=True):
        for slot in data.get("slots") or ():
            twin.add_node(("slot", v, slot), shape=data.get("shape", 1))
            twin.add_edge(v, ("slot", v, slot), key="state", transform="identity")
            nodes.add(("slot", v, slot))
    for u, v, key, data in nx.MultiDiGraph(graph).edges(keys=True, data=True):
        slot = data.get("slot")
        rest = {k: x for k, x in data.items() if k != "slot"}
        twin.add_edge(u, v if slot is None else ("slot", v, slot), key=key, **rest)
    return twin, nodes
