"""Every property of the checker can fail: faults planted in it, each of which the suite must notice.

Run with ``pytest -m mutants tests/mutants -k topology``.
"""

from tests.mutants.planted import Mutant

P = "tests/topology/test_properties.py"
FILES = {
    "properties": P,
    "sufficient": f"{P}::TestSufficient",
    "necessary": f"{P}::TestNecessary",
    "theorem": f"{P}::TestTheorem1",
    "figure": f"{P}::TestFigure9",
    "witnesses": f"{P}::TestWitnesses",
    "largest": f"{P}::TestLargestAndSmallest",
    "invariance": f"{P}::TestInvariance",
    "monotony": f"{P}::TestMonotony",
    "one node": f"{P}::TestOneNode",
    "facts": f"{P}::TestAgainstNetworkX",
    "coordinates": "tests/topology/test_coordinates.py",
    "leaks": "tests/topology/test_leaks.py",
    "examples": "tests/topology/test_check.py",
    "neurons": "tests/topology/test_neurons.py",
    "strategies": "tests/testing/test_strategies.py",
    "drawing": "tests/drawing/test_declaration.py",
    "slots": "tests/slots/test_checking.py",
}


def fault(name, file, old, new, *tests):
    return Mutant(name, file, old, new, tuple(FILES[t] for t in tests))


CUT, FACTS, CYCLES = "topology/cutgraph.py", "topology/facts.py", "topology/cycles.py"
REPAIR, VERIFY, VERDICTS = "topology/repair.py", "topology/verify.py", "topology/verdicts.py"
ARGUMENTS, NOTEBOOK, STRATEGIES = "topology/arguments.py", "notebook.py", "testing/strategies.py"

UNKNOWN = "return np.asarray(self.root & ~self.clamped & ~self.prior & ~self.isolated)"
SWEPT = "                    if left == 0:\n                        queue.append(v)"
TARGETS = "        target=target,\n        clamped=clamped,\n        root=root,"

