"""A run or a file is lost, or a number is wrong without a word: faults of checkpoints, the command and what is asked.

Run with ``pytest -m mutants tests/mutants -k runs``.
"""

from tests.mutants.planted import Mutant

FILES = {
    "lock": "tests/checkpoints/test_lock.py",
    "whole": "tests/checkpoints/test_all_or_nothing.py",
    "command": "tests/cli/test_bad_values.py",
    "twice": "tests/cli/test_cli.py",
    "predict": "tests/inference/test_predict.py",
    "results": "tests/inference/test_results.py",
    "options": "tests/training/test_options.py",
    "records": "tests/training/test_fit.py",
    "halves": "tests/backends/test_halves.py",
    "learning": "tests/learning/test_learning.py",
    "promises": "tests/initializers/test_kept_promises.py",
    "refinement": "tests/plan/test_refinement.py",
}


def fault(name, file, old, new, *tests):
    return Mutant(name, f"{file}.py", old, new, tuple(FILES[t] for t in tests))


LOCK, TRAIN, PLANNER, RESULT = "checkpoints/lock", "cli/train", "inference/planner", "inference/result"
REFINEMENT = "plan/refinement"

MUTANTS = [
    fault("a move saves less than it does", REFINEMENT, "                gain += self.size[u]\n", "                gain += 0\n", "refinement"),
    fault("the last cut is kept and not the best", REFINEMENT, "for i, origin, _ in reversed(done[kept:]):", "for i, origin, _ in reversed(done[len(done):]):", "refinement"),
    fault("a cut may be as uneven as it likes", REFINEMENT, "if saved > best and max(self.load) <= self.most:", "if saved > best:", "refinement"),
    fault("a rank may lose its last node", REFINEMENT, " and self.nodes[self.part[i]] > 1", "", "refinement"),
    fault("children that are many count as one move each", REFINEMENT, "            self.has[u][to] += 1\n", "", "refinement"),
    fault("a lock that a backup lets go", LOCK, "fcntl.flock(file", "fcntl.lockf(file", "lock"),
    fault("no lock", LOCK, "                _lock(file)\n", "                pass\n", "lock"),
    fault("another's lock is removed", LOCK, "                if self._is_current(hold.file):\n", "                if True:\n", "lock"),
    fault("a fork keeps the lock", LOCK, 'if hasattr(os, "register_at_fork"):', "if False:", "lock"),
    fault("what was pruned is not read again", "checkpoints/reading", "if not found[-1].exists():", "if False:", "lock"),
    fault("a folder moves with the process", "training/fit_arguments", "require_path(value, key).absolute()", "require_path(value, key)", "lock"),
    fault("settings before the lock", TRAIN, "with nullcontext() if folder is None else FolderLock(folder):", "with nullcontext():", "twice"),
    fault("settings of a second run", TRAIN, "            _require_no_run(chosen.out)\n        history", "            pass\n        history", "twice"),
    fault("rows in another order", "checkpoints/checkpoint", "if difference or wrong is not None:", "if difference:", "whole"),
    fault("nothing is put back", "checkpoints/transaction", "                put_back()\n\n    def load", "                pass\n\n    def load", "whole"),
    fault("a batch larger than memory", "experiments/experiment", "        require_bytes(needed,", "        (lambda *a: None)(needed,", "command"),
    fault("data are not looked at", "data/sources", "            raw(source, split)\n        elif", "            pass\n        elif", "command"),
    fault("a demo without a place", "cli/demo", "    require_out(out)\n", "", "command"),
    fault("all nodes are to be swept", PLANNER, "report.sweep(among=[names[i] for i in ancestors])", "report.sweep()", "predict"),
    fault("a lone node is predicted", PLANNER, " or not self.net.structure.has_energy[target]:", ":", "predict"),
    fault("the caller's labels", RESULT, "None if labels is None else labels.clone()", "labels", "results"),
    fault("half a gradient stays", RESULT, "                    parameter.grad = gradient\n", "                    pass\n", "results"),
    fault("a scheduler of another", "training/fit_arguments", 'if getattr(scheduler, "optimizer", optimizer) is not optimizer:', "if False:", "options"),
    fault("steps count epochs from zero", "training/loop", "                state.epoch + 1,\n", "                state.epoch,\n", "records"),
    fault("energies in half precision", "backends/running", "return torch.float32 if own in (torch.float16, torch.bfloat16) else own", "return own", "halves"),
    fault("no look ahead", "rates", "    while ahead and _rises", "    while False and _rises", "learning"),
    fault("states of the batch before", "backends/torch/program", "                item.out.fill_(math.nan)", "                pass", "promises"),
    fault("what is returned is dropped", "optimizers", "    if found is not None and not (isinstance", "    if False and not (isinstance", "promises"),
]  # fmt: skip
