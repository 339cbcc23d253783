"""The engine's exactness can fail: faults planted in plans, backends, inference, learning and initializers, each to be noticed.

Run with ``pytest -m mutants tests/mutants/test_engine.py``.
"""

import pytest

from tests.mutants.planted import Mutant, assert_can_be_planted, survives

FILES = {
    "engine": "tests/backends/test_engine.py",
    "core": "tests/network/test_core.py",
    "plan": "tests/plan/test_plan.py",
    "initializers": "tests/initializers/test_initializers.py",
    "learning": "tests/learning/test_learning.py",
    "deterministic": "tests/backends/test_deterministic.py",
    "autocast": "tests/backends/test_autocast.py",
    "onednn": "tests/backends/test_onednn.py",
    "sharing": "tests/backends/test_sharing.py",
    "capture": "tests/inference/test_capture.py",
    "verify": "tests/plan/test_verify.py",
    "coordinates": "tests/inference/test_coordinates.py",
}


def fault(name, file, old, new, *tests):
    return Mutant(name, file, old, new, tuple(FILES[t] for t in tests))


COMPILE, FLOW = "plan/compile.py", "plan/flow.py"
RUN, DESCENT, RELAX, RESULT = (f"inference/{name}.py" for name in ("run", "descent", "relax", "result"))
TORCH = "backends/torch"
LOWERING, PROGRAM, BACKEND = f"{TORCH}/lowering.py", f"{TORCH}/program.py", f"{TORCH}/backend.py"
BASE, PLANNER, VERIFY, CALLS = "backends/base.py", "inference/planner.py", "plan/verify.py", f"{TORCH}/calls.py"
SUMS, WORKSPACE, PRODUCTS = f"{TORCH}/sums.py", f"{TORCH}/workspace.py", f"{TORCH}/products.py"
EDGES, SPARSE, NODES = f"{TORCH}/edges.py", f"{TORCH}/sparse.py", f"{TORCH}/nodes.py"
MODULES, GRADIENTS = f"{TORCH}/modules.py", f"{TORCH}/gradients.py"

#: How each reason begins for which a plan is refused.
REFUSALS = (
    'f"adds the product', 'f"adds a product twice', 'f"{what} {self._name(missing)}', 'f"{what} {self._name(self.s.target',
    'f"leaves out the error', '"sends an error back twice', 'f"sends an error that was not', 'f"does not send the error',
    'f"takes the error of', 'f"sends back along', 'f"sends on what',
    'f"moves {', 'f"does not move', '"learns twice', 'f"does not learn from', 'f"does not learn the bias',
)  # fmt: skip

