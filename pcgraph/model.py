"""A PCNetwork is a network that can be planned, run and asked."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import networkx as nx
import torch
from torch import Tensor

from pcgraph.arguments import require_count, require_flag, require_number, require_seed, shown
from pcgraph.backends import Backend, DistributedBackend, Motion
from pcgraph.backends import get as get_backend
from pcgraph.clamps import Clamps, Masked, read_labels
from pcgraph.coordinates import Errors
from pcgraph.duals import Duals
from pcgraph.errors import ClampError, ConfigError
from pcgraph.inference import (
    InferenceResult,
    InferenceStep,
    Options,
    Planner,
    Trace,
    hold,
    read_callback,
    read_precision,
    read_request,
    read_trace,
    run,
)  # fmt: skip
from pcgraph.inference.capturable import require_mode
from pcgraph.inference.following import curvature_at, follow
from pcgraph.initializers import Initializer, States
from pcgraph.optimizers import StateOptimizer
from pcgraph.plan import Plan
from pcgraph.processes import Part
from pcgraph.pyg import to_data
from pcgraph.ranks import SharedNetwork, inner_backend
from pcgraph.solvers import Solver
from pcgraph.sweeps import SweepModule, eagerly, read_nodes

if TYPE_CHECKING:
    from torch_geometric.data import Data

__all__ = ["PCNetwork"]

Node = Hashable


class PCNetwork(SharedNetwork):
    """A predictive coding network can be declared on any graph; it is planned, run, asked, and learns.

    Parameters
    ----------
    graph : nx.DiGraph or nx.MultiDiGraph
        Nodes are groups of neurons, with the attributes ``shape`` (required), ``activation``, ``bias``, ``energy``,
        ``precision`` (a number, or an array by neuron), ``prior``, ``slots``, ``combine``; edges are predictions, with
        ``transform``, ``activation``, ``trainable``,
        ``share``, ``scale``, ``init``, ``slot``, ``role``.
        It is copied and never changed.
    seed : int
        The seed that the weights are drawn from, in the order in which they lie in memory. Nodes or edges declared in
        another order may get other weights from it. torch's global generator is neither read nor moved.
    dtype : torch.dtype, optional
        The type of parameters and states; torch's default dtype if None.
    device : torch.device or str, optional
    backend : str or Backend
        What computes: a name of :data:`pcgraph.backends.BACKENDS`, "auto", or a backend of your own.
    partition : mapping, optional
        Node -> rank, as :func:`pcgraph.partition` makes it: each process of the group holds and computes the nodes of
        its rank and the edges into them, and all of them together what one process would. All declare the same network,
        make the same calls in the same order, and give the same batches.
    group : pcgraph.processes.Group or ProcessGroup, optional
        The processes that share the network; the default is all of them.

    Raises
    ------
    GraphError
        The declaration is wrong; the message names the node or edge.
    ConfigError
        The partition is none of this graph or of these processes, or the processes have declared different networks.

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
        backend: str | Backend = "auto",
        partition: Mapping[Node, int] | None = None,
        group: Any = None,
    ) -> None:
        self._asked, self._part = (partition, group), None
        super().__init__(graph, seed=seed, dtype=dtype, device=device)
        self._backend = backend
        self._make_planner()

    def _make_planner(self) -> None:
        if self._part is None:
            self._planner = Planner(self, get_backend(self._backend))
            return
        inner = DistributedBackend(inner_backend(self._backend), self._part, self.own, self.group)
        self._planner = Planner(self, inner, cut=self._part.cut)

    @property
    def backend(self) -> Backend:
        """Return what computes."""
        return self._planner.backend

    def plan(
        self, clamped: Iterable[Node], *, init: Initializer, steps: int,
        optimizer: StateOptimizer | Solver | None = None, masked: Iterable[Node] = (),
        kernels: Mapping[str, str] | None = None, coordinates: Errors | None = None,
        precision: Mapping[Node, float | Sequence[float]] | None = None, duals: Duals | None = None,
    ) -> Plan:  # fmt: skip
        """Return the plan that :meth:`infer` would run.

        Parameters
        ----------
        clamped, masked : iterable of nodes
            The nodes that are known wholly, and in part.
        init : Initializer
        steps : int
        optimizer : StateOptimizer, optional
            Its promises decide what may be skipped; without one those of plain SGD are taken.
        kernels : mapping, optional
            Bucket name -> kernel, to overrule the written rule.
        coordinates : Errors, optional
        precision : mapping, optional
        duals : Duals, optional
            As for :meth:`infer`.

        Returns
        -------
        Plan
            It is kept: equal requests get the same one.

        Raises
        ------
        InvalidInitializer, ClampError, ConfigError
            As :meth:`infer` would raise them.
        """
        for names in (clamped, masked):
            if isinstance(names, str) or not isinstance(names, Iterable):
                raise ClampError(
                    f"clamped and masked are collections of nodes, as in {{'x', 'y'}} (found {shown(names)})"
                )
        known, partly = (
            frozenset(self.structure.require_node(n, ClampError) for n in group) for group in (clamped, masked)
        )  # fmt: skip
        request = read_request(
            self._planner, known, partly, require_count(steps, "steps"), optimizer, needed=False,
            coordinates=coordinates, precision=precision, duals=duals, kernels=kernels,
        )  # fmt: skip
        return self._planner.plan(request, init)

    @eagerly
    def infer(
        self, clamps: Mapping[Node, Tensor | Masked], *, init: Initializer, steps: int,
        optimizer: StateOptimizer | Solver | None = None, labels: Tensor | None = None,
        coordinates: Errors | None = None, tolerance: float | None = None,
        trace: bool | Literal["nodes", "states"] | Trace = False,
        check: bool = True, kernels: Mapping[str, str] | None = None,
        capture: bool | Literal["auto"] = False, precision: Mapping[Node, float | Sequence[float]] | None = None,
        duals: Duals | None = None, callback: Callable[[InferenceStep], Any] | None = None,
    ) -> InferenceResult:  # fmt: skip
        """Run inference: initialise the free states, then move them down the energy.

        Parameters
        ----------
        clamps : mapping
            Node -> Tensor (batch, *shape) in the network's dtype, on its device, or :class:`pcgraph.Masked`. Arrays of
            NumPy are taken as well, and converted.
        init : Initializer
        steps : int
            T, the number of inference steps.
        optimizer : StateOptimizer or Solver, optional
            How states move; needed if `steps` is above 0.
        labels : Tensor or array of integers, optional, shape (batch,)
            Classes, for :class:`pcgraph.Average` where no clamp is one-hot.
        coordinates : Errors, optional
            What moves: states, unless :class:`pcgraph.Errors` says otherwise.
        tolerance : float, optional
            A sample moves no more once no gradient of its neurons is larger; ``result.steps`` says after how many
            steps, and `steps` is the most. It needs the host in every step.
        trace : bool, "nodes", "states" or Trace
            Keep the energy of every step; with "nodes", that of each node as well; with "states", states and errors
            too, of some nodes and every so many steps if a :class:`pcgraph.Trace` says so.
        check : bool
            Look for clamps and energies that are not finite. On a GPU that waits for the device.
        kernels : mapping, optional
            Bucket name -> kernel, to overrule the written rule.
        capture : bool or "auto"
            On a GPU, record the run as one CUDA graph and replay it for every batch of this shape: the host then
            starts it with one call. "auto" does so where all that varies comes in through tensors; True refuses
            where it does not.
        precision : mapping, optional
            Node, or (node, slot) -> the precision of its Gaussian energy in this run, in place of the declared one: as
            in ``precision={("V1", "down"): 0.1}``, which asks with more weight on feedback than it was trained with.
            Larger precisions need smaller rates. A schedule is a sequence of `steps` + 1 precisions, one for each step
            and one for the errors at the end, from which weights learn (:mod:`pcgraph.schedules` makes some); not with
            a solver.
        duals : Duals, optional
            Dual variables beside the states, so that predictions are met and not only approached; not with a solver.
        callback : callable, optional
            It is called with an :class:`pcgraph.inference.InferenceStep` before the first step and after each, and
            can look at everything; what it returns is ignored.

        Returns
        -------
        InferenceResult
            It is read by node, and the network learns from it.

        Raises
        ------
        ClampError, ConfigError, InvalidInitializer
            An argument is not as it has to be, or the initializer does not hold; nothing has run.
        Diverged
            The energy is not finite at the end.
        OutOfMemory
            The device has run out of memory; the message has the plan's estimate.
        """
        energies, states = read_trace(self.structure, trace)
        require_mode(capture)
        check = require_flag(check, "check")
        if tolerance is not None:
            tolerance = require_number(tolerance, "tolerance", above=0)
        return self.run(
            clamps, init=init, steps=steps, labels=labels, motion=Motion(optimizer),
            options=Options(energies, check, capture, tolerance, states=states, callback=read_callback(callback)),
            kernels=kernels, coordinates=coordinates,
            precision=precision, duals=duals,
        )  # fmt: skip

    @eagerly
    def run(
        self, clamps: Mapping[Node, Tensor | Masked], *, init: Initializer, steps: int, labels: Tensor | None,
        motion: Motion, options: Options, all_move: bool = False, kernels: Mapping[str, str] | None = None,
        coordinates: Errors | None = None, precision: Mapping[Node, float | Sequence[float]] | None = None,
        duals: Duals | None = None,
    ) -> InferenceResult:  # fmt: skip
        """Run inference as :meth:`infer` does, for learning rules that say what evolves from run to run.

        Parameters
        ----------
        clamps, init, steps, labels, kernels, coordinates, precision, duals
            As for :meth:`infer`.
        motion : Motion
            The state optimizer, what it has kept from earlier runs, and nudges.
        options : Options
        all_move : bool
            Whether every free node is handed to the optimizer in every step, so that what it keeps fits other runs.

        Returns
        -------
        InferenceResult

        Raises
        ------
        ClampError, ConfigError, InvalidInitializer, Diverged, OutOfMemory
            As for :meth:`infer`.
        """
        steps = require_count(steps, "steps")
        checked = Clamps.check(self, clamps, finite=options.check)
        self.require_same_batch(checked)
        labels = read_labels(self, labels, checked.batch)
        request = read_request(
            self._planner, checked.clamped, frozenset(checked.masked), steps, motion.optimizer,
            coordinates=coordinates, precision=precision, duals=duals, kernels=kernels,
            nudged=frozenset(motion.nudges), all_move=all_move,
        )  # fmt: skip
        if steps:
            weights = read_precision(self.structure, precision)
            follow(self._planner, checked, motion.optimizer, init, labels, coordinates, weights)
        prepared = self._planner.prepare(request, checked, init, labels)
        motion.part = self._planner.rows
        if duals is not None:
            options = replace(options, stop=duals.stop)
        program, seen = run(self._planner, prepared, motion, options)
        return InferenceResult(program, checked, init, labels, seen, self._planner.rows)

    def curvature(
        self, clamps: Mapping[Node, Tensor | Masked], *, init: Initializer, labels: Tensor | None = None,
        coordinates: Errors | None = None, iterations: int = 50, seed: int = 0,
        precision: Mapping[Node, float | Sequence[float]] | None = None, check: bool = True,
    ) -> Tensor:  # fmt: skip
        """Find the largest curvature of the energy where inference begins, for each sample: shape (batch,).

        Plain descent on a quadratic energy converges for every rate below 2 / curvature. It is the largest eigenvalue
        of the Hessian for what inference moves, by power iteration. With ``f = 1 - (1 - lr * curvature)**T`` it tells
        how far inference goes along that eigenvector: for small f, learning is nearly backpropagation.

        Parameters
        ----------
        clamps, init, labels, coordinates, precision
            As for :meth:`infer`. Of a schedule, the largest precision of each node counts.
        iterations : int
            Of the power iteration, each with two gradients.
        seed : int
            Of the first direction.
        check : bool
            Whether to look for clamps that are not finite, which on a GPU waits for the device.
        """
        require_count(iterations, "iterations", least=1)
        weights, seed = read_precision(self.structure, precision), require_seed(seed)
        checked = Clamps.check(self, clamps, finite=require_flag(check, "check"))
        labels = read_labels(self, labels, checked.batch)
        return curvature_at(self._planner, checked, init, labels, coordinates, weights, iterations, None, seed)[0]

    def follow(
        self, clamps: Mapping[Node, Tensor | Masked], optimizer: StateOptimizer | Solver | None, *, init: Initializer,
        labels: Tensor | None = None, coordinates: Errors | None = None,
        precision: Mapping[Node, float | Sequence[float]] | None = None,
    ) -> None:  # fmt: skip
        """Bring the rate of a state optimizer up to date where it is a :class:`pcgraph.Following`, and count a run.

        :meth:`infer` does so itself. A recording of your own, which replays without it, calls this before each replay,
        and is made and replayed within ``rate.held()``.

        Parameters
        ----------
        clamps, optimizer, init, labels, coordinates, precision
            As for :meth:`infer`.
        """
        checked = Clamps.check(self, clamps)
        labels = read_labels(self, labels, checked.batch)
        weights = read_precision(self.structure, precision)
        follow(self._planner, checked, optimizer, init, labels, coordinates, weights)

    @contextmanager
    def computing(self, part: Part | None) -> Iterator[None]:
        """Take the batches of this block for a part of larger ones, which several processes share.

        Initializers then draw for, and remember, the whole batch. :func:`pcgraph.fit` and :func:`pcgraph.evaluate` do
        this themselves.

        Parameters
        ----------
        part : pcgraph.processes.Part or None
            Which rows these are; None: all that there are.
        """
        with self._planner.taking(part):
            yield

    def forward(self, *arguments: Any, **keywords: Any) -> Any:
        """Refuse to be called: a predictive coding network is run by :meth:`infer` and asked by :meth:`predict`."""
        raise TypeError(
            "a PCNetwork is not called: use net.infer(clamps, ...) to run it, net.predict(clamps, node), or the plain "
            "module net.as_module('x', 'y')"
        )

    def as_module(self, given: Node | Iterable[Node], wanted: Node | Iterable[Node]) -> SweepModule:
        """Return a plain nn.Module that leads from some nodes to others by a sweep; its parameters are the network's.

        It is differentiable in its inputs, and takes all that torch does with modules: ``torch.func``, ``torch.vmap``,
        ``torch.compile``, ``torch.export``, ``torch.onnx.export``, ``torch.jit.trace``.

        Parameters
        ----------
        given : node or iterable of node
            Its inputs, in this order, (batch, \\*shape) each; or one sample each, (\\*shape).
        wanted : node or iterable of node
            What it returns: the state of one node, or a dict of several, as a feature extractor does.

        Raises
        ------
        ClampError
            There is no such node.
        InvalidInitializer
            No sweep leads there: a cycle lies between, or a root that is not given.

        Examples
        --------
        >>> import pcgraph
        >>> net = pcgraph.PCNetwork(pcgraph.graphs.chain([4, 3, 3, 2]))
        >>> net.as_module("x", ["h1", "y"])(torch.ones(5, 4))["h1"].shape
        torch.Size([5, 3])
        """
        self.require_one_process("as_module", "net.predict gives all ranks the answer")
        known, _ = read_nodes(self, given, "given")
        asked, single = read_nodes(self, wanted, "wanted")
        return SweepModule(self, known, asked, single)

    def carry_on(self, states: Mapping[Node, Tensor]) -> States:
        """Return an initializer that starts from `states`, of a rank's own nodes and rows; all share one plan."""
        found = States(states)
        found.of_whole_batch = False
        found.elsewhere = frozenset(v for v in self.structure.declared if not self.holds(v))
        return found

    @eagerly
    def predict(
        self, clamps: Mapping[Node, Tensor | Masked], node: Node, *, init: Initializer | None = None,
        steps: int | None = None, optimizer: StateOptimizer | Solver | None = None,
        coordinates: Errors | None = None, tolerance: float | None = None,
        precision: Mapping[Node, float | Sequence[float]] | None = None, duals: Duals | None = None,
        check: bool = True, capture: bool | Literal["auto"] = False,
    ) -> Tensor:  # fmt: skip
        """Predict one node, shape (batch, *shape).

        A sweep over the node's ancestors gives it, where these can be swept for these clamps (Theorem 1): they have no
        cycle of free nodes, and every free root among them has a known value. Elsewhere `init` and `steps` are
        required, and the answer is the node's state after that many steps.

        Parameters
        ----------
        clamps : mapping
            As for :meth:`infer`.
        node : node
            The one that is asked for; it is not wholly clamped.
        init, steps, optimizer, coordinates, tolerance, precision, duals
            As for :meth:`infer`; both of the first, or neither. A sweep moves nothing, and takes none of
            the others.
        check, capture
            As for :meth:`infer`. Of a sweep, the clamps alone are looked at.

        Raises
        ------
        InvalidInitializer
            There is no sweep, and neither `init` nor `steps` was given.
        ClampError, ConfigError
            The clamps, or the other arguments, are not as they have to be.
        """
        target = self.structure.require_node(node, ClampError)
        if isinstance(clamps, Mapping) and node in clamps and not isinstance(clamps[node], Masked):
            raise ClampError(
                f"{node!r} is both clamped and asked for, so that the answer would be its clamp: leave it out of the "
                "clamps",
                node=node,
            )
        if (init is None) != (steps is None):
            missing = "init" if init is None else "steps"
            raise ConfigError("predict needs both init= and steps=, or neither", key=missing)
        how: dict[str, Any] = {
            "optimizer": optimizer, "coordinates": coordinates, "tolerance": tolerance, "precision": precision,
            "duals": duals,
        }  # fmt: skip
        if init is not None and steps is not None:
            result = self.infer(clamps, init=init, steps=steps, check=check, capture=capture, **how)
            return self.told(target, lambda: result.states[node], result.batch)
        idle = next((key for key, value in how.items() if value is not None), None)
        if idle is not None:
            raise ConfigError(
                f"{idle}= is for inference, and without init= and steps= a sweep predicts: give both, or leave it out",
                key=idle,
            )
        checked = Clamps.check(self, clamps, finite=require_flag(check, "check"))
        plan = self._planner.prediction(checked.clamped, frozenset(checked.masked), target)
        options = Options(check=False, capture=capture)
        program, _ = run(self._planner, self._planner.prepared(plan, checked), Motion(), options)
        hold(program)
        with torch.inference_mode(False):
            return self.told(target, lambda: program.read(target, "state"), checked.batch)

    def told(self, i: int, read: Callable[[], Tensor], batch: int) -> Tensor:
        """Return a copy of what the rank that owns a node reads, on all ranks."""
        if self._part is None or self.group is None:
            return read().clone()
        owner, shape = int(self._part.cut.owner[i]), self.structure.groups[int(self.structure.group_of[i])].shape
        found = torch.empty(batch, *shape, dtype=self.dtype, device=self.device)
        if owner == self._part.rank:
            found.copy_(read())
        return self.group.broadcast(found, owner)

    def to_data(self, level: Literal["neurons", "groups"] = "neurons") -> Data:
        """Return the graph as torch_geometric's ``Data``; see :func:`pcgraph.pyg.to_data`."""
        return to_data(self, level=level)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_planner": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._take_part_anew()
        self._make_planner()
