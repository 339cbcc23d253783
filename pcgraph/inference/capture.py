"""A function is recorded once as a CUDA graph, and replayed: one call of the host starts all of its kernels.

A recording repeats what Python decided when it was made, in the places in memory that it used then. So it needs one
set of shapes, values that come in through tensors alone, and a function that neither waits for the device nor decides
anything by what it has computed. Inputs are copied into tensors that stay where they are; what the function returned
while it was recorded is what every replay returns, with new values in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from pcgraph.arguments import shown
from pcgraph.backends import keeping
from pcgraph.backends import switches as switches_of
from pcgraph.errors import ConfigError

__all__ = ["CudaGraph", "Graph", "Recorder"]

T = TypeVar("T")
Inputs = Mapping[Any, Tensor]


class Graph(Protocol):
    """A graph records a function and replays it."""

    def warm(self, function: Callable[[], Any]) -> Any:
        """Run the function as it is, where a recording may follow."""

    def record(self, function: Callable[[], Any]) -> Any:
        """Take down what the function starts, without running it."""

    def replay(self) -> None:
        """Run what was taken down."""


class CudaGraph:
    """torch's CUDA graph records here; runs before the recording have a stream of their own, as torch asks for."""

    def __init__(self) -> None:
        self.graph = torch.cuda.CUDAGraph()
        self.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def warm(self, function: Callable[[], Any]) -> Any:
        """Run on the other stream; the current one waits for it, the host does not."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            result = function()
        torch.cuda.current_stream().wait_stream(self.stream)
        return result

    def record(self, function: Callable[[], Any]) -> Any:
        """Record on the other stream. What other threads do meanwhile, pinning a loader's batches, say, is allowed."""
        with torch.cuda.graph(self.graph, stream=self.stream, capture_error_mode="thread_local"):
            return function()

    def replay(self) -> None:
        """Replay on the current stream."""
        self.graph.replay()


class Recorder(Generic[T]):
    """A recorder calls a function as it is a few times, then records it, then replays.

    Every call computes what the function would: the first ones are ordinary runs, so that a function which moves
    weights moves them once a call. A recording is of one kind of inputs: those of other shapes, dtypes or devices (the
    smaller last batch of an epoch, say) are run as they are, and leave it alone. Before there is one, the kind that has
    come most often is the one that will be recorded. It holds for torch's switches as they are (autocast, TF32, ...);
    when one is thrown, all begins anew.

    Parameters
    ----------
    function : callable
        ``function(inputs) -> T``; it reads its batch from `inputs` and from nothing else. Whatever it returns is kept
        alive, and with it the memory that the recording uses: return the result of an inference, and not its energy
        alone, since the buffers of a result that is gone are other runs' to use.
    graph : callable, optional
        Makes what records; the default is :class:`CudaGraph`.

    Examples
    --------
    A whole training step, the optimizer's included (``capturable=True``), as ``fit(capture=...)`` records it::

        def learn(batch):
            optimizer.zero_grad()
            result = net.infer(batch, init=pcgraph.Forward(), steps=5, optimizer=pcgraph.SGD(0.1), check=False)
            result.backward()
            optimizer.step()
            return result

        step = pcgraph.inference.Recorder(learn)
        for x, y in loader:
            step({"x": x, "y": y})
    """

    #: Ordinary runs before the recording, in which lazily made tensors come into being.
    WARM = 3

    def __init__(self, function: Callable[[Inputs], T], graph: Callable[[], Graph] | None = None) -> None:
        for key, value in (("function", function), *(() if graph is None else (("graph", graph),))):
            if not callable(value):
                raise ConfigError(f"{key} must be callable (found {shown(value)})", key=key)
        self.function, self._make = function, CudaGraph if graph is None else graph
        self.forget()

    def forget(self) -> None:
        """Let go of the recording and of the memory that it uses, as if there had been no call."""
        self.calls = 0
        self._graph: Graph | None = None
        self._static: dict[Any, Tensor] = {}
        self._kind: object = None
        self._result: list[T] = []
        self._kept: list[object] = []
        self._others: Counter[object] = Counter()
        self._switches: object = None

    @property
    def recorded(self) -> bool:
        """Tell whether calls are replays by now."""
        return bool(self._result)

    def __call__(self, inputs: Inputs) -> T:
        """Return what the function returns for these inputs.

        Parameters
        ----------
        inputs : mapping
            Name -> Tensor.
        """
        switches = self.switches(inputs)
        if switches != self._switches or self.outnumbered(inputs):
            self.forget()
        if not self.fits(inputs):
            return self.function(inputs)
        if self._graph is None:
            self._graph, self._switches, self._kind = self._make(), switches, _kind(inputs)
            self._static = {name: torch.empty_like(value) for name, value in inputs.items()}
        for name, value in inputs.items():
            self._static[name].copy_(value, non_blocking=True)
        self.calls += 1
        if self.calls <= self.WARM:
            return self._graph.warm(lambda: self.function(self._static))  # type: ignore[no-any-return]
        if not self._result:
            with keeping(self._kept):
                self._result.append(self._graph.record(lambda: self.function(self._static)))
        self._graph.replay()
        return self._result[0]

    def switches(self, inputs: Inputs) -> object:
        """Tell what torch is set to where these inputs lie."""
        return {device: switches_of(device) for device in {value.device for value in inputs.values()}}

    def fits(self, inputs: Inputs) -> bool:
        """Tell whether these inputs are of the kind that is recorded, or will be; before the first call, all are."""
        return self._graph is None or _kind(inputs) == self._kind

    def outnumbered(self, inputs: Inputs) -> bool:
        """Count inputs of another kind; tell whether they have come more often than those that were to be recorded."""
        if self.recorded or self.fits(inputs):
            return False
        kind = _kind(inputs)
        self._others[kind] += 1
        return self._others[kind] > self.calls


def _kind(inputs: Inputs) -> frozenset[object]:
    """Tell what a recording holds of its inputs: everything but their values."""
    return frozenset([(name, value.shape, value.dtype, value.device) for name, value in inputs.items()])
