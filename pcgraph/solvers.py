"""Solvers see all free variables of a sample at once, and move them together.

A state optimizer moves each node by its own gradient; a solver works on all free variables of a sample in one row,
whatever nodes they belong to, and whether they are states or errors (:mod:`pcgraph.coordinates`). Samples do not
couple: curvature, step lengths and restarts are those of each sample, so that the composition of a batch never changes
an answer.

A solver of your own defines ``propose(variables, gradient, memory)``; ``memory["energy"]`` is the energy of each
sample at these variables.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from pcgraph.arguments import require_count, require_number

__all__ = ["LBFGS", "Anderson", "Momentum", "Solver"]


class Solver(ABC):
    """Every solver derives from this class. Write :meth:`propose`.

    Attributes
    ----------
    fixes_zero : bool
        True promises that a variable whose gradient has been zero in every step so far does not move. Only then may a
        plan skip what no error has reached.
    """

    fixes_zero: bool = False
    #: Whether it adds up by ``memory["sum"]`` whatever it adds up over variables, so that it may see those of one rank.
    sums: bool = False
    #: A solver remembers, so that what has moved once may move again without a gradient.
    stateless: bool = False

    @abstractmethod
    def propose(self, variables: Tensor, gradient: Tensor, memory: dict[str, Any]) -> Tensor:
        """Return the variables at which the energy is evaluated next.

        Parameters
        ----------
        variables, gradient : Tensor, shape (batch, variables)
            Neither is to be changed.
        memory : dict
            Kept from step to step. ``memory["energy"]`` is the energy of each sample, (batch,), and
            ``memory["step"]`` the number of steps before this one. ``memory["sum"]`` adds up a tensor over the ranks,
            where several share the network, and each has some of the variables.
        """

    def finish(self, variables: Tensor, energy: Tensor, memory: dict[str, Any]) -> Tensor:
        """Return the variables to end with, from those that were proposed last and their energy: by default, these."""
        return variables

    def failed(self, memory: dict[str, Any]) -> Tensor | None:
        """Tell which samples found no way on, (batch,), where the solver can."""
        return None


def _dot(a: Tensor, b: Tensor, memory: dict[str, Any]) -> Tensor:
    return _over_ranks((a * b).sum(1), memory)


def _over_ranks(tensor: Tensor, memory: dict[str, Any]) -> Tensor:
    """Add up what ranks have found of their own variables."""
    found: Tensor = memory["sum"](tensor) if "sum" in memory else tensor
    return found


def _above(energy: Tensor, value: Tensor) -> Tensor:
    """Tell which energies are above a value by more than rounding, which is not to decide where a sample goes."""
    return energy > value + 64 * torch.finfo(energy.dtype).eps * value.abs()


class LBFGS(Solver):
    """Moves each sample by limited-memory BFGS with a backtracking line search (Nocedal and Wright, chapter 7).

    Each inference step is one evaluation of energy and gradient: where the energy has not fallen enough (Armijo), the
    step of that sample is halved and tried again from the same point.

    Parameters
    ----------
    history : int
        So many pairs of steps and gradient differences are kept.
    lr : float
        The length of the first step along the gradient, before there is any curvature.
    decrease : float
        The part of the decrease that the slope promises which is demanded.
    halvings : int
        A sample whose step was halved so often stays where it is: see ``result.failed``.
    """

    fixes_zero = True
    sums = True

    def __init__(self, history: int = 10, lr: float = 0.1, decrease: float = 1e-4, halvings: int = 20) -> None:
        self.history = require_count(history, "history", least=1)
        self.lr = require_number(lr, "lr", above=0)
        self.decrease = require_number(decrease, "decrease", above=0, below=1)
        self.halvings = require_count(halvings, "halvings", least=1)

    def propose(self, variables: Tensor, gradient: Tensor, memory: dict[str, Any]) -> Tensor:
        energy: Tensor = memory["energy"]
        if "point" not in memory:
            self._begin(variables, memory)
            better = torch.ones_like(energy, dtype=torch.bool)
        else:
            target = memory["value"] + self.decrease * memory["length"] * memory["slope"]
            better = ~_above(energy, target) & ~memory["failed"] & ~energy.isnan()
            self._remember(variables, gradient, better, memory)
        wide = better.unsqueeze(1)
        memory["point"] = torch.where(wide, variables, memory["point"])
        memory["gradient"] = torch.where(wide, gradient, memory["gradient"])
        memory["value"] = torch.where(better, energy, memory["value"])
        memory["direction"] = torch.where(wide, self._direction(memory), memory["direction"])
        memory["slope"] = _dot(memory["direction"], memory["gradient"], memory)
        memory["length"] = torch.where(better, torch.ones_like(energy), memory["length"] / 2)
        memory["failed"] = memory["failed"] | (memory["length"] < 0.5**self.halvings)
        reach = torch.where(memory["failed"], torch.zeros_like(energy), memory["length"])
        point, direction = memory["point"], memory["direction"]
        proposed: Tensor = point + reach.unsqueeze(1) * direction
        return proposed

    def finish(self, variables: Tensor, energy: Tensor, memory: dict[str, Any]) -> Tensor:
        if "point" not in memory:
            return variables
        point: Tensor = memory["point"]
        return torch.where((energy <= memory["value"]).unsqueeze(1), variables, point)

    def failed(self, memory: dict[str, Any]) -> Tensor | None:
        found: Tensor | None = memory.get("failed")
        return found

    def _begin(self, variables: Tensor, memory: dict[str, Any]) -> None:
        batch, count = variables.shape
        memory["point"], memory["gradient"] = variables.clone(), torch.zeros_like(variables)
        memory["direction"] = torch.zeros_like(variables)
        memory["value"], memory["slope"] = variables.new_zeros(batch), variables.new_zeros(batch)
        memory["length"] = variables.new_ones(batch)
        memory["failed"] = torch.zeros(batch, dtype=torch.bool, device=variables.device)
        memory["steps"], memory["changes"] = (variables.new_zeros(self.history, batch, count) for _ in range(2))
        memory["inverse"] = variables.new_zeros(self.history, batch)  # 1 / (s y); 0 where there is no pair
        memory["scale"] = variables.new_full((batch,), self.lr)
        memory["next"] = torch.zeros(batch, dtype=torch.long, device=variables.device)

    def _remember(self, variables: Tensor, gradient: Tensor, better: Tensor, memory: dict[str, Any]) -> None:
        """Keep the newest pair of each sample that has moved, where its curvature is positive."""
        step, change = variables - memory["point"], gradient - memory["gradient"]
        dots = torch.stack([(step * change).sum(1), change.square().sum(1), step.square().sum(1)])
        product, square, length = _over_ranks(dots, memory)
        good = better & (product > 1e-10 * (length * square).sqrt()) & (square > 0)
        slot = (memory["next"] % self.history, torch.arange(len(better), device=better.device))
        for kept, new in (("steps", step), ("changes", change)):
            memory[kept][slot] = torch.where(good.unsqueeze(1), new, memory[kept][slot])
        product, square = (torch.where(good, x, torch.ones_like(x)) for x in (product, square))
        memory["inverse"][slot] = torch.where(good, 1 / product, memory["inverse"][slot])
        memory["scale"] = torch.where(good, product / square, memory["scale"])
        memory["next"] = memory["next"] + good

    def _direction(self, memory: dict[str, Any]) -> Tensor:
        """Compute ``-H g`` by the two-loop recursion, from each sample's newest pair to its oldest and back."""
        q: Tensor = memory["gradient"].clone()
        samples = torch.arange(len(q), device=q.device)
        slots = [((memory["next"] - 1 - k) % self.history, samples) for k in range(self.history)]
        factors = []
        for slot in slots:
            factor = memory["inverse"][slot] * _dot(memory["steps"][slot], q, memory)
            q = q - factor.unsqueeze(1) * memory["changes"][slot]
            factors.append(factor)
        q = q * memory["scale"].unsqueeze(1)
        for slot, factor in zip(reversed(slots), reversed(factors)):
            back = memory["inverse"][slot] * _dot(memory["changes"][slot], q, memory)
            q = q + (factor - back).unsqueeze(1) * memory["steps"][slot]
        downhill = _dot(q, memory["gradient"], memory) > 0
        return -torch.where(downhill.unsqueeze(1), q, self.lr * memory["gradient"])

    def __repr__(self) -> str:
        return f"LBFGS(history={self.history}, lr={self.lr:g})"