MUTANTS = [
    # property 1: sufficient
    fault("a node is swept with its first parent", CUT, SWEPT, SWEPT.replace("left == 0", "left >= 0"), "sufficient"),
    fault("the sweep is listed backwards", CUT, "return queue[first:]", "return queue[first:][::-1]", "sufficient"),
    fault("edges into clamps are not cut", CUT, "count_down[given] = -1", "pass", "sufficient"),
    # property 2: necessary
    fault("a root is forgotten", CUT, UNKNOWN, "return np.zeros_like(self.root)", "necessary"),
    fault("one missing parent is forgiven", CUT, SWEPT, SWEPT.replace("left == 0", "left in (0, 1)"), "necessary"),
    fault(
        "self-loops are skipped",
        CUT,
        TARGETS,
        TARGETS.replace(
            "target=target",
            "target=np.where(target == np.repeat(np.arange(len(groups)), counts), len(groups) - 1, target)",
        ),
        "necessary",
    ),
    # property 3: Theorem 1
    fault("a prior is no value", CUT, UNKNOWN, UNKNOWN.replace(" & ~self.prior", ""), "theorem"),
    fault(
        "a useless node forbids the sweep",
        CUT,
        UNKNOWN,
        UNKNOWN.replace(" & ~self.isolated", ""),
        "theorem",
    ),
    fault(
        "the wrong edges are cut: those out of clamps",
        CUT,
        "count_down[given] = -1",
        "count_down[given] = -1; count_down[np.unique(self.target[given[self.source]])] = 0",
        "theorem",
    ),
    fault(
        "the printed proposition forgets the roots",
        FACTS,
        "        if len(roots):\n            return UnclampedRoot",
        "        if False:\n            return UnclampedRoot",
        "theorem",
    ),
    fault(
        "the printed proposition looks at free cycles only",
        FACTS,
        "cycle = self._graph_cycle if slots else self._main_cycle",
        "cycle = self._free_cycle",
        "theorem",
    ),
    # property 4: Figure 9
    fault("an acyclic graph is enough", FACTS, "return self.sweep().complete", "return self.cycle is None", "figure"),
    fault(
        "a depth is the shortest path",
        CUT,
        "                    if there > depth[v]:",
        "                    if not depth[v] or there < depth[v]:",
        "figure",
    ),
    # property 5: witnesses
    fault(
        "a cycle's last edge is not checked",
        VERIFY,
        "return self.path(list(zip(places, places[1:] + places[:1])), slots)",
        "return self.path(list(zip(places, places[1:])), slots)",
        "witnesses",
    ),
    fault(
        "a clamp on the cycle is not seen",
        VERIFY,
        "if free and any(map(self.is_clamped, nodes)):",
        "if False:",
        "examples",
    ),
    fault("an incomplete order passes", VERIFY, "((swept | stuck[v]) != wanted).any()", "False", "witnesses"),
    fault(
        "the order of an order is not checked",
        VERIFY,
        "if first[v] != NEVER and last[u] >= first[v]:",
        "if False:",
        "witnesses",
    ),
    fault(
        "anything may be called blocked",
        VERIFY,
        "return not any(flags.any() for flags in stuck.values())",
        "return True",
        "witnesses",
    ),
    fault(
        "a prior is overlooked by verify",
        VERIFY,
        'return self.graph.nodes[group].get("prior") is None and bool(self.reads()[group][i])',
        "return bool(self.reads()[group][i])",
        "witnesses",
    ),
    fault("a cycle is reported backwards", CYCLES, "return found[::-1]", "return found", "witnesses"),
    fault(
        "a blocked node is left out",
        FACTS,
        "blocked=frozenset(self._named(blocked)),",
        "blocked=frozenset(self._named(blocked)[1:]),",
        "witnesses",
    ),
    # property 6: largest and smallest
    fault("the last node is not swept", CUT, "return queue[first:]", "return queue[first:-1]", "largest"),
    fault(
        "what was not asked for is swept",
        CUT,
        "count_down[: self.count][~asked[: self.count]] += 1",
        "pass",
        "largest",
    ),
    fault(
        "an initialised node is swept too",
        FACTS,
        "given = graph.clamped | supplied",
        "given = graph.clamped",
        "largest",
    ),
    fault(
        "the repair is greedy and called smallest",
        REPAIR,
        "            found, proved = _search(piece, clock)",
        "            found, proved = _greedy(piece), True",
        "examples",
    ),
    fault(
        "the repair forgets the roots",
        FACTS,
        "nodes = (*self.free_roots, *graph.called(sorted(chosen)))",
        "nodes = graph.called(sorted(chosen))",
        "largest",
    ),
    fault(
        "a loop is not forced",
        REPAIR,
        "                taken.append(v)\n                queue.extend(self.remove(v))",
        "                queue.extend(self.remove(v))",
        "largest",
    ),
    fault(
        "nodes with two edges are merged",
        REPAIR,
        "if len(side) == 1 and",
        "if len(side) <= 2 and",
        "largest",
        "examples",
    ),
    fault("the bound counts too much", REPAIR, "found += 1 + len(", "found += 2 + len(", "examples"),
    fault(
        "a repair of no search is called smallest",
        REPAIR,
        "            return best, False",
        "            return best, True",
        "examples",
    ),
    # property 7: invariance
    fault(
        "a multigraph's parallel edges count twice",
        CUT,
        "count_down = self.in_degree.copy()",
        "count_down = self.in_degree.copy(); count_down[-1] += self.count > 3",
        "invariance",
    ),
    fault(
        "depth depends on names",
        CUT,
        "return {group: g for g, group in enumerate(self.groups)}",
        "return {str(group): g for g, group in enumerate(self.groups)}",
        "largest",
    ),
    # property 8: monotony
    fault(
        "a second clamp is ignored",
        CUT,
        "clamped[[index[node] for node, mask in masks.items() if mask is None]] = True",
        "clamped[[index[node] for node, mask in masks.items() if mask is None][-1:]] = True",
        "monotony",
    ),
    # property 9: one node
    fault(
        "what lies behind a clamp counts",
        FACTS,
        "self._graph.incoming, among=free)",
        "self._graph.incoming)",
        "one node",
    ),
    fault(
        "readers are taken for ancestors",
        FACTS,
        "& free, self._graph.incoming",
        "& free, self._graph.outgoing",
        "one node",
    ),
    # error coordinates, and leaks
    fault(
        "a root has an error",
        VERDICTS,
        "facts.sweep(initialised=(*kept, *facts.unclamped_roots))",
        "facts.sweep(initialised=(*kept, *facts.free_roots))",
        "coordinates",
    ),
    fault(
        "what is kept is not given",
        VERDICTS,
        "facts.sweep(initialised=(*kept, *facts.unclamped_roots))",
        "facts.sweep(initialised=facts.unclamped_roots)",
        "coordinates",
    ),
    fault(
        "a search for what to keep looks at the clock",
        VERDICTS,
        "Budget(seconds=None, nodes=KEPT_WORK // (1 + facts.edge_count) ** 2)",
        "Budget()",
        "coordinates",
    ),
    fault(
        "a root in the order passes",
        VERIFY,
        "if errors.any() and v not in self.entered[False]:",
        "if False:",
        "coordinates",
    ),
    fault(
        "a node with two variables passes",
        VERIFY,
        "(clamped.astype(int) + states[v] + errors != 1).any()",
        "not (clamped | states[v] | errors).all()",
        "coordinates",
    ),
    fault(
        "an error before its prediction passes",
        VERIFY,
        "ready[v] = np.where(errors, position[v], -1)",
        "ready[v] = np.full(len(errors), -1)",
        "coordinates",
    ),
    fault(
        "a leak may pass another clamp",
        CUT,
        "before = walk([v], self.outgoing, among=~self.clamped, until=into)",
        "before = walk([v], self.outgoing, until=into)",
        "leaks",
    ),
    fault(
        "a suspect is called guilty",
        CUT,
        "        if last not in into:\n            return None\n",
        "        if last not in into:\n            return [v]\n",
        "leaks",
    ),
    fault(
        "a leak is sought in the free part only",
        CUT,
        "return np.asarray(targets & out_of & into)",
        "return np.asarray(~targets & out_of & into)",
        "leaks",
    ),
    fault(
        "a leak with a second clamp passes",
        VERIFY,
        "[False] * (len(nodes) - 1)",
        "map(self.is_clamped, list(nodes)[1:])",
        "leaks",
    ),
    fault("what stays clamped is warned of", "topology/cautions.py", "not in staying]", "is not None]", "leaks"),
    # the other facts
    fault(
        "components are in reverse",
        CUT,
        "parts = components(*self.outgoing)",
        "parts = components(*self.outgoing)[::-1]",
        "facts",
    ),
    fault(
        "components are too large",
        CUT,
        "parts = components(*self.outgoing)",
        "parts = [sorted(sum(components(*self.outgoing), []))]",
        "facts",
    ),
    fault(
        "pairs are not looked for first",
        CYCLES,
        "return [int(low[alone[0]])] if len(alone) else [int(low[0]), int(high[0])]",
        "return [int(low[0]), int(high[0])]",
        "neurons",
    ),
    fault("the first cycle is called shortest", CYCLES, "            self.through(s, allowance)\n", "", "facts"),
    fault("a clamp that a clamp predicts is deep", CUT, "if left >= 0:", "if left >= -9:", "facts"),
    fault(
        "data reaches down the edges only",
        CUT,
        "reach(seeds, self.outgoing, self.incoming)",
        "reach(seeds, self.outgoing)",
        "examples",
    ),
    fault("a depth on a cycle is finite", FACTS, "d if ok else math.inf for", "d for", "facts"),
    # neurons
    fault(
        "a neuron without entries is an unknown root",
        CUT,
        "root = np.array([node not in entered for node in groups], dtype=bool)",
        "root = np.ones(len(groups), dtype=bool)",
        "neurons",
    ),
    fault(
        "entries are read transposed",
        CUT,
        "sources.append(stored[0] + offsets[g])",
        "sources.append(stored[1] % sizes[g] + offsets[g])",
        "neurons",
    ),
    fault("a hub counts as a step", CUT, "there = here + (v < count)", "there = here + 1", "neurons"),
    fault(
        "a hub is taken into the repair",
        REPAIR,
        "if v in self.fixed:\n                    raise _Impossible",
        "if False:\n                    raise _Impossible",
        "neurons",
    ),
    fault(
        "a partial clamp holds all neurons",
        CUT,
        "True if mask is None else arguments.mask_of(graph, node, mask)",
        "True",
        "neurons",
    ),
    fault("a mask need hold in one sample only", ARGUMENTS, ".all(axis=0)", ".any(axis=0)", "neurons"),
    # verdicts, input and print
    fault(
        "Average needs no class",
        VERDICTS,
        "    if target is None:\n        return Verdict(\n            False,",
        "    if target is None:\n        return Verdict(\n            True,",
        "examples",
    ),
    fault(
        "a cut cycle is called free",
        VERDICTS,
        "        if facts.cycle is not None:\n            return Verdict(False, reason, claim, _sweep",
        "        if facts.graph_cycle is not None:\n            return Verdict(False, reason, claim, _sweep",
        "examples",
    ),
    fault("a partial clamp is a full one", ARGUMENTS, 'getattr(value, "mask", None) for', "None for", "examples"),
    fault("None is a value", ARGUMENTS, "if value is None:", "if False:", "examples"),
    fault("yes hides its condition", "topology/wording.py", 'f"yes. {verdict.remedy}"', '"yes. "', "examples"),
    fault(
        "a name looks like a count", "topology/witness.py", "if not any(map(_numeric, nodes)):", "if True:", "examples"
    ),
    fault("phases win over nodes", ARGUMENTS, "    if not both:\n", "    if both or not both:\n", "examples"),
    fault("names are not escaped", NOTEBOOK, "said = html.escape(text)", "said = text", "examples"),
    fault(
        "isolated nodes pass unnoticed",
        "topology/cautions.py",
        "    if facts.isolated:\n",
        "    if False:\n",
        "examples",
    ),
    fault(
        "every part is said to have data",
        FACTS,
        "return [part for part in parts if len(part) > 1]",
        "return []",
        "examples",
    ),
    # slots
    fault("a sweep waits for slots", ARGUMENTS, "return slot is None or", "return True or", "slots"),
    fault(
        "the printed proposition forgets slots",
        FACTS,
        "graph = self._graph.whole if slots else self._graph\n        said",
        "graph = self._graph\n        said",
        "slots",
    ),
    fault(
        "a cycle through a slot is no cycle",
        FACTS,
        "return self._uncut_cycle(self._graph.whole)",
        "return None",
        "slots",
    ),
    fault(
        "a node with slots alone needs no value",
        CUT,
        "(self.whole.root & (self.whole.out_degree == 0))",
        "(self.root & (self.out_degree == 0))",
        "slots",
    ),
    fault(
        "the checker of witnesses takes an edge into a slot for a cycle's",
        VERIFY,
        "return self.every if slots else self.main",
        "return self.every",
        "slots",
    ),
    fault(
        "it says nothing of slots",
        VERIFY,
        "return self.every if slots else self.main",
        "return self.main",
        "slots",
    ),
    # strategies and picture
    fault(
        "an edge outside wraps around",
        STRATEGIES,
        "inside = [(u, v) for u, v in edges if 0 <= u < len(records) and 0 <= v < len(records)]",
        "inside = [(u % len(records), v % len(records)) for u, v in edges]",
        "strategies",
    ),
    fault("lonely nodes never go", STRATEGIES, "if i not in touched and not record.lonely", "if False", "strategies"),
    fault("sweepable clamps leave a cycle", STRATEGIES, "        chosen.add(node)\n", "", "strategies"),
    fault(
        "a problem prints its fields",
        STRATEGIES,
        "printer.text(repr(self))",
        "printer.text(object.__repr__(self))",
        "strategies",
    ),
    fault(
        "clamps are drawn round",
        "drawing/declaration.py",
        'marker="s" if fixed else "o"',
        'marker="o"',
        "drawing",
    ),
    fault(
        "roots without a value are black",
        "drawing/placing.py",
        "bad = frozenset({*cycle, *report.free_roots})",
        "bad = frozenset({*cycle})",
        "drawing",
    ),
]
