"""A classifier and a regressor have this in common: their parameters, and how a network is made and trained."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import networkx as nx
import numpy as np
import torch
from numpy.typing import NDArray

from pcgraph import graphs
from pcgraph.arguments import (
    is_integer,
    require_choice,
    require_count,
    require_flag,
    require_number,
    require_taking,
    shown,
)
from pcgraph.errors import ConfigError, PCGraphError
from pcgraph.initializers import Forward, Initializer
from pcgraph.learning import Rule
from pcgraph.model import PCNetwork
from pcgraph.optimizers import SGD, StateOptimizer
from pcgraph.solvers import Solver
from pcgraph.topology import check
from pcgraph.training import History, fit

try:
    from sklearn.base import BaseEstimator
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise PCGraphError("estimators need scikit-learn 1.6 or newer (not found): pip install pcgraph[sklearn]") from error

__all__ = ["BaseEstimator", "PCEstimator", "check_is_fitted", "validate_data"]

DTYPES = {"float32": torch.float32, "float64": torch.float64}
Optimizer = Callable[[Iterable[torch.nn.Parameter]], torch.optim.Optimizer]


class PCEstimator(BaseEstimator):  # type: ignore[misc]
    """Both estimators extend this class: parameters, and training on arrays."""

    def __init__(
        self, graph: nx.DiGraph | None = None, *, hidden: tuple[int, ...] = (64,), activation: str = "relu",
        input: Any = "x", target: Any = "y", init: Initializer | None = None, steps: int = 5, state_lr: float = 0.1,
        state_optimizer: StateOptimizer | Solver | None = None, rule: Rule | None = None, lr: float = 1e-2,
        optimizer: Optimizer | None = None, epochs: int = 50, batch_size: int = 50, clip: float | None = None,
        dtype: str = "float32", device: str = "cpu", random_state: Any = None, progress: bool = False,
    ) -> None:  # fmt: skip
        self.graph = graph
        self.hidden = hidden
        self.activation = activation
        self.input = input
        self.target = target
        self.init = init
        self.steps = steps
        self.state_lr = state_lr
        self.state_optimizer = state_optimizer
        self.rule = rule
        self.lr = lr
        self.optimizer = optimizer
        self.epochs = epochs
        self.batch_size = batch_size
        self.clip = clip
        self.dtype = dtype
        self.device = device
        self.random_state = random_state
        self.progress = progress

    #: Of ``y`` in the network that is made where no graph is given.
    output_energy: str | None = None

    def _train(self, x: NDArray[Any], y: NDArray[Any]) -> None:
        """Make the network and train it on rows of numbers; nothing is kept if that fails."""
        seed = self._seed()
        batch = require_count(self.batch_size, "batch_size", least=1)
        require_number(self.lr, "lr", above=0)
        require_number(self.state_lr, "state_lr", above=0)
        require_flag(self.progress, "progress")
        net = self._network(x.shape[1], y.shape[1], seed)
        inputs, targets = self._tensor(net, self.input, x), self._tensor(net, self.target, y)
        init = Forward() if self.init is None else copy.deepcopy(self.init)
        infers = getattr(self.rule, "infers", True)
        moves = SGD(lr=self.state_lr) if self.state_optimizer is None else copy.deepcopy(self.state_optimizer)
        inference: dict[str, Any] = {"init": init, "steps": self.steps, "state_optimizer": moves} if infers else {}
        own = [*net.parameters(), *(init.parameters() if infers and isinstance(init, Initializer) else ())]
        history = fit(
            net, _Rows(inputs, targets, batch, seed), clamp=(self.input, self.target), rule=self.rule,
            optimizer=self._optimizer(own), epochs=self.epochs, clip=self.clip, progress=self.progress, **inference,
        )  # fmt: skip
        self.net_, self.history_, self.n_iter_ = net, history, len(history.epochs)

    net_: PCNetwork
    history_: History

    def _seed(self) -> int:
        """Draw the seed of everything from `random_state`, as scikit-learn understands it."""
        state = self.random_state
        try:
            if isinstance(state, bool | np.bool_):
                raise ValueError("a flag is no seed")
            return int(check_random_state(int(state) if is_integer(state) else state).randint(2**31 - 1))
        except ValueError as error:
            raise ConfigError(
                f"random_state must be None, a RandomState of NumPy or a seed from 0 to 2**32 - 1 "
                f"(found {shown(state)})",
                key="random_state",
            ) from error

    def _names(self) -> dict[str, Any]:
        """Return the nodes that are clamped, by the key that names them."""
        names = {"input": self.input, "target": self.target}
        for key, name in names.items():
            if name is None or not isinstance(name, Hashable):
                raise ConfigError(f"{key} must be the name of a node, as in {key}='x' (found {shown(name)})", key=key)
        if self.input == self.target:
            raise ConfigError(f"input and target must be two nodes (found {shown(self.input)} for both)", key="target")
        return names

    def _network(self, inputs: int, outputs: int, seed: int) -> PCNetwork:
        """Make the network: a chain, or that of the graph, which has to fit the data and to have a sweep."""
        names = self._names()
        dtype = DTYPES[require_choice(self.dtype, "dtype", DTYPES)]
        if self.graph is None:
            sizes = self.hidden if isinstance(self.hidden, list | tuple) else (self.hidden,)
            graph = graphs.chain([inputs, *sizes, outputs], activation=self.activation)
            for key, name in names.items():
                if name in graph and name not in ("x", "y"):
                    raise ConfigError(f"{key}={name!r} is the name of a hidden node: choose another", key=key)
            graph = nx.relabel_nodes(graph, {"x": self.input, "y": self.target})
            if self.output_energy is not None:
                graph.nodes[self.target]["energy"] = self.output_energy
        else:
            graph = self.graph
        net = PCNetwork(graph, seed=seed, device=self.device, dtype=dtype)
        for (key, node), columns in zip(names.items(), (inputs, outputs), strict=True):
            net.structure.require_node(node)
            if math.prod(net.structure.shape(node)) != columns:
                raise ConfigError(
                    f"{key}={node!r} has {math.prod(net.structure.shape(node))} neurons in the graph, and the data has "
                    f"{columns} columns for it",
                    key=key,
                )
        check(net, clamped={self.input}, repair=False).verdict(Forward()).require()
        return net

    def _optimizer(self, own: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        if self.optimizer is None:
            return torch.optim.Adam(own, lr=self.lr)
        made = self.optimizer
        if not callable(made) or (isinstance(made, type) and not issubclass(made, torch.optim.Optimizer)):
            raise ConfigError(
                "optimizer= is called with the parameters and returns an optimizer of torch.optim, as in "
                f"functools.partial(torch.optim.SGD, lr=0.1) (found {shown(self.optimizer)})",
                key="optimizer",
            )
        require_taking(made, "optimizer", "the parameters alone", 1)
        make: Optimizer = made
        return make(own)

    @staticmethod
    def _tensor(net: PCNetwork, node: Any, rows: NDArray[Any]) -> torch.Tensor:
        """Bring rows to the shape of a node."""
        made = torch.from_numpy(np.array(rows, dtype=np.float64))
        return made.to(net.device, net.dtype).reshape(len(rows), *net.structure.shape(node))

    def _outputs(self, X: Any) -> NDArray[Any]:
        """Predict the target by a sweep, (samples, neurons)."""
        check_is_fitted(self, "net_")
        x = validate_data(self, X, reset=False, dtype=np.float64)
        given = {self.input: self._tensor(self.net_, self.input, x)}
        found = self.net_.predict(given, self.target).flatten(1)
        return found.cpu().double().numpy()


class _Rows:
    """Goes through rows in batches, in another order each epoch."""

    def __init__(self, inputs: torch.Tensor, targets: torch.Tensor, batch: int, seed: int) -> None:
        self.inputs, self.targets, self.batch = inputs, targets, batch
        self._generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return math.ceil(len(self.inputs) / self.batch)

    def __iter__(self) -> Any:
        order = torch.randperm(len(self.inputs), generator=self._generator, device="cpu").to(self.inputs.device)
        for rows in torch.split(order, self.batch):
            yield self.inputs[rows], self.targets[rows]
