"""What ``fit`` trains over ranks by rules, initializers and state optimizers other than the usual ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import distributed

import pcgraph
from pcgraph import SGD, PCNetwork
from tests.across.training import GRAPHS, NEAR, STEPS, Run, groups, kept, stopping
from tests.builders import double


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(4)


def memory(net: PCNetwork) -> pcgraph.Memory:
    return pcgraph.Memory(net, observed=["x", "y"], patterns=3, heads=2, embed_dim=4, beta=2.0, ridge=1.0)


#: What is trained, and how: functions make what belongs to one network. All on a chain.
CASES: dict[str, dict[str, Any]] = {
    "backprop": {"rule": pcgraph.learning.Backprop()},
    "z-il": {"rule": pcgraph.learning.ZIL()},
    "fixed predictions": {"rule": pcgraph.learning.FixedPredictions(), "accumulate": 2},
    "forward update": {"rule": pcgraph.learning.ForwardUpdate()},
    "incremental": {"rule": pcgraph.learning.Incremental()},
    "nudged": {"rule": pcgraph.learning.Nudged(0.1)},
    "memory": {"init": memory, "clip": 0.1},
    "amortized": {"init": lambda net: pcgraph.Amortized(net, "y"), "duals": pcgraph.Duals(0.2, stop=0.8)},
    "equilibrium": {"init": lambda net: pcgraph.Equilibrium(["y"], steps=5)},
    "lbfgs": {"state_optimizer": pcgraph.LBFGS},
    "langevin": {"state_optimizer": lambda: pcgraph.Langevin(0.1, 0.5, generator())},
    "following": {"state_optimizer": lambda: SGD(pcgraph.Following(0.3, samples=4, iterations=4, every=2))},
}


class Fitted(Run):
    """A run of one of these cases."""

    def __init__(self, case: str, parts: int = 0, group: Any = None) -> None:
        how = dict(CASES[case])
        make, owners = GRAPHS["chain"]
        over = {"partition": owners[parts], "group": group} if parts else {}
        self.net = PCNetwork(make(), seed=0, dtype=torch.float64, **over)
        self.init = how.pop("init", lambda net: pcgraph.Forward())(self.net)
        self.optimizer = torch.optim.Adam([*self.net.parameters(), *self.init.parameters()], lr=0.01)
        self.loader = [(double(n, 5, seed=i), (torch.arange(n) + i) % 3) for i, n in enumerate((8, 8, 5))]
        self.moves = how.pop("state_optimizer", lambda: SGD(lr=0.1))()
        self.how = how

    def fit(self, epochs: int = 2, **more: Any) -> pcgraph.training.History:
        how = {"init": self.init, "steps": STEPS, "state_optimizer": self.moves, "curvature_every": 0}
        if not getattr(self.how.get("rule"), "infers", True):
            how = {}
        return pcgraph.fit(
            self.net, self.loader, optimizer=self.optimizer, epochs=epochs, measure_every=1, progress=False,
            **{**how, **self.how, **more},
        )  # fmt: skip

    def tensors(self) -> dict[str, tuple[Any, torch.Tensor]]:
        """Leave to :class:`Run` what the optimizer keeps of the network; of an initializer every rank keeps all."""
        own = {id(p) for p in self.init.parameters()}
        kept = [(p, self.optimizer.state.pop(p)) for p in list(self.optimizer.state) if id(p) in own]
        found = super().tensors()
        for i, (parameter, state) in enumerate(kept):
            self.optimizer.state[parameter] = state
            found |= {f"{key} of init {i}": (None, value.clone()) for key, value in state.items()}
        return found


def fitted(case: str, parts: int, folder: Path | None = None, stop: int | None = None) -> Any:
    """Train over the first `parts` ranks; none: in this process. With a folder, save in it, and go on from there."""
    if not parts:
        run = Fitted(case)
        return run.told(run.fit(**kept(folder), **stopping(stop), group=False))
    groups(2)
    if distributed.get_rank() >= parts:
        return None
    run = Fitted(case, parts, groups(parts))
    return run.told(run.fit(**kept(folder), **stopping(stop)))


def compare(found: dict[str, Any], one: dict[str, Any]) -> None:
    """Hold what a rank has against one process; what an initializer learns it has all of."""
    for ours, theirs in zip(found["steps"], one["steps"], strict=True):
        torch.testing.assert_close(ours[1], theirs[1], rtol=1e-12, atol=1e-14)
    for name, (rows, tensor) in found["tensors"].items():
        expected = one["tensors"][name][1]
        expected = expected if rows is None else expected[rows]
        torch.testing.assert_close(tensor, expected, **NEAR, msg=lambda m, name=name: f"{name}: {m}")