class Anderson(Solver):
    """Mixes iterates of ``x -> x - lr * gradient`` by Anderson's method (Walker and Ni 2011), each sample by itself.

    Parameters
    ----------
    lr : float
        Of the map: a rate at which plain descent would be stable.
    history : int
        So many differences are mixed.
    damping : float
        The part of the mixed step that is taken, at most 1.
    ridge : float
        Of the least-squares problem, relative to the mean square of the differences.
    """

    fixes_zero = True
    sums = True

    def __init__(self, lr: float = 0.1, history: int = 5, damping: float = 1.0, ridge: float = 1e-10) -> None:
        self.lr, self.history = require_number(lr, "lr", above=0), require_count(history, "history", least=1)
        self.damping = require_number(damping, "damping", above=0, most=1)
        self.ridge = require_number(ridge, "ridge", above=0)

    def propose(self, variables: Tensor, gradient: Tensor, memory: dict[str, Any]) -> Tensor:
        step, energy = -self.lr * gradient, memory["energy"]
        if "variables" not in memory:
            shape = (self.history, *variables.shape)
            memory["moves"], memory["changes"] = variables.new_zeros(shape), variables.new_zeros(shape)
        else:
            k = (memory["step"] - 1) % self.history
            memory["moves"][k] = variables - memory["variables"]
            memory["changes"][k] = step - memory["last"]
            rose = _above(energy, memory["value"])
            memory["moves"][:, rose] = 0.0  # a sample whose energy rises begins anew
            memory["changes"][:, rose] = 0.0
        memory["variables"], memory["last"], memory["value"] = variables.clone(), step, energy
        changes = memory["changes"].transpose(0, 1)  # (batch, history, variables)
        products = changes @ torch.cat([changes, step.unsqueeze(1)], 1).mT
        gram, onto = torch.split(_over_ranks(products, memory), [self.history, 1], 2)
        mean = gram.diagonal(dim1=1, dim2=2).mean(1).clamp(min=torch.finfo(gram.dtype).tiny)
        ridge = max(self.ridge, 16 * torch.finfo(gram.dtype).eps)  # less is lost in rounding, and leaves it to chance
        gram = gram + (ridge * mean).view(-1, 1, 1) * torch.eye(self.history, dtype=gram.dtype, device=gram.device)
        weights: Tensor = torch.linalg.lstsq(gram, onto).solution
        mixed: Tensor = (memory["moves"].transpose(0, 1) + changes).mT @ weights
        return variables + self.damping * (step - mixed.squeeze(2))

    def __repr__(self) -> str:
        return f"Anderson(lr={self.lr:g}, history={self.history})"


class Momentum(Solver):
    """Heavy-ball momentum that begins anew where it would carry a sample uphill (O'Donoghue and Candes 2015).

    That is where the last move points along the gradient: the sign is sure where changes of the energy are lost in its
    last digits.

    Parameters
    ----------
    lr : float
    momentum : float
        At least 0, below 1.
    """

    fixes_zero = True
    sums = True

    def __init__(self, lr: float, momentum: float = 0.9) -> None:
        self.lr = require_number(lr, "lr", above=0)
        self.momentum = require_number(momentum, "momentum", least=0, below=1)

    def propose(self, variables: Tensor, gradient: Tensor, memory: dict[str, Any]) -> Tensor:
        velocity = -self.lr * gradient
        if "velocity" in memory:
            downhill = (_dot(memory["velocity"], gradient, memory) <= 0).unsqueeze(1)
            velocity = velocity + self.momentum * downhill * memory["velocity"]
        memory["velocity"] = velocity
        return variables + velocity

    def __repr__(self) -> str:
        return f"Momentum(lr={self.lr:g}, momentum={self.momentum:g})"
