"""Building a network can fail: faults planted in the copy, the order, the trial and the packing, each to be noticed.

Run with ``pytest -m mutants tests/mutants -k network``.
"""

from tests.mutants.planted import Mutant

FILES = {
    "building": "tests/network/test_building.py",
    "trial": "tests/network/test_trial.py",
    "declaration": "tests/network/test_declaration.py",
    "copies": "tests/network/test_copies.py",
    "own": "tests/network/test_own_graph.py",
    "loading": "tests/network/test_loading.py",
    "energies": "tests/test_energies.py",
    "transposed": "tests/network/test_transposed.py",
}


def fault(name, file, old, new, *tests):
    return Mutant(name, f"{file}.py", old, new, tuple(FILES[t] for t in tests))


ADJACENCY, COPYING, DECLARATION = "network/adjacency", "network/copying", "network/declaration"
NETWORK, PACKED, STRUCTURE, TRIAL = "network/network", "network/packed", "network/structure", "network/trial"

MUTANTS = [
    fault("neighbours in another order", COPYING, "source[by_target.order].tolist()", "source[by_target.order[::-1]].tolist()", "building"),
    fault("an edge's attributes are the caller's", COPYING, "entries = [own(data) if data else {} if kind is dict else _NOTHING for data in between]", "entries = list(between)", "building"),
    fault("the network's graph can be changed", COPYING, "popitem = setdefault = update = _refuse", "popitem = setdefault = _refuse", "own"),
    fault("half a state stays", "network/loading", "                put_back()\n            raise", "                pass\n            raise", "loading"),
    fault("a module is copied for each edge", COPYING, "copy_module(v, memo) if", "copy_module(v, {}) if", "building"),
    fault("components are not told apart", ADJACENCY, "if low[v] == place[v]:", "if low[v] == place[v] and not path:", "building"),
    fault("components in reverse", ADJACENCY, "    return found[::-1]\n", "    return found\n", "building"),
    fault("edges of many nodes unsorted", ADJACENCY, "return np.sort(self.order[np.repeat(first, counts) + offsets])", "return self.order[np.repeat(first, counts) + offsets]", "building"),
    fault("one named energy for all nodes", DECLARATION, "if spec.energy is data.get(\"energy\") or spec.energy is GAUSSIAN:", "if True:", "building"),
    fault("one named transform for all edges", DECLARATION, "if spec.kind in PACKED or spec.transform is attributes[i].get(\"transform\"):", "if True:", "building"),
    fault("equal is the same", DECLARATION, "return (*attributes, *map(id, map(attributes.get, known)))", "return (*attributes, *map(attributes.get, known))", "building"),
    fault("a module for each Gaussian", DECLARATION, "energy is spec else GAUSSIAN, energy", "energy is spec else Gaussian(), energy", "building"),
    fault("misplaced attributes pass", DECLARATION, "if key in NODE_ATTRIBUTES or key in EDGE_ATTRIBUTES:", "if False:", "declaration"),
    fault("a hub is searched through", STRUCTURE, "few = out if len(out) <= len(to) else to", "few = out", "building"),
    fault("names are counted and not looked up", "network/parts", "while count > 1 and (unused := f\"{name}_{count}\") in names:", "while count > 1 and (unused := f\"{name}_{count}\") is None:", "declaration"),
    fault("a frozen module learns elsewhere", NETWORK, "if other is not None:", "if False:", "declaration"),
    fault("what was unfrozen passes", NETWORK, "if any(parameter.requires_grad for parameter in own):", "if False:", "declaration"),
    fault("hooks pass", NETWORK, "if parameter._backward_hooks or parameter._post_accumulate_grad_hooks:", "if parameter._backward_hooks:", "declaration"),
    fault("a copy shares its modules", STRUCTURE, "replace(b, transform=copy.deepcopy(b.transform, memo)) for b in self.buckets", "b for b in self.buckets", "copies"),
    fault("a copy shares its energies", STRUCTURE, "segment if segment.gaussian else replace", "segment if True else replace", "copies"),
    fault("transposed edges lie together whatever they transpose", "network/sharing", "pairs = np.stack([label[mine], label[[", "pairs = np.stack([label[mine], label[mine], 0 * label[[", "transposed"),
    fault("a transposed edge learns where its weight does not", "network/sharing", "elif own.trainable != owner.trainable:", "elif False:", "transposed"),
    fault("what shares a weight gets the last one", "network/carrying", "if not torch.equal(first, values):", "if False:", "transposed"),
    fault("a transposed view has its gradient as it lies", PACKED, "return _seen(packed[self._rows], self.shape, self.transposed)", "return packed[self._rows].view(self.shape)", "transposed"),
    fault("two modules with one parameter are written", "serialization/writing", "if first is not module:", "if False:", "transposed"),
    fault("a parameter can be taken away", PACKED, "    def __delitem__(self, name: str) -> None:\n        _refuse(name)\n\n\nclass Packed", "    pass\n\n\nclass Packed", "declaration"),
    fault("others can be added", PACKED, "        if name not in self._keys:\n", "        if False:\n", "declaration"),
    fault("values alone show what is in place", TRIAL, "tensor._version or not torch.equal", "not torch.equal", "trial"),
    fault("versions alone show what is in place", TRIAL, "tensor._version or not torch.equal(tensor, state)", "tensor._version", "trial"),
    fault("generators are not looked at", TRIAL, "if any(not torch.equal(a, b) for a, b in zip(drawn, _generators(states[0]))):", "if False:", "trial"),
    fault("evaluated once", TRIAL, "if not _close(again, kept):", "if False:", "trial"),
    fault("what a module holds may change", TRIAL, "if any(not torch.equal(part, old) for part, old in zip(parts, before)):", "if False:", "trial"),
    fault("the first sample stands for all", TRIAL, "for i in range(SAMPLES):", "for i in range(1):", "trial"),
    fault("results may be written again", TRIAL, "        if not _close(first, kept):", "        if False:", "trial"),
    fault("slopes are not looked for", TRIAL, "        if self.by_autograd:\n", "        if False:\n", "trial"),
    fault("a step is a slope", TRIAL, "STEP, SEEN = 1e-3, 0.1", "STEP, SEEN = 1.0, 0.0", "trial"),
    fault("slopes of the first argument alone", TRIAL, "for i, back in enumerate(found):", "for i, back in enumerate(found[:1]):", "trial"),
    fault("modules are tried as they start", TRIAL, "SHIFT = 0.1", "SHIFT = 0.0", "trial"),
    fault("the module itself is tried", TRIAL, "twin = copy_module(function, {})", "twin = function", "trial"),
    fault("only normal states", TRIAL, "for states in (signed, 0.1 + 0.8 * unsigned, torch.zeros_like(signed)):", "for states in (signed,):", "trial"),
    fault("any type will do", TRIAL, "or (self.dtype is not None and result.dtype != self.dtype)", "", "trial"),
    fault("tried in single precision", TRIAL, 'torch.empty(0, dtype=like.dtype, device="cpu") if like.is_meta else like.detach()', "torch.empty(0)", "trial"),
    fault("the generators are moved", TRIAL, "with torch.random.fork_rng(devices=devices), torch.inference_mode(False):", "with torch.inference_mode(False):", "trial"),
    fault("tried again and again", TRIAL, "        self._tried.add(key)\n", "", "trial"),
    fault("zero is not looked at", TRIAL, "if activation.at_zero is not None:", "if False:", "trial"),
    fault("an unseen weight learns", "transforms/base", "return name in module._parameters", "return True", "trial"),
    fault("entries unsorted", "transforms/sparse", "    entries = _in_order(entries)\n", "", "building"),
    fault("drawn twice", "transforms/sparse", "return values[np.r_[True, values[1:] != values[:-1]]]", "return values", "building"),
    fault("any number is a precision", "energies/base", "above=0, refuse", "refuse", "energies"),
]  # fmt: skip
