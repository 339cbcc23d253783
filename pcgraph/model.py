"""PCNetwork: a network that can be planned, run and asked."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import networkx as nx
import torch
from torch import Tensor

from pcgraph.clamps import Clamps, Masked
from pcgraph.errors import ClampError, ConfigError, InvalidInitializer, OutOfMemory
from pcgraph.inference import Planner, Settings, prepare, run
from pcgraph.initializers import Context, Forward, Initializer, States
from pcgraph.learning import InferenceResult
from pcgraph.network import Network
from pcgraph.optimizers import StateOptimizer
from pcgraph.plan import Plan, pins_of
from pcgraph.pyg import to_data

if TYPE_CHECKING:
    from torch_geometric.data import Data

__all__ = ["PCNetwork"]

Node = Hashable


class PCNetwork(Network):
    """A predictive coding network on an arbitrary graph.

    Parameters
    ----------
    graph : nx.DiGraph or nx.MultiDiGraph
        Nodes are groups of neurons, with the attributes ``shape`` (required), ``activation``, ``bias``, ``energy``,
        ``precision``, ``prior``; edges are predictions, with ``transform``, ``activation``, ``trainable``, ``share``.
        It is copied and never changed.
    seed : int
        For the weights. torch's global generator is neither read nor moved.
    dtype : torch.dtype, optional
        Of parameters and states; torch's default dtype if None.
    device : torch.device or str, optional

    Raises
    ------
    GraphError
        The declaration is wrong; the message names the node or edge.

    Examples
    --------
    >>> import networkx as nx
    >>> graph = nx.DiGraph()
    >>> graph.add_node("x", shape=784)
    >>> graph.add_node("h", shape=64, activation="gelu")
    >>> graph.add_node("y", shape=10)
    >>> nx.add_path(graph, ["x", "h", "y"])
    >>> net = PCNetwork(graph, seed=0)
    >>> net.predict({"x": torch.zeros(5, 784)}, "y").shape
    torch.Size([5, 10])
    """

    def __init__(
        self,
        graph: nx.DiGraph,
        *,
        seed: int = 0,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(graph, seed=seed, dtype=dtype, device=device)
        self._planner = Planner(self)
        #: In a list, since a module assigned to a module becomes a part of it.
        self._forward = [Forward()]

    def plan(
        self, clamped: Iterable[Node], *, init: Initializer, steps: int, optimizer: StateOptimizer | None = None,
        masked: Iterable[Node] = (), kernels: Mapping[str, str] | None = None,
    ) -> Plan:  # fmt: skip
        """The plan that :meth:`infer` would run.

        Parameters
        ----------
        clamped, masked : iterable of nodes
            Known wholly, and in part.
        init : Initializer
        steps : int
        optimizer : StateOptimizer, optional
            Its promises decide what may be skipped; without one those of plain SGD are taken.
        kernels : mapping, optional
            Bucket name -> kernel, to overrule the written rule.

        Raises
        ------
        InvalidInitializer, ClampError, ConfigError
        """
        for names in (clamped, masked):
            if isinstance(names, str):
                raise ClampError(f"clamped and masked are collections of nodes, as in {{{names!r}}} (found {names!r})")
        numbers = [frozenset(self.structure.require_node(n, ClampError) for n in group) for group in (clamped, masked)]
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
            raise ConfigError(f"steps must be an integer that is not negative (found {steps!r})", key="steps")
        return self._planner.plan(numbers[0], numbers[1], init, steps, optimizer, pins=pins_of(kernels))

    def infer(
        self, clamps: Mapping[Node, Tensor | Masked], *, init: Initializer, steps: int,
        optimizer: StateOptimizer | None = None, labels: Tensor | None = None,
        trace: bool | Literal["nodes"] = False, check: bool = True, kernels: Mapping[str, str] | None = None,
        capture: bool | Literal["auto"] = False,
    ) -> InferenceResult:  # fmt: skip
        """Run inference: initialise the free states, then move them down the energy.

        Parameters
        ----------
        clamps : mapping
            Node -> Tensor (batch, *shape), or :class:`pcgraph.Masked`.
        init : Initializer
        steps : int
            T, the number of inference steps.
        optimizer : StateOptimizer, optional
            How states move; needed if `steps` is above 0.
        labels : Tensor, optional, shape (batch,)
            Classes, for :class:`pcgraph.Average` where no clamp is one-hot.
        trace : bool or "nodes"
            Keep the energy of every step; with "nodes", that of each node as well.
        check : bool
            Look for clamps and energies that are not finite. On a GPU that waits for the device.
        kernels : mapping, optional
            Bucket name -> kernel, to overrule the written rule.
        capture : bool or "auto"
            On a GPU, record the run as one CUDA graph and replay it for every batch of this shape: the host then
            starts it with one call. "auto" does so where all that varies comes in through tensors; True refuses
            where it does not. The states of the result are then copies. Not measured yet: no GPU was at hand.

        Raises
        ------
        ClampError, ConfigError, InvalidInitializer
            Before anything runs.
        Diverged
            The energy is not finite at the end.
        """
        if trace not in (False, True, "nodes"):
            raise ConfigError(f"trace is True, False or 'nodes' (found {trace!r})", key="trace")
        return self.run(
            clamps, init=init, steps=steps, optimizer=optimizer, labels=labels, kernels=kernels,
            settings=Settings(trace=trace, check=check, capture=capture),
        )  # fmt: skip

    def run(
        self, clamps: Mapping[Node, Tensor | Masked], *, init: Initializer, steps: int,
        optimizer: StateOptimizer | None, labels: Tensor | None, settings: Settings,
        kernels: Mapping[str, str] | None = None,
    ) -> InferenceResult:  # fmt: skip
        """:meth:`infer` with :class:`~pcgraph.inference.Settings`, for learning rules with phases of their own."""
        plan, checked, context = prepare(
            self, self._planner, clamps, init, steps, optimizer, labels, finite=settings.check,
            pins=pins_of(kernels), nudged=frozenset(settings.nudges), all_move=settings.all_move,
        )  # fmt: skip
        try:
            with torch.inference_mode(False):
                ws = self._planner.acquire(plan, checked.batch)
                kept = run(ws, checked, optimizer, context, settings)
        except torch.OutOfMemoryError as error:
            estimate = plan.memory(checked.batch)
            raise OutOfMemory(
                f"the device ran out of memory; this plan needs about {estimate / 2**30:.3g} GiB beside the parameters "
                f"at batch {checked.batch}: take a smaller batch, or smaller groups ({error})",
                estimate=estimate,
            ) from error
        return InferenceResult(ws, checked, init, labels, kept, self._planner.release)

    def forward(self, *arguments: Any, **keywords: Any) -> Any:
        """Not defined: a predictive coding network is run by :meth:`infer` and asked by :meth:`predict`."""
        raise TypeError("a PCNetwork is not called: use net.infer(clamps, ...) to run it and net.predict(clamps, node)")

    def carry_on(self, states: Mapping[Node, Tensor]) -> States:
        """An initializer that starts from `states`. Each call takes the last one away, so that one plan serves all."""
        self._planner.carried.states = states
        return self._planner.carried

    def predict(
        self, clamps: Mapping[Node, Tensor | Masked], node: Node, *, init: Initializer | None = None,
        steps: int | None = None, optimizer: StateOptimizer | None = None,
    ) -> Tensor:  # fmt: skip
        """What the network predicts for one node, shape (batch, *shape).

        Where Proposition 3.2 holds for these clamps, by a sweep over the node's ancestors. Elsewhere there is no
        sweep, and `init` and `steps` are required: the answer is then the node's state after that many steps.

        Raises
        ------
        InvalidInitializer
            There is no sweep, and neither `init` nor `steps` was given.
        """
        target = self.structure.require_node(node, ClampError)
        if isinstance(clamps, Mapping) and isinstance(clamps.get(node), Tensor):
            raise ClampError(
                f"{node!r} is both clamped and asked for, so that the answer would be its clamp: leave it out of the "
                "clamps",
                node=node,
            )
        if init is None and steps is None:
            checked = Clamps.check(self, clamps)
            names = self.structure.nodes
            context = Context(checked.batch, {names[i]: v for i, v in checked.values.items()}, None, self, None)
            ancestors = self._ancestors(target, checked.clamped)
            self._require_sweep(node, checked)
            plan = self._planner.plan(
                checked.clamped, frozenset(checked.masked), self._forward[0], 0, None, context, only=ancestors
            )
            with torch.inference_mode(False):
                ws = self._planner.acquire(plan, checked.batch)
                run(ws, checked, None, context, Settings(check=False))
            group, position = self.structure.place(target)
            answer = ws.h[group][position].clone().view(-1, *self.structure.groups[group].shape)
            self._planner.release(ws)
            return answer
        if init is None or steps is None:
            missing = "init" if init is None else "steps"
            raise ConfigError("predict needs both init= and steps=, or neither", key=missing)
        return self.infer(clamps, init=init, steps=steps, optimizer=optimizer).states[node]

    def to_data(self, level: Literal["neurons", "groups"] = "neurons") -> Data:
        """The graph as torch_geometric's ``Data``; see :func:`pcgraph.pyg.to_data`."""
        return to_data(self, level=level)

    def _require_sweep(self, node: Node, clamps: Clamps) -> None:
        """Refuse to predict by a sweep that does not exist, and say how to predict there."""
        verdict = self._planner.report(clamps.clamped, frozenset(clamps.masked)).verdicts["forward"]
        if not verdict.valid:
            raise InvalidInitializer(
                f"no sweep gives {node!r}, which {verdict.reason}: predict by inference, as in net.predict(clamps, "
                f"{node!r}, init=pcgraph.Forward(fallback=pcgraph.Zero()), steps=50, optimizer=pcgraph.SGD(lr=0.1))",
                verdict=verdict,
            )

    def _ancestors(self, node: int, clamped: frozenset[int]) -> frozenset[int]:
        found, stack = {node}, [node]
        graph, names, number = self.graph, self.structure.nodes, self.structure.number
        while stack:
            i = stack.pop()
            if i in clamped:
                continue
            for parent in graph.pred[names[i]]:
                j = number[parent]
                if j not in found:
                    found.add(j)
                    stack.append(j)
        return frozenset(found - clamped)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_planner": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._planner = Planner(self)
