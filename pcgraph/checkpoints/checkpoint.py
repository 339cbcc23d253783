"""What a checkpoint holds is put into other objects whole, or not at all."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import networkx as nx
import torch
from torch import Tensor

from pcgraph.arguments import require_flag, require_instance, shown
from pcgraph.checkpoints.cutting import Pieces, local_moved, local_network
from pcgraph.checkpoints.fits import MALFORMED
from pcgraph.checkpoints.generators import generators_state, set_generators
from pcgraph.checkpoints.owners import initializer_parts, named_parameters, row_owners
from pcgraph.checkpoints.transaction import Transaction
from pcgraph.errors import CheckpointError, ConfigError, GraphError
from pcgraph.initializers import Initializer
from pcgraph.initializers.remember import misfit
from pcgraph.model import PCNetwork
from pcgraph.network import Structure, whole_parameters
from pcgraph.network.declaration import EDGE_ATTRIBUTES, NODE_ATTRIBUTES
from pcgraph.serialization import decode, graph_from_data, graph_to_data

__all__ = ["Checkpoint"]

Node = Hashable


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Holds a checkpoint that was read and found whole.

    Attributes
    ----------
    path : Path
    step, epoch : int
    extra : object
        What was given to :func:`save`.
    """

    path: Path
    step: int
    epoch: int
    _graph: dict[str, Any] = field(repr=False)
    _data: dict[str, Any] = field(repr=False)
    _tensors: dict[str, dict[str, Pieces]] = field(repr=False)

    @property
    def parts(self) -> frozenset[str]:
        """Name what is in it: "network", "optimizer", "initializer", ..."""
        return frozenset(self._data) - {"facts"}

    @cached_property
    def net(self) -> PCNetwork:
        """Make the network as it was, on the CPU.

        Raises
        ------
        CheckpointError
            Its graph could not be saved.
        """
        if "unsaved" in self._graph:
            raise CheckpointError(
                f"the graph is not in the checkpoint {self.path}: {self._graph['unsaved']} Make the network with the "
                "same code, and call restore(net=...).",
                path=self.path / "graph.json",
            )
        try:
            graph = graph_from_data(self._graph)
            self._require_values(graph)
            net = PCNetwork(graph, dtype=getattr(torch, self._data["facts"]["dtype"]), device="cpu")
        except (*MALFORMED, nx.NetworkXException) as error:
            raise CheckpointError(
                f"the graph of the checkpoint {self.path} cannot be made: {error}", path=self.path / "graph.json"
            ) from error
        self.restore(net=net)
        return net

    def _require_values(self, graph: nx.DiGraph) -> None:
        """Refuse a graph with more weights than the checkpoint holds, before room is made for them."""
        structure = Structure(graph)
        needed = sum(b.rows * b.entries(structure.groups) for b in structure.buckets)
        found = sum(math.prod(tensor.shape) for tensor in self._tensors.get("network", {}).values())
        if needed > found:
            raise GraphError(f"it has {needed} weights, and the checkpoint has {found} numbers for it")

    @property
    def extra(self) -> Any:
        """Give what was given to :func:`save`."""
        return self.state("extra")

    def state(self, part: str) -> Any:
        """Give the state of one part, as its ``state_dict()`` was.

        Raises
        ------
        CheckpointError
            It is not in the checkpoint, or malformed.
        """
        if not isinstance(part, str) or part not in self.parts:
            raise CheckpointError(
                f"the checkpoint {self.path} has no {part} (found {', '.join(sorted(self.parts))})", path=self.path
            )
        try:
            whole = {name: tensor.whole() for name, tensor in self._tensors.get(part, {}).items()}
            return decode(self._data[part]["state"], whole)
        except MALFORMED as error:
            raise CheckpointError(
                f"the {part} of the checkpoint {self.path} is malformed: {type(error).__name__}: {error}",
                path=self.path / "state.json",
            ) from error

    def restore(
        self, *, net: PCNetwork | None = None, optimizer: Any = None, initializer: Initializer | None = None,
        loader: Any = None, scheduler: Any = None, generators: bool = False,
    ) -> None:  # fmt: skip
        """Put what was saved into these objects: into all of them, or where one does not fit, into none.

        Parameters
        ----------
        net, optimizer, initializer, loader, scheduler
            Made as those that were saved: nodes and edges declared in the same order, parameters given to the optimizer
            in the same order.
        generators : bool
            Also put the global random generators of torch, NumPy and Python where they were.

        Raises
        ------
        CheckpointError
            One of them was not saved, or does not fit what was saved.
        ConfigError
            One of them is no such object.
        """
        if net is not None:
            require_instance(net, "net", PCNetwork, "pcgraph.PCNetwork(graph)")
        if initializer is not None:
            require_instance(initializer, "initializer", Initializer, "pcgraph.Null()")
        for key, part in (("optimizer", optimizer), ("loader", loader), ("scheduler", scheduler)):
            whole = not isinstance(part, type) and all(
                hasattr(part, name) for name in ("state_dict", "load_state_dict")
            )
            if part is not None and not whole:
                raise ConfigError(f"{key} must have state_dict() and load_state_dict() (found {shown(part)})", key=key)
        require_flag(generators, "generators")
        with Transaction() as transaction:
            self.restore_within(
                transaction, net=net, optimizer=optimizer, initializer=initializer, loader=loader, scheduler=scheduler
            )
            if generators:
                self._set_generators(transaction, "cpu" if net is None else net.device)

    def restore_within(
        self, transaction: Transaction, *, net: PCNetwork | None = None, optimizer: Any = None,
        initializer: Initializer | None = None, loader: Any = None, scheduler: Any = None,
    ) -> None:  # fmt: skip
        """Do as :meth:`restore`, as a part of something larger that is done as a whole or not at all."""
        if net is not None:
            self._check_network(net)
            whole = net.places is None
            self._give(transaction, "network", net, None if whole else lambda state: local_network(state, net))
            net.train(self._data["facts"]["training"])
        if optimizer is not None:
            self.give_moved(transaction, "optimizer", optimizer, net, initializer)
        if initializer is not None:
            self._check_initializer(initializer)
            self._give(transaction, "initializer", initializer)
            self._check_remembered(initializer, net)
            if net is not None:
                initializer.to(net.device)  # what is remembered comes into being where the file was read
        for name, part in (("loader", loader), ("scheduler", scheduler)):
            if part is not None:
                self._give(transaction, name, part)

    def give_moved(
        self, transaction: Transaction, name: str, moved: Any, net: PCNetwork | None, initializer: Initializer | None
    ) -> None:  # fmt: skip
        """Give an optimizer its state, or whatever else keeps something of each parameter."""
        if net is None or net.places is None:
            if name == "optimizer":
                self._check_optimizer(moved, net, initializer)
            self._give(transaction, name, moved)
            return
        parameters = self._data.get(name, {}).get("parameters", [])
        self._give(transaction, name, moved, lambda state: local_moved(state, parameters, moved, net, initializer))

    def cut_list(
        self, values: Sequence[Tensor | None], moved: Any, net: PCNetwork, initializer: Initializer | None
    ) -> dict[str, Any]:  # fmt: skip
        """Take a rank's own rows of tensors that one process has kept, one for each parameter or None."""
        shapes = {f"net.{name}": shape for name, shape in whole_parameters(net.structure).items()}
        others = [p for p in self._data.get("optimizer", {}).get("parameters", []) if p["name"] not in shapes]
        parameters = [*({"name": name, "shape": list(shape)} for name, shape in shapes.items()), *others]
        kept = {i: {"gradient": Pieces([(None, t)])} for i, t in enumerate(values) if t is not None}
        state = {"state": kept, "param_groups": [{"params": list(range(len(parameters)))}]}
        return local_moved(state, parameters, moved, net, initializer)

    def averaged(self, kept: Mapping[str, Any], net: PCNetwork) -> dict[str, Any]:
        """Give the state of an average of the weights: what a run has kept of it, and what ranks wrote in parts.

        Parameters
        ----------
        kept : mapping
            The state of an AveragedModel, or of one that ranks have written together the count alone.
        net : PCNetwork
            The averaged network.
        """
        prefix = "module."
        own = {key: value for key, value in kept.items() if not key.startswith(prefix)}
        if net.places is None:
            found = self.state("average") if "average" in self.parts else None
            return dict(kept) if found is None else {**own, **{prefix + name: value for name, value in found.items()}}
        whole = {key.removeprefix(prefix): Pieces([(None, t)]) for key, t in kept.items() if key.startswith(prefix)}
        cut = local_network(self._in_pieces("average") if "average" in self.parts else whole, net)
        return {**own, **{prefix + name: value for name, value in cut.items()}}

    def _give(
        self, transaction: Transaction, name: str, part: Any, cut: Callable[[Any], Any] | None = None
    ) -> None:  # fmt: skip
        """Give a part its state; where it is of one rank, that is `cut` out of the state of the whole."""
        state = self.state(name) if cut is None else self._in_pieces(name)
        self._check_class(name, part)
        try:
            transaction.load(part, state if cut is None else cut(state))
        except Exception as error:  # whatever a user's own class raises, the checkpoint is what it is about
            raise self._unfit(name, str(error)) from error

    def _in_pieces(self, part: str) -> Any:
        """Give the state of a part with Pieces in the place of its tensors, which have not been read yet."""
        if part not in self.parts:
            self.state(part)  # says what is there
        try:
            pieces: Any = self._tensors.get(part, {})
            return decode(self._data[part]["state"], pieces)
        except MALFORMED as error:
            raise self._unfit(part, f"{type(error).__name__}: {error}") from error

    def _unfit(self, name: str, why: str) -> CheckpointError:
        return CheckpointError(
            f"the {name} of the checkpoint {self.path} does not fit: {why}", path=self.path / "state.json"
        )

    def _set_generators(self, transaction: Transaction, device: torch.device | str) -> None:
        state, before = self.state("generators"), generators_state(device)
        transaction.on_error(lambda: set_generators(before, device))
        try:
            set_generators(state, device)
        except MALFORMED as error:
            raise self._unfit("generators", str(error)) from error

    # -- whether a part is the one that was saved -------------------------------------------------------------------

    def _check_class(self, name: str, part: Any) -> None:
        saved = self._data.get(name, {}).get("class", type(part).__name__)
        if saved != type(part).__name__:
            raise self._unfit(name, f"it is the state of a {saved}, not of a {type(part).__name__}")

    def _check_network(self, net: PCNetwork) -> None:
        facts, unsaved = self._data["facts"], "unsaved" in self._graph
        difference = "" if unsaved else self._other_graph(net)
        saved, own = facts.get("rows") or self._rows_of_the_graph(), row_owners(net.structure)
        wrong = next((name for name in sorted({*own, *saved}) if saved and saved.get(name) != own.get(name)), None)
        if wrong is not None and unsaved:
            why = f"the rows of {wrong} are of other nodes or edges, or of the same in another order"
            raise self._unfit("network", f"{why}; declare it by the code that declared it when it was saved")
        if difference or wrong is not None:
            raise CheckpointError(
                f"the checkpoint {self.path} is of another graph: {difference or self._other_order(net, str(wrong))}",
                path=self.path / "graph.json",
            )
        found = str(net.dtype).removeprefix("torch.")
        if found != facts["dtype"]:
            raise CheckpointError(
                f"the checkpoint {self.path} is of a network in {facts['dtype']}, and this one is in {found}: make it "
                f"with dtype=torch.{facts['dtype']}; net.to(...) converts it afterwards",
                path=self.path / "state.json",
            )

    def _other_graph(self, net: PCNetwork) -> str:
        try:
            given = _declared(graph_to_data(net.graph))
        except GraphError as error:
            return str(error)
        return _difference(self._declared(), given)

    def _declared(self) -> dict[str, dict[str, Any]]:
        try:
            return _declared(self._graph)
        except MALFORMED as error:
            raise CheckpointError(
                f"the graph of the checkpoint {self.path} is malformed: {type(error).__name__}: {error}",
                path=self.path / "graph.json",
            ) from error

    def _rows_of_the_graph(self) -> dict[str, str]:
        """Digest the rows by the graph, in a checkpoint that was written before it had the digests."""
        if "unsaved" in self._graph:
            return {}
        try:
            return row_owners(Structure(graph_from_data(self._graph)))
        except MALFORMED as error:
            raise CheckpointError(
                f"the graph of the checkpoint {self.path} cannot be made: {error}", path=self.path / "graph.json"
            ) from error

    def _other_order(self, net: PCNetwork, wrong: str) -> str:
        pairs = zip(self._declared(), _declared(graph_to_data(net.graph)))
        first = next((f" (the {given} where the {saved} was)" for saved, given in pairs if saved != given), "")
        return (
            f"its nodes or edges come in another order{first}, so that the rows of {wrong} belong to others; declare "
            f"them as pcgraph.load({str(self.path)!r}).net.graph does, or take that network"
        )

    def _check_optimizer(self, optimizer: Any, net: PCNetwork | None, initializer: Initializer | None) -> None:
        self._check_class("optimizer", optimizer)
        if "optimizer" not in self._data or not isinstance(optimizer, torch.optim.Optimizer):
            return
        saved = self._data["optimizer"].get("parameters", [])
        found = named_parameters(optimizer, net, initializer)
        if saved and len(saved) != len(found):
            raise self._unfit("optimizer", f"it moves {len(saved)} parameters, and this one moves {len(found)}")
        for i, (one, two) in enumerate(zip(saved, found)):
            if one["shape"] != two["shape"] or (None not in (one["name"], two["name"]) and one["name"] != two["name"]):
                was, now = (f"{each['name'] or 'without a name here'}, shape {each['shape']}" for each in (one, two))
                raise self._unfit("optimizer", f"its parameter {i} was {was}, and is {now}")
        try:
            states = self.state("optimizer")["state"]
            wrong = [i for i, one in enumerate(saved) if set(map(str, states.get(i, ()))) != set(one["keeps"])]
        except MALFORMED as error:
            raise self._unfit("optimizer", f"{type(error).__name__}: {error}") from error
        if wrong:
            raise self._unfit("optimizer", f"of its parameter {wrong[0]} it has not {saved[wrong[0]]['keeps']}")

    def _check_initializer(self, initializer: Initializer) -> None:
        if "initializer" not in self._data:
            return  # which is said when its state is asked for
        self._check_class("initializer", initializer)
        saved, own = self._data["initializer"].get("parts"), initializer_parts(initializer)
        for name in saved or ():
            if saved[name] != own.get(name):
                where = f"its part {name!r}" if name else "it"
                raise self._unfit("initializer", f"{where} was {saved[name]}, and is {own.get(name, 'not there')}")

    def _check_remembered(self, initializer: Initializer, net: PCNetwork | None) -> None:
        """Refuse what is remembered of nodes that the network does not have."""
        why = misfit(initializer, None if net is None else net.structure)
        if why:
            raise self._unfit("initializer", why)


def _declared(data: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """List what a network is made of, by name, without metadata and in order; how weights were drawn is past."""
    known = [k for k in (*NODE_ATTRIBUTES, *EDGE_ATTRIBUTES) if k != "init"]
    found: dict[str, dict[str, Any]] = {}
    for row in data["nodes"]:
        found[f"node {json.dumps(row['id'])}"] = {k: row[k] for k in known if k in row}
    for row in data["edges"]:
        name = f"edge {json.dumps(row['source'])} -> {json.dumps(row['target'])} {json.dumps(row.get('key', ''))}"
        found[name] = {k: row[k] for k in known if k in row}
    return found


def _difference(saved: dict[str, Any], given: dict[str, Any]) -> str:
    """Say what the network lacks, has otherwise or has besides; nothing where the order alone may differ."""
    for name in saved:
        if name not in given:
            return f"the network lacks the {name}"
        if saved[name] != given[name]:
            return f"the {name} has {given[name]}, and had {saved[name]} when it was saved"
    more = [name for name in given if name not in saved]
    return f"the network has the {more[0]} besides" if more else ""