MUTANTS = [
    fault("one step too few", DESCENT, "for t in range(program.plan.steps):\n            program.step(t, motion)",
          "for t in range(program.plan.steps - 1):\n            program.step(t, motion)", "engine"),
    fault("one step too few under a trace", DESCENT, "for t in range(program.plan.steps):\n            program.evaluate(t)",
          "for t in range(program.plan.steps - 1):\n            program.evaluate(t)", "engine"),
    fault("the last forward round forgotten", PROGRAM,
          "        if self.plan.steps:\n            for step in self._final.forward:\n                step()\n", "", "engine"),
    fault("a hoist dropped", COMPILE, "edges = np.flatnonzero(self.level <= t)", "edges = np.flatnonzero(self.level <= NEVER)",
          "plan"),
    fault("levels one step late", COMPILE, "first[self.flow.moves[t]] = t + 1", "first[self.flow.moves[t]] = t + 2", "engine"),
    fault("children do not err", FLOW, "        grown[target[d[source]]] = True\n", "", "plan"),
    fault("parents do not move", FLOW, "            d[source[z[target]]] = True\n", "", "plan"),
    fault("own errors do not move", FLOW, "d = z & free", "d = np.zeros_like(z)", "plan"),
    fault("clamped nodes move", COMPILE, "self.free = ~_mask(count, request.clamped) & only", "self.free = only.copy()",
          "core"),
    fault("masked nodes are exact", COMPILE, "swept & ~late & ~self.masked & self._vanishing()",
          "swept & ~late & self._vanishing()", "engine", "plan"),
    fault("every energy vanishes", COMPILE, "~self.masked & self._vanishing() & self.alive", "~self.masked & self.alive",
          "engine"),
    fault("late writes overlooked", COMPILE, "written[s.source] > written[s.target]",
          "written[s.source] > written[s.source]", "engine"),
    fault("sigmoid edges carry no zero", COMPILE, "if not bucket.keeps_zero:", "if False:", "engine", "plan"),
    fault("a base restored from the wrong level", LOWERING, "mask = based & (top == level)", "mask = based & (top >= level)",
          "engine", "plan"),
    fault("gradients of moved nodes not cleared", LOWERING, "self.by_group_rows(empty | nudged)", "self.by_group_rows(empty & ~moved)",
          "engine"),
    fault("slopes of what changes are kept", LOWERING, "        fixed[s.target[self.adding != NEVER]] = False\n", "", "engine",
          "plan"),
    fault("a gradient written twice", LOWERING, "            untouched[sources] = False\n", "", "engine", "plan"),
    fault("stateful optimizers forget slow nodes", COMPILE, "if r.stateless else moved.moves[-1]",
          "if r.stateless else moved.moves[0]", "engine"),
    fault("weights of silent targets learn", COMPILE, "self._learn(self.flow.error(request.steps))",
          "self._learn(self.flow.error(0))", "engine"),
    fault("the target's transpose", PRODUCTS, "addmm(out, s(), w, beta=beta, alpha=-1, out=out)",
          "addmm(out, s(), w, beta=beta, alpha=1, out=out)", "engine"),
    fault("edges of a batch swapped", EDGES, "        self.row = local if", "        local = local[::-1]\n        self.row = local if",
          "engine"),
    fault("rows summed in the order of the edges", SUMS, "order, pointer = np.argsort(places, kind=\"stable\"), pointers",
          "order, pointer = np.arange(len(places)), pointers", "engine"),
    fault("bags begin one late", SUMS, "torch.from_numpy(pointer[:-1])", "torch.from_numpy(pointer[1:])", "deterministic"),
    fault("sums of other rows are kept", SUMS, "*buffer.shape[1:]).zero_()", "*buffer.shape[1:])", "deterministic"),
    fault("edge activations without slope", EDGES,
          "pulled(ws, edge.bucket, way.product(lambda: s, lambda: weight), lambda: h)",
          "way.product(lambda: s, lambda: weight)", "engine"),
    fault("weight gradients of the wrong sign", PRODUCTS, "beta=beta, alpha=-scale, out=grad[where]",
          "beta=beta, alpha=scale, out=grad[where]", "core"),
    fault("shared weights learn from one edge", EDGES, "            add(grad, product(), -scale)",
          "            grad.index_copy_(0, index, product().mul_(-scale))", "engine"),
    fault("half weights are cast once and for all", WORKSPACE, "self.refreshed(lambda: copy.copy_(weight))",
          "copy.copy_(weight)", "autocast"),
    fault("autocast is overlooked", WORKSPACE, "_autocast(self.device) if self.dtype == torch.float32 else None", "None", "autocast"),
    fault("half gradients of the wrong sign", PRODUCTS, "grad[where]).mul_(-scale)", "grad[where]).mul_(scale)", "autocast"),
    fault("transposed CSR", SPARSE, "((target, source), (z, a)) if forward else ((source, target), (a, z))",
          "((source, target), (z, a)) if forward else ((target, source), (a, z))", "engine"),
    fault("CSR values not refreshed", SPARSE, "ws.refreshed(lambda: torch.index_select(packed, 0, index, out=values))",
          "torch.index_select(packed, 0, index, out=values)", "engine"),
    fault("precision forgotten", NODES, "torch.sub(r.h, mu, out=r.e).mul_(precision)", "torch.sub(r.h, mu, out=r.e)", "engine"),
    fault("priors are zero", NODES, "        rows.index_copy_(0, which, fixed)\n", "", "engine"),
    fault("module weights learn nothing", MODULES, "parameter.grad.sub_(grads[name], alpha=scale)", "pass", "engine"),
    fault("bias gradients summed over the batch", GRADIENTS, "gradient[own].sub_(sums, alpha=scale)",
          "gradient[own].sub_(sums)", "core"),
    fault("masks hold only at the start", PROGRAM, "            known.e.mul_(known.free)\n", "            pass\n", "engine"),
    fault("a result's buffers used again", RESULT, "        program.lend(self)\n", "", "core"),
    fault("stale views of parameters", BACKEND, "(space for space in usable if not space[0].stale)", "iter(usable)", "core"),
    fault("momentum without memory", "optimizers.py", "mul_(self.momentum).add_(grad)", "mul_(0.0).add_(grad)", "engine"),
    fault("Adam without bias correction", "optimizers.py", "value=-lr / (1 - first**t)", "value=-lr", "engine"),
    fault("absent classes forgotten", "initializers/average.py",
          "means = torch.where(present.view(1, -1, 1), means, bank)", "pass", "initializers"),
    fault("means over the batch", "initializers/average.py", "means = _sums(states, labels, number) / divisor.to(states.dtype)",
          "means = _sums(states, labels, number) / states.shape[1]", "initializers"),
    fault("depth one off", "initializers/average.py", "depth[v] <= self.forward_depth", "depth[v] < self.forward_depth",
          "initializers"),
    fault("evaluation teaches", "initializers/remember.py", "        out.copy_(kept[block.start",
          "        kept.mul_(0.5)\n        out.copy_(kept[block.start", "initializers"),
    fault("beta outside the softmax", "initializers/memory.py", "torch.softmax(self.beta * torch.matmul(query, key), -1)",
          "self.beta * torch.softmax(torch.matmul(query, key), -1)", "initializers"),
    fault("a fit without the ridge", "initializers/memory.py", "root = math.sqrt(self.ridge * states.shape[0])",
          "root = math.sqrt(self.ridge)", "initializers"),
    fault("the target is not released", RELAX, "if v not in after[0].release}", "}", "initializers"),
    fault("per-node sweeps anything", "initializers/per_node.py", "        if sweep.complete:", "        if True:",
          "initializers"),
    fault("noise that repeats", "initializers/basic.py", "self._observed += 1", "pass", "initializers"),
    fault("nudges forgotten", PROGRAM,
          "self.ws.e(g)[p].add_(self.ws.h(g)[p] - target.reshape(self.batch, -1), alpha=strength)", "pass", "learning"),
    fault("incremental optimizers start anew", "learning/rules.py", "            motion.first_step = t\n",
          "            motion = Motion(optimizer)\n", "learning"),
    fault("half the curvature", "inference/curvature.py", "(above - below) / (2 * shift)", "(above - below) / shift", "learning"),
    # buffers and bound calls that plans share
    fault("signals that no call writes are another plan's", LOWERING,
          "                    self.quiet[targets[~self.ever[targets]]] = True\n", "", "sharing"),
    fault("signals between those that are needed are harmless", LOWERING, "if harmless.all():", "if True:", "sharing"),
    fault("a workspace that somebody reads runs again", BACKEND, " and not s[0].taken]", "]", "sharing"),
    fault("every run has buffers of its own", BACKEND, "found = next((space for space in usable if not space[0].stale), None)",
          "found = None", "sharing"),
    fault("every plan binds its own calls", WORKSPACE, "            self._bound[key] = found\n", "", "sharing"),
    fault("a call bound for one kernel serves another", PROGRAM, "self._keep((call.key, kernel.name), lambda",
          "self._keep(call.key, lambda", "sharing"),
    fault("a call bound with oneDNN serves where torch must compute", PROGRAM, "self.ws.bound((key, self._onednn), bind)",
          "self.ws.bound(key, bind)", "sharing"),
    fault("a shared call is refreshed for its first program alone", WORKSPACE, "        found = self._bound.get(key)\n",
          "        found = self._bound.get(key)\n        if found is not None:\n            return Bound(found.run, (), (found,))\n",
          "sharing"),
    fault("what a call rests on is not refreshed", WORKSPACE, "        self._refreshing += found.refresh\n", "", "sharing"),
    fault("rows are known by their number", CALLS,
          "(len(value), hashlib.blake2b(np.ascontiguousarray(value).data, digest_size=16).digest())", "(len(value),)", "sharing"),
    fault("a restore is a save", CALLS, "return (type(self).__name__, *(mark", "return (0, *(mark", "engine"),
    fault("one CSR matrix for both ways", SPARSE, "mark(call.edges), forward), make)", "mark(call.edges)), make)", "engine"),
    fault("bases of another size", WORKSPACE, 'name = ("base", key, size)', 'name = ("base", key)', "sharing"),
    fault("the rates of the run before", PROGRAM, "        self._rates = {}\n        self._last = -1\n", "        self._last = -1\n",
          "sharing"),
    fault("zeros are written over clamps", LOWERING, "self.gives(op, first=not begun)", "self.gives(op, first=True)", "engine"),
    fault("what was not compared predicts what lay there", PROGRAM, "        if np.all(compared):", "        if True:", "sharing"),
    fault("torch's switches are overlooked", WORKSPACE, "*switches(self.device), *(p.data_ptr()", "*(p.data_ptr()", "onednn",
          "deterministic"),
    # the planner, and what is relaxed before an initialization
    fault("the states of an earlier call", PLANNER, "sources=_swapped(plan.initializers, first, init)",
          "sources=plan.initializers", "learning"),
    fault("the sweep to another node", PLANNER, '("prediction", clamped, masked, target, self', '("prediction", clamped, masked, self',
          "core"),
    fault("a recording with the memory of another initializer", RUN, "for initializer in context.sources",
          "for initializer in plan.initializers", "capture"),
    fault("relaxed states are views of buffers", RELAX, 'program.read(number[v], "state").clone()',
          'program.read(number[v], "state")', "initializers"),
    fault("no tolerance ends a relaxation", RELAX, "tolerance=relaxation.tolerance", "tolerance=1e-300", "initializers"),
    fault("the residual of the last part", RELAX, "residual = max(residual, left)", "residual = left", "initializers"),
    fault("a gradient downwards is none", BASE, '"gradient").abs().transpose', '"gradient").transpose', "initializers"),
    # error coordinates, solvers, and runs that end when they have converged
    fault("errors are taken from another plan", LOWERING, "            yield from (MeasureRows(which, where)",
          "            yield from (Activate(which, where)", "coordinates"),
    fault("children get their states before their parents", COMPILE,
          "Offset(wave)) for wave in self.error_waves)", "Offset(wave)) for wave in reversed(self.error_waves))", "coordinates"),
    fault("errors go on to the parents before they have come back", COMPILE, "for wave in reversed(self.error_waves)\n",
          "for wave in self.error_waves\n", "coordinates"),
    fault("an edge more does no harm to errors that are sent on", LOWERING, " if self.at_once else False)", ")", "coordinates",
          "sharing"),
    fault("states move where errors should", PROGRAM, "(self.ws.x if call.errors else self.ws.h)", "self.ws.h", "coordinates"),
    fault("nudges are forgotten where errors move", PROGRAM,
          "        if self.plan.measure is not None:  # what pulls at a state goes on to its parents\n            self._nudge(motion)\n",
          "", "coordinates"),
    fault("samples that have converged move on", DESCENT,
          'torch.where(self.active.unsqueeze(1), program.rows(t, "variable"), before)', 'program.rows(t, "variable")',
          "coordinates"),
    fault("a batch converges as one", DESCENT, "self.found.residual > options.tolerance",
          "self.found.residual.max() > options.tolerance", "coordinates"),
    fault("the errors at the end are those of the last step", DESCENT, "            self._move(t)\n        program.finish()\n",
          "            self._move(t)\n", "coordinates"),
    # energies, as every backend has them
    fault("precisions from the segment's start", BASE, "precision[numbers - first]", "precision[: len(numbers)]",
          "engine"),
    fault("one energy for all segments of a group", BASE, "np.diff(s.segment_of[nodes])", "np.diff(s.group_of[nodes])",
          "engine"),
    # the proof of plans
    *(fault(f"a proof that does not mind: {words}", VERIFY, f"raise _Wrong({words}", f"str({words}", "verify") for words in REFUSALS),
]  # fmt: skip


@pytest.mark.mutants
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_the_suite_notices(mutant, tmp_path):
    survived, printed = survives(mutant, tmp_path)
    assert not survived, f"{mutant.name}: no test noticed\n{printed}"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_the_fault_can_still_be_planted(mutant, tmp_path):
    assert_can_be_planted(mutant, tmp_path)
