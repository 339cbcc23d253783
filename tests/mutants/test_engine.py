"""The engine's exactness can fail: faults planted in plans, kernels, learning and initializers, each to be noticed.

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
}


def fault(name, file, old, new, *tests):
    return Mutant(name, file, old, new, tuple(FILES[t] for t in tests))


COMPILE, FLOW, RUN = "plan/compile.py", "plan/flow.py", "inference/run.py"
SUMS, WORKSPACE = "kernels/sums.py", "kernels/workspace.py"
EDGES, SPARSE, NODES, OTHERS = "kernels/edges.py", "kernels/sparse.py", "kernels/nodes.py", "kernels/others.py"

MUTANTS = [
    fault("one step too few", RUN, "for t in range(plan.steps):", "for t in range(plan.steps - 1):", "engine"),
    fault("the last forward round forgotten", RUN, "    if plan.steps:\n        _each(program.final[0])\n", "", "engine"),
    fault("a hoist dropped", COMPILE, "edges = np.flatnonzero(self.level <= t)", "edges = np.flatnonzero(self.level <= NEVER)",
          "plan"),
    fault("levels one step late", COMPILE, "first[moved.moves[t]] = t + 1", "first[moved.moves[t]] = t + 2", "engine"),
    fault("children do not err", FLOW, "        grown[target[d[source]]] = True\n", "", "plan"),
    fault("parents do not move", FLOW, "            d[source[z[target]]] = True\n", "", "plan"),
    fault("own errors do not move", FLOW, "d = z & free", "d = np.zeros_like(z)", "plan"),
    fault("clamped nodes move", COMPILE, "self.free = ~clamped & self.only", "self.free = self.only.copy()", "core"),
    fault("masked nodes are exact", COMPILE, "swept & ~late & ~self.masked & self.vanishes", "swept & ~late & self.vanishes",
          "engine", "plan"),
    fault("every energy vanishes", COMPILE, "~self.masked & self.vanishes & self.alive", "~self.masked & self.alive",
          "engine"),
    fault("late writes overlooked", COMPILE, "written[self.s.source] > written[self.s.target]",
          "written[self.s.source] > written[self.s.source]", "engine"),
    fault("sigmoid edges carry no zero", COMPILE, "or bucket.phi.at_zero != 0.0", "", "engine", "plan"),
    fault("a base restored from the wrong level", COMPILE, "mask = based & (top == level)", "mask = based & (top >= level)",
          "engine", "plan"),
    fault("gradients of moved nodes not cleared", COMPILE, "self.by_group_rows(empty)", "self.by_group_rows(empty & ~d)",
          "engine"),
    fault("slopes of what changes are kept", COMPILE, "        fixed[s.target[self.level != NEVER]] = False\n", "", "engine", "plan"),
    fault("a gradient written twice", COMPILE, "            untouched[sources] = False\n", "", "engine", "plan"),
    fault("stateful optimizers forget slow nodes", COMPILE, "if self.r.stateless else moved.moves[-1]",
          "if self.r.stateless else moved.moves[0]", "engine"),
    fault("weights of silent targets learn", COMPILE, "self.learn(parts, moved.error(steps))", "self.learn(parts, moved.error(0))",
          "engine"),
    fault("the target's transpose", EDGES, "beta=0 if call.fresh else 1, alpha=-1, out=e)",
          "beta=0 if call.fresh else 1, alpha=1, out=e)", "engine"),
    fault("edges of a batch swapped", EDGES, "        self.row = local if", "        local = local[::-1]\n        self.row = local if",
          "engine"),
    fault("rows summed in the order of the edges", SUMS, "order, pointer = np.argsort(places, kind=\"stable\"), pointers",
          "order, pointer = np.arange(len(places)), pointers", "engine"),
    fault("bags begin one late", SUMS, "torch.from_numpy(pointer[:-1])", "torch.from_numpy(pointer[1:])", "deterministic"),
    fault("sums of other rows are kept", SUMS, "*buffer.shape[1:]).zero_()", "*buffer.shape[1:])", "deterministic"),
    fault("edge activations without slope", EDGES, "        back = _pull_phi(ws, edge.bucket, back, h)\n", "", "engine"),
    fault("weight gradients of the wrong sign", EDGES, "beta=beta, alpha=-scale, out=grad[row]",
          "beta=beta, alpha=scale, out=grad[row]", "core"),
    fault("shared weights learn from one edge", EDGES, "            add(grad, _product(ws, *factors()), -scale)",
          "            grad.index_copy_(0, index, _product(ws, *factors()).mul_(-scale))", "engine"),
    fault("half weights are cast once and for all", WORKSPACE, "            self.refresh.append(lambda: copy.copy_(weight))\n            self.refresh[-1]()",
          "            copy.copy_(weight)", "autocast"),
    fault("autocast is overlooked", WORKSPACE, "_autocast(self.device) if self.dtype == torch.float32 else None", "None", "autocast"),
    fault("half gradients of the wrong sign", "kernels/half.py", "product(ws, s, x, grad).mul_(-scale)",
          "product(ws, s, x, grad).mul_(scale)", "autocast"),
    fault("transposed CSR", SPARSE, "ends = (edges.target, edges.source) if forward else (edges.source, edges.target)",
          "ends = (edges.source, edges.target) if forward else (edges.target, edges.source)", "engine"),
    fault("CSR values not refreshed", SPARSE,
          "            ws.refresh.append(lambda: torch.index_select(packed, 0, index, out=values))\n            ws.refresh[-1]()",
          "            torch.index_select(packed, 0, index, out=values)", "engine"),
    fault("precision forgotten", NODES, "        if precision is not None:\n            e.mul_(precision)\n", "", "engine"),
    fault("priors are zero", NODES, "        rows.index_copy_(0, which, fixed)\n", "", "engine"),
    fault("module weights learn nothing", OTHERS, "parameter.grad.sub_(grads[name], alpha=scale)", "pass", "engine"),
    fault("bias gradients summed over the batch", "learning/result.py", "gradient[own].sub_(sums, alpha=scale)",
          "gradient[own].sub_(sums)", "core"),
    fault("masks hold only at the start", RUN, "            e.mul_(free)\n", "            pass\n", "engine"),
    fault("a result's buffers used again", "inference/result.py", "        self._ws.escaped = True\n", "", "core"),
    fault("stale views of parameters", "inference/planner.py", "if not ws.stale:", "if True:", "core"),
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
    fault("the target is not released", "initializers/equilibrium.py", "if v not in self.release}", "}", "initializers"),
    fault("per-node sweeps anything", "initializers/per_node.py", "        if sweep.complete:", "        if True:",
          "initializers"),
    fault("noise that repeats", "initializers/basic.py", "self._observed += 1", "pass", "initializers"),
    fault("nudges forgotten", RUN, "e.add_(h - target, alpha=strength)", "pass", "learning"),
    fault("incremental optimizers start anew", "learning/rules.py", "        settings.first_step = t\n",
          "        settings = Settings()\n", "learning"),
    fault("half the curvature", "rates.py", "(above[v] - below[v]) / (2 * shift)", "(above[v] - below[v]) / shift", "learning"),
]  # fmt: skip


@pytest.mark.mutants
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_the_suite_notices(mutant, tmp_path):
    survived, printed = survives(mutant, tmp_path)
    assert not survived, f"{mutant.name}: no test noticed\n{printed}"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_the_fault_can_still_be_planted(mutant, tmp_path):
    assert_can_be_planted(mutant, tmp_path)
