"""What users bring is tried once, when it is declared, so that a slip is named here and not found in wrong numbers.

An activation, a transform or an energy is evaluated again and again in every inference step, for many samples at once,
and differentiated by autograd where it does not do that itself. It must therefore

* take and give tensors of the right shape and type, for any number of samples;
* leave its arguments as they are, however large, and what it has returned, too;
* give the same for the same: it draws nothing at random and does not change itself;
* treat each sample by itself;
* be open to autograd where its result changes with its argument, as a whole: a gradient is compared with a difference
  quotient. A constant is allowed, and so is a step, whose slope is zero almost everywhere, with whatever gradient it
  has; and a ``torch.autograd.Function`` of one's own has the gradient that it says.

A trial looks at a few samples, of several sizes and both signs. It finds what happens always, not what happens now and
then, nor what is hidden of a gradient in few of the neurons.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from pcgraph.activations import Activation
from pcgraph.energies import ENERGIES, Energy
from pcgraph.errors import GraphError, said_by
from pcgraph.network.copying import copy_module
from pcgraph.transforms import (
    Activate,
    AvgPool2d,
    Conv2d,
    ConvTranspose2d,
    Embedding,
    Flatten,
    GraphLayer,
    MaskedLinear,
    MaxPool2d,
    Module,
    Reshape,
    RowLinear,
    Sequence,
    Transform,
    Upsample,
)

__all__ = ["Trial"]

Shape = tuple[int, ...]
States = tuple[Tensor, ...]

#: Transforms of ours that hold nothing of anybody else's.
OURS = (AvgPool2d, Conv2d, ConvTranspose2d, Embedding, Flatten, MaskedLinear, MaxPool2d, Reshape, RowLinear, Upsample)
OUR_ENERGIES = tuple(ENERGIES.values())
SAMPLES = 2
#: How far parameters are moved before a module is tried: one that starts at zero would hide what it does.
SHIFT = 0.1
#: A difference quotient is taken over twice this, and counts where it is seen in so large a part of the results: a
#: step is met now and then, a slope in half of the neurons at least.
STEP, SEEN = 1e-3, 0.1
#: A slope counts where quotients over one, two and four steps agree so far. A gradient misses some of it where it is so
#: far off, and hides a part where it does so in so many of the samples, each taken so often in other directions.
SMOOTH, OFF, MISSED, COPIES = 0.02, 0.1, 0.25, 4
#: So much larger and smaller are the states on which a callable is only seen to leave them alone.
SIZES = (30.0, -30.0, 0.01)
#: Results that differ by no more are the same: kernels for one sample add up in another order than those for two.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}
COARSE = 0.05


class Trial:
    """Tries what was declared, each thing once for a shape.

    Parameters
    ----------
    like : Tensor
        It has the type and lies on the device that states will have.

    Examples
    --------
    >>> Trial(torch.empty(0)).activation("node 'h'", "h", Activation("relu_", torch.relu_), (3,))
    Traceback (most recent call last):
    ...
    pcgraph.errors.GraphError: node 'h': the activation 'relu_' must leave its argument as it is, but changes it in
    place; use inplace=False, or let it work on a copy, as in a.clone()
    """

    def __init__(self, like: Tensor) -> None:
        self.like = torch.empty(0, dtype=like.dtype, device="cpu") if like.is_meta else like.detach()
        self._tried: set[tuple[Any, ...]] = set()

    def activation(self, place: str, where: Any, activation: Activation, shape: Shape) -> None:
        """Try an activation on states of `shape`; `place` begins every message and `where` is its data.

        Raises
        ------
        GraphError
            It is not what the module's docstring asks for.
        """
        if activation.named or self._seen(
            activation.function, activation.fused_forward, activation.fused_pullback, shape
        ):
            return
        function = activation.function
        hint = f"; a class makes an object: write {activation.name}()" if isinstance(function, type) else ""
        with _apart(self.like):
            subject = _Subject(
                f"{place}: the activation {activation.name!r}", where, function, self._twin(function, moves=False),
                f"must preserve the shape {{}}{hint}", activation.fused_pullback is None, self.like.dtype,
            )  # fmt: skip
            state = subject.try_on(self.like, shape, shape)
            _keep_promises(subject, activation, state)

    def transform(self, place: str, where: Any, transform: Transform, shape: Shape, out_shape: Shape) -> None:
        """Try a transform that leads from `shape` to `out_shape`.

        Raises
        ------
        GraphError
            It is not what the module's docstring asks for.
        """
        if _ours(transform) or self._seen(transform, shape):
            return
        inner = cast(nn.Module, transform)
        called = f"the transform {type(inner).__name__}"
        if isinstance(transform, Module):
            inner, called = transform.module, transform.called(transform.module)
        elif isinstance(transform, GraphLayer):
            inner, called = transform.layer, f"the graph layer {type(transform.layer).__name__}"
        with _apart(self.like):
            subject = _Subject(
                f"{place}: {called}", where, inner, self._twin(transform, moves=True),
                "must lead to the shape {}", not hasattr(transform, "pullback"), None,
            )  # fmt: skip
            subject.try_on(self.like, shape, out_shape)

    def energy(self, place: str, where: Any, energy: Energy, shape: Shape) -> None:
        """Try an energy of states and predictions of `shape`.

        Raises
        ------
        GraphError
            It is not what the module's docstring asks for.
        """
        if type(energy) in OUR_ENERGIES or self._seen(energy, shape):
            return
        with _apart(self.like):
            subject = _Subject(
                f"{place}: the energy {type(energy).__name__}", where, energy,
                self._twin(energy, moves=True).per_sample,
                "must give one number for each sample, shape {}", type(energy).error is Energy.error, None,
            )  # fmt: skip
            subject.try_on(self.like, shape, (), arguments=2)

    def _seen(self, *what: Any) -> bool:
        key = tuple(part if isinstance(part, tuple) else id(part) for part in what)
        known = key in self._tried
        self._tried.add(key)
        return known

    def _twin(self, function: Any, moves: bool) -> Any:
        """Copy a module, so that the trial leaves no trace in it, and move its parameters off their first values."""
        if not isinstance(function, nn.Module):
            return function
        twin = copy_module(function, {})
        if moves:  # what belongs to the network goes where the network goes, and into training
            twin = twin.to(self.like).train()
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in twin.parameters():
                noise = torch.randn(parameter.shape, generator=generator, device="cpu").to(parameter)
                parameter.add_(noise * SHIFT * (1 + parameter.abs().mean()))
        return twin


@dataclass(frozen=True)
class _Subject:
    """A subject is one thing that is tried.

    Attributes
    ----------
    text : str
        What it is called, and where, for messages.
    where : hashable or tuple
        The node or edge.
    found : object
        What the user gave.
    call : callable
        It takes one tensor or several and gives one.
    needed : str
        What the shape of the result must be, in words, with a place for the shape.
    by_autograd : bool
        Whether nothing but autograd differentiates it.
    dtype : torch.dtype or None
        What the result must be; None if any real numbers will do.
    """

    text: str
    where: Any
    found: Any
    call: Callable[..., Any]
    needed: str
    by_autograd: bool
    dtype: torch.dtype | None

    def refusal(self, problem: str) -> GraphError:
        return GraphError(f"{self.text} {problem}", where=self.where, found=self.found)

    def try_on(self, like: Tensor, shape: Shape, out_shape: Shape, arguments: int = 1) -> Tensor:
        """Look at everything in turn, and return the first argument of the trial."""
        states = self._states(like, shape, arguments)
        first = self._evaluate(states, out_shape)
        kept, parts = first.clone(), _parts_of(self.call)
        before = [part.clone() for part in parts]
        again = self._evaluate(states, out_shape)
        if any(not torch.equal(part, old) for part, old in zip(parts, before)):
            raise self.refusal(
                "must give the same result in every inference step, but changes itself when it is evaluated; keep it "
                "fixed by module.eval(), and on an edge as pcgraph.transforms.Module(module, evaluation=True)"
            )
        if not _close(again, kept):
            raise self.refusal(
                "must give the same result in every inference step, but gives another one each time; remove what draws "
                "at random or counts its calls"
            )
        for i in range(SAMPLES):
            if not _close(self._evaluate(tuple(s[i : i + 1] for s in states), out_shape), kept[i : i + 1]):
                raise self.refusal(
                    "must treat each sample by itself, but what it gives for one depends on the others of the batch; "
                    "let it work over the dimensions after the first"
                )
        self._evaluate(tuple(state.flip(0) for state in states), out_shape)
        if not _close(first, kept):
            raise self.refusal("must return a new tensor each time, but writes again into what it has returned")
        for size in SIZES:
            self._look_at_arguments(tuple(size * state for state in states))
        if self.by_autograd:
            self._look_for_slopes(states)
        return states[0]

    def _look_at_arguments(self, states: States) -> None:
        """Refuse what changes its argument where it is large or small; whether it takes that is its own matter."""
        given = tuple(state.clone() for state in states)
        try:
            with torch.no_grad():
                self.call(*given)
        except Exception:
            return
        self._unchanged(given, states)

    def _unchanged(self, given: States, states: States) -> None:
        if any(tensor._version or not torch.equal(tensor, state) for tensor, state in zip(given, states)):
            raise self.refusal(
                "must leave its argument as it is, but changes it in place; use inplace=False, or let it work on a "
                "copy, as in a.clone()"
            )

    def _states(self, like: Tensor, shape: Shape, arguments: int) -> States:
        """Return states that are taken: of both signs, or, where tokens or probabilities are meant, of one."""
        generator = torch.Generator().manual_seed(0)
        size = (arguments, SAMPLES, *shape)
        signed, unsigned = (draw(size, generator=generator, device="cpu") for draw in (torch.randn, torch.rand))
        for states in (signed, 0.1 + 0.8 * unsigned, torch.zeros_like(signed)):
            try:
                self._call(tuple(states.to(like).clone()))
            except GraphError as error:
                refused = error
            else:
                return tuple(states.to(like))
        raise refused

    def _call(self, states: States) -> Any:
        try:
            return self.call(*states)
        except GraphError as error:
            raise GraphError(f"{self.text}: {error}", where=self.where, found=self.found) from error
        except Exception as error:
            shape = ", ".join(map(str, states[0].shape[1:]))
            count = "batch" if len(states[0]) == SAMPLES else f"a batch of {len(states[0])}"
            raise self.refusal(f"does not take a tensor of shape ({count}, {shape}): {said_by(error)}") from error

    def _evaluate(self, states: States, out_shape: Shape) -> Tensor:
        """Evaluate without a graph, and look at the result, at the arguments and at torch's generators."""
        given = tuple(state.clone() for state in states)
        drawn = _generators(states[0])
        with torch.no_grad():
            result = self._call(given)
        self._look_at(result, (len(states[0]), *out_shape), states[0])
        if any(not torch.equal(a, b) for a, b in zip(drawn, _generators(states[0]))):
            raise self.refusal(
                "must give the same result in every inference step, but draws at random; remove what draws"
            )
        self._unchanged(given, states)
        return result  # type: ignore[no-any-return]

    def _look_at(self, result: Any, shape: Shape, like: Tensor) -> None:
        if not isinstance(result, Tensor) or tuple(result.shape) != shape:
            found = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
            needed, _, hint = self.needed.partition("{}")
            raise self.refusal(f"{needed}{shape} (found {found}){hint}")
        if not result.is_floating_point() or (self.dtype is not None and result.dtype != self.dtype):
            raise self.refusal(
                f"must give {'real numbers' if self.dtype is None else self.dtype} (found {result.dtype}); convert "
                "what it returns, as in y.to(a.dtype)"
            )
        if result.device != like.device or result.layout != torch.strided:
            raise self.refusal(
                f"must give a dense tensor on {like.device} (found {result.layout} on {result.device}); convert what "
                "it returns, as in y.to(a.device)"
            )

    def _look_for_slopes(self, states: States) -> None:
        """Refuse what autograd takes for a constant and is none."""
        if torch.finfo(states[0].dtype).bits < 32 or not bool(states[0].any()):
            return
        if bool((states[0] < 0).any()):  # so that a slope on one side of zero is met
            states = tuple(torch.cat([state, -state]) for state in states)
        states = tuple(state.repeat(COPIES, *[1] * (state.dim() - 1)) for state in states)
        leaves = tuple(state.clone().requires_grad_() for state in states)
        with torch.enable_grad():
            result = self._call(leaves)
            one = _one_each(result)
            found: Any = (None,) * len(leaves)
            own = _has_own_gradient(result)
            try:
                if result.requires_grad:
                    found = torch.autograd.grad((one * result).sum(), leaves, allow_unused=True)
            except Exception as error:  # a Function of somebody's own may raise what it likes
                problem = f"must be open to autograd, but cannot be differentiated: {said_by(error)}"
                raise self.refusal(problem) from error
        for i, back in enumerate(found):
            if back is None and self._changes(states, i) > SEEN:
                raise self.refusal(
                    "must be open to autograd, but its result changes with its argument and torch finds no way back; "
                    "compute it with torch's functions and without detach(), or as a torch.autograd.Function"
                )
            if back is not None and not own and self._misses(states, i, back, one) >= MISSED:
                raise self.refusal(
                    "must be open to autograd, but its gradient is not that of its result: a part of it is hidden from "
                    "torch; compute all of it without detach(), or as a torch.autograd.Function"
                )

    def _misses(self, states: States, i: int, back: Tensor, one: Tensor) -> float:
        """Return in how large a part of the samples the gradient of one neuron misses a part of its slope.

        Each is looked at along one direction. A kink or a step within reach, and rounding, show in quotients that
        differ with their length.
        """
        direction = _signs(back.shape).to(back)

        def slope(length: float) -> Tensor:
            with torch.no_grad():
                ends = [
                    self._call((*states[:i], states[i] + s * direction, *states[i + 1 :])) for s in (length, -length)
                ]
            return _sums(one.double() * (ends[0].double() - ends[1].double())) / (2 * length)

        slopes = torch.stack([slope(STEP), slope(2 * STEP), slope(4 * STEP)])
        found, size = _sums(back.double() * direction.double()), slopes[0].abs()
        smooth = (slopes - slopes[0]).abs().amax(0) <= SMOOTH * size
        rises = size > OFF * found.abs()  # a step does not, whatever its gradient
        off = (found - slopes[0]).abs() > OFF * torch.maximum(found.abs(), size)
        return float((smooth & rises & off).double().mean())

    def _changes(self, states: States, i: int) -> float:
        """Return how large a part of the results a small step of one argument changes."""
        with torch.no_grad():
            moved = [self._call((*states[:i], states[i] + step, *states[i + 1 :])).double() for step in (STEP, -STEP)]
        return float((moved[0] != moved[1]).double().mean())


