"""The fused kernels can fail: faults planted in their tables, launches and what they compute, each to be noticed.

Run with ``pytest -m mutants tests/mutants -k fused``. The kernels run by Triton's interpreter.
"""

from tests.mutants.planted import Mutant

FILES = {
    "triton": "tests/backends/test_triton.py", "ranks": "tests/training/test_ranks.py",
    "adamw": "tests/backends/test_fused_adamw.py", "sharing": "tests/backends/test_sharing.py",
}  # fmt: skip


def fault(name, file, old, new, test="triton"):
    return Mutant(name, file, old, new, (FILES[test],))


TRITON = "backends/triton"
KERNELS, FUNCTIONS, DESCENT = f"{TRITON}/kernels.py", f"{TRITON}/functions.py", f"{TRITON}/descent.py"
LAUNCHES, PROGRAM, AVERAGING = f"{TRITON}/launches.py", f"{TRITON}/program.py", "training/ranks.py"
GRADIENTS, TABLES, MEANS, ADAMW = (f"{TRITON}/{name}.py" for name in ("gradients", "tables", "means", "adamw"))
OPTIMIZER, LEARNING, SCALARS = (f"{TRITON}/{name}.py" for name in ("optimizer", "learning", "scalars"))

MUTANTS = [
    fault("Nesterov looks not ahead", KERNELS, "way = gradient + momentum * kept", "way = kept"),
    fault("Adam's second moment is not divided", KERNELS, "tl.sqrt(size) / tl.load(numbers + 4)", "tl.sqrt(size)"),
    fault("what is known of a mask moves", KERNELS, "gradient *= tl.load(P + spot + place, mask=known, other=1.0)", "gradient *= 1.0"),
    fault("a dual is added and not kept", KERNELS, "tl.store(P + dual + place, shift, mask=shifts)", "pass"),
    fault("a precision is not sent", KERNELS, "            sent *= precision\n", ""),
    fault("scalars forget their duals", SCALARS, "        error += shift\n    e, s =", "    e, s ="),
    fault("Huber knows no bound", FUNCTIONS, "own = tl.minimum(tl.maximum(own, -most), most)", "own = own * 1.0"),
    fault("the cross entropy takes targets for shares", FUNCTIONS, "sent = h - tl.sum(h, SIDE, keep_dims=True) * tl.exp(logs)", "sent = h - tl.exp(logs)"),
    fault("KL pulls without its mean", FUNCTIONS, "own = shares * (apart - tl.sum(shares * apart, SIDE, keep_dims=True))", "own = shares * apart"),
    fault("Adam begins anew in every run", DESCENT, "now = ADAM, optimizer.betas, motion.first_step + t + 1", "now = ADAM, optimizer.betas, t + 1"),
    fault("masks are those of the first batch", DESCENT, "            self._free[i].view(mask.shape).copy_(mask)\n", "            if not self._free[i].any():\n                self._free[i].view(mask.shape).copy_(mask)\n"),
    fault("rates lie in the order of the moves", DESCENT, "[whole[ws.index(place)] for place in places]", "[whole[: len(place)] for place in places]"),
    fault("the first step's precisions count in all", LAUNCHES, "self.precisions[min(t, len(self.precisions) - 1)]", "self.precisions[0]"),
    fault("gradients overwrite what is there", GRADIENTS, "                parameter.grad.add_(part)\n", "                parameter.grad.copy_(part)\n"),
    fault("gradients of another tensor are taken for views", GRADIENTS, "if grad is None or grad.data_ptr() != base.data_ptr() + start * item or not grad.is_contiguous():", "if grad is None:"),
    fault("scaled weights learn as if unscaled", GRADIENTS, "_Part(weight, bucket.scale, self._of_weights", "_Part(weight, 1.0, self._of_weights"),
    fault("scaled entries learn as if unscaled", GRADIENTS, "_of_scalars(weight, bucket.scale, place,", "_of_scalars(weight, 1.0, place,"),
    fault("neurons are copied as they lie", SCALARS, "tl.store(T + node + rn[:, None].to(tl.int64) * batch + rb[None, :], tl.trans(x), mask=mn[:, None] & mb[None, :])", "tl.store(T + node + rb[:, None].to(tl.int64) * size + rn[None, :], x, mask=mb[:, None] & mn[None, :])"),
    fault("the first node's neurons are copied", SCALARS, "node = tl.program_id(1).to(tl.int64) * size * batch\n    rn, rb", "node = 0\n    rn, rb"),
    fault("entries read the copy of the first node", TABLES, "begin + s.position[nodes[here]] * (buffer.shape[2] * self.batch)", "begin + 0 * s.position[nodes[here]]"),
    fault("signals are not copied before weights learn", GRADIENTS, "        for turn in self.turns:\n            turn()\n", ""),
    fault("nodes without edges lose what is added beside", PROGRAM, "            kind[plain] = -2\n", "            kind[plain] = -2\n            nodes, kind = nodes[~plain], kind[~plain]\n"),
    fault("a class that a batch lacks loses its mean", MEANS, "mean = tl.where(count[:, None] > 0, sums / tl.maximum(count, 1.0)[:, None], kept)", "mean = sums / tl.maximum(count, 1.0)[:, None]"),
    fault("means are sums", MEANS, "sums / tl.maximum(count, 1.0)[:, None]", "sums"),
    fault("all nodes have the means of the first", MEANS, "states = H + node * batch * size + rn[None, :]", "states = H + rn[None, :]"),
    fault("weights do not decay", ADAMW, "    x -= rate * decay * x\n", "", "adamw"),
    fault("the first moment is not divided", ADAMW, "x -= rate / of_mean *", "x -= rate *", "adamw"),
    fault("steps are not counted", OPTIMIZER, "            torch._foreach_add_(steps, 1)\n", "", "adamw"),
    fault("a rate in a tensor is that of the first step", ADAMW, "RATE=isinstance(group[\"lr\"], Tensor)", "RATE=False", "adamw"),
    fault("each piece of a parameter is the first", ADAMW, "p = tl.program_id(0).to(tl.int64) * BLOCK", "p = tl.program_id(0).to(tl.int64) * 0", "adamw"),
    fault("all rows lie evenly where some do", TABLES, "np.where(whole.all(0), EVENLY, 0)", "np.where(whole.any(0), EVENLY, 0)"),
    fault("tiles that learn are as high as they are wide", GRADIENTS, "within // across[entry] * tile.samples", "within // across[entry] * tile.neurons"),
    fault("what stands upright is multiplied by half", KERNELS, "            b += 0.0\n", "            b *= 0.5\n"),
    fault("no derivative of the edge's activation", KERNELS, "            acc += part * rise\n", "            acc += part\n"),
    fault("clamps that are large are left", "backends/torch/program.py", "            row.copy_(value)\n", "            pass\n", "sharing"),
    fault("sums over neurons are taken over samples", KERNELS, "0 if UPRIGHT else 1, ENERGIES", "1 if UPRIGHT else 0, ENERGIES"),
    fault("many parameters are moved one by one", OPTIMIZER, "if len(sizes) <= self.FEW", "if len(sizes) >= 0", "adamw"),
    fault("launches go by places alone", OPTIMIZER, "key = (first.device, sizes,", "key = (first.device,", "adamw"),
    fault("rows that are not of ones weigh more", MEANS, "        y = tl.where(y > 0, 1.0, 0.0).to(y.dtype)\n", ""),
    fault("gradients that are scaled move weights", OPTIMIZER, "if getattr(self, \"grad_scale\", None) is not None or", "if", "adamw"),
    fault("neurons share the bias of their first", SCALARS, "tl.load(P + (bias + within), mask", "tl.load(P + (bias + within * 0), mask"),
    fault("pieces of a node begin at its first neuron", LAUNCHES, "(np.cumsum(size) - size)[node] + first], 1)", "(np.cumsum(size) - size)[node]], 1)"),
    fault("neurons of groups lie evenly wherever they are", LAUNCHES, "& EVENLY != 0).all())", "& EVENLY != 0).any())"),
    fault("the first entries of a neuron are its next", SCALARS, "        there, far, weight = there_, far_, weight_\n", ""),
    fault("rows count as neighbours where their ends say so", "backends/torch/calls.py", " and (np.diff(numbers) == 1).all()", ""),
    fault("all single weights have the factor of the first", LEARNING, "tl.load(factors + block", "tl.load(factors + block * 0"),
    fault("no weight is said to be shared", GRADIENTS, "once = bool((np.diff(ends) <= 1).all())", "once = True"),
    fault("any batch lies evenly", TABLES, "return 4 if self.batch % 4 == 0 and", "return 4 if"),
    fault("rates go round among neurons", PROGRAM, "place[some][self.places.neurons(some)[0]]", "np.resize(place[some], self.places.size[some].sum())"),
    fault("a weight that edges share learns from the first", LEARNING, "for i in range(0, tl.max(high - low), BE):\n            at = low[None, :] + i + re[:, None]\n            there = at < high[None, :]", "for i in range(0, 1, BE):\n            at = low[None, :] + i + re[:, None]\n            there = at < low[None, :] + 1"),
    fault("shared biases learn twice", PROGRAM, "few = np.isin(self._nodes(g, rows), shared)", "few = np.isin(self._nodes(g, rows), [])"),
    fault("nudged states move by the kernels", PROGRAM, "descent = None if motion.nudges else self.descents.of(t, motion)", "descent = self.descents.of(t, motion)"),
    fault("a kept sum is not written", PROGRAM, "later[nodes] |= ~fresh[nodes] | (not self._own(errors))", "later[nodes] |= not self._own(errors)"),
    fault("with duals no step reads an old sum", PROGRAM, "np.full(self.count, len(self.plan.duals) > 0)", "np.full(self.count, False)"),
    fault("every step keeps what one reads", PROGRAM, "for stage, mask in self.kept if stage is calls", "for stage, mask in self.kept"),
    fault("gradients count for the whole batch", AVERAGING, "gradient.mul_(self._part.weight) if", "gradient.mul_(1.0) if", "ranks"),
    fault("what travelled together is left there", AVERAGING, "gradient.copy_(sums.view_as(gradient))", "sums.view_as(gradient)", "ranks"),
]  # fmt: skip
"""Each is a line that a rewrite could easily get wrong."""