def _signs(shape: Iterable[int], seed: int = 0) -> Tensor:
    """Draw 1 and -1 at random."""
    return torch.randint(0, 2, tuple(shape), generator=torch.Generator().manual_seed(seed), device="cpu") * 2 - 1


def _one_each(result: Tensor) -> Tensor:
    """Mark one neuron of each sample, drawn at random."""
    neurons = result[0].numel()
    generator = torch.Generator().manual_seed(1)
    places = torch.randint(0, max(neurons, 1), (len(result), 1), generator=generator, device="cpu")
    marks = torch.zeros(len(result), max(neurons, 1), device="cpu").scatter_(1, places, 1.0)
    return marks[:, :neurons].reshape(result.shape).to(result)


def _sums(values: Tensor) -> Tensor:
    """Add up each sample."""
    return values.reshape(len(values), -1).sum(1)


def _has_own_gradient(result: Tensor) -> bool:
    """Say whether a ``torch.autograd.Function`` of somebody's own lies on the way back."""
    waiting, seen = [result.grad_fn], set()
    while waiting:
        step = waiting.pop()
        if step is None or step in seen:
            continue
        if isinstance(step, torch.autograd.function.BackwardCFunction):
            return True
        seen.add(step)
        waiting += [before for before, _ in step.next_functions]
    return False


def _keep_promises(subject: _Subject, activation: Activation, state: Tensor) -> None:
    """Look at what an Activation of the user's own says besides its function."""
    with torch.no_grad():
        if activation.at_zero is not None:
            found = subject.call(torch.zeros_like(state))
            if not _close(found, torch.full_like(state, activation.at_zero)):
                raise subject.refusal(
                    f"must be {activation.at_zero} at zero, as its at_zero says, but is {found.max()}"
                )
        mu, argument, signal = subject.call(state.clone()).clone(), state.clone(), torch.ones_like(state)
        if activation.fused_forward is not None and not _close(activation(argument, torch.empty_like(mu)), mu):
            raise subject.refusal("must have a fused_forward that gives what its function gives, but it does not")
        if activation.fused_pullback is not None:
            activation.pullback(signal, argument, torch.empty_like(state), mu)
        if not torch.equal(argument, state) or not bool((signal == 1).all()):
            raise subject.refusal("must write into `out` alone where it is fused, but changes another argument")


def _ours(transform: Transform) -> bool:
    """Tell whether a transform holds nothing of anybody else's."""
    if type(transform) is Sequence:
        return all(_ours(part) for part in cast(Iterable[Transform], transform.parts))
    return type(transform) in OURS or (type(transform) is Activate and transform.activation.named)


@contextmanager
def _apart(like: Tensor) -> Iterator[None]:
    """Leave torch's generators where they were, and let tensors be ordinary ones."""
    devices = [like.device] if like.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.inference_mode(False):
        yield


def _generators(like: Tensor) -> list[Tensor]:
    """Return where torch's generators stand."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(like.device)] if like.device.type == "cuda" else states


def _parts_of(call: Any) -> list[Tensor]:
    """Return what a module holds, which evaluating it must leave alone."""
    module = getattr(call, "__self__", call)
    return [*module.parameters(), *module.buffers()] if isinstance(module, nn.Module) else []


def _close(a: Tensor, b: Tensor) -> bool:
    tolerance = TOLERANCE.get(b.dtype, COARSE)
    largest = float(b.detach().abs().nan_to_num(0.0, 0.0, 0.0).max()) if b.numel() else 0.0
    return torch.allclose(a, b, rtol=tolerance, atol=0.1 * tolerance * max(1.0, largest), equal_nan=True)
