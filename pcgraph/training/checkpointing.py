"""A run writes checkpoints and goes on from one; this module says when, and what is in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pcgraph.checkpoints import Checkpoint, FolderLock, Transaction, exists, generators_state, load, save, write
from pcgraph.errors import CheckpointError, ConfigError
from pcgraph.model import PCNetwork
from pcgraph.optimizers import Following
from pcgraph.training.fit_arguments import rule_name, rule_settings
from pcgraph.training.gradients import GradientMonitor
from pcgraph.training.loader_position import LoaderPosition, has_state
from pcgraph.training.options import FitOptions
from pcgraph.training.records import EpochRecord, metric_of
from pcgraph.training.state import TrainingState
from pcgraph.training.updates import HeldGradients, Updates

__all__ = ["Checkpointing"]

KIND = "pcgraph.fit"


class Checkpointing:
    """Writes the checkpoints of one run, and reads one.

    Parameters
    ----------
    net : PCNetwork
    options : FitOptions
        With the folder, if there is one, and how often to write into it.
    state : TrainingState
    position : LoaderPosition
    gradients : GradientMonitor
    updates : Updates
    """

    def __init__(
        self, net: PCNetwork, options: FitOptions, state: TrainingState, position: LoaderPosition,
        gradients: GradientMonitor, updates: Updates,
    ) -> None:  # fmt: skip
        self.net, self.options, self.state = net, options, state
        self.position, self.gradients, self.updates = position, gradients, updates
        self.folder = options.checkpoint
        leads = net.group is None or net.group.leads  # of ranks that write together, the first holds the folder
        self._lock = FolderLock(self.folder) if self.folder is not None and leads else None
        self._saved: tuple[int, int] | None = None

    def __enter__(self) -> Checkpointing:
        """Take the folder, until the run ends.

        Raises
        ------
        ConfigError
            It holds the checkpoints of another run.
        CheckpointError
            Another process is writing into it, or it cannot be written to.
        """
        if self.options.resume is not None and not exists(self.options.resume):
            load(self.options.resume)  # says what is wrong, before a folder is made
        if self.folder is None or self._lock is None:
            return self
        self._lock.__enter__()
        if self.options.resume is None and exists(self.folder):
            self._lock.__exit__(None, None, None)
            raise ConfigError(
                f"the folder {self.folder} holds the checkpoints of another run: go on with it by "
                f"resume={str(self.folder)!r}, or give another folder",
                key="checkpoint",
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.__exit__(None, None, None)

    def is_due(self) -> bool:
        """Say whether to save after this step."""
        every = self.options.checkpoint_every
        return every is not None and self.state.step % every == 0

    def after_epoch(self, record: EpochRecord) -> None:
        """Save; and if no epoch before was as good, also as ``best``."""
        self.save()
        name = self._followed(record)
        if self.folder is not None and name is not None and self.state.history.best(name) is record:
            save(
                self.folder / "best", self.options.judged(self.net), initializer=self.options.init,
                step=record.step, epoch=record.epoch, extra={"metric": name, "value": metric_of(record, name)}, keep=1,
            )  # fmt: skip

    def _followed(self, record: EpochRecord) -> str | None:
        name = self.options.followed
        if name is None and record.validation:
            name = "accuracy" if "accuracy" in record.validation else next(iter(record.validation))
        return name

    def save(self) -> None:
        """Write a checkpoint of this moment, unless the last one is."""
        state, options = self.state, self.options
        moment = (state.epoch, state.batch)
        if self.folder is None or moment == self._saved:
            return
        parts = {"optimizer": options.optimizer, "initializer": options.init, "scheduler": self._scheduler}
        extra = self._run_state()
        if self.net.places is not None:  # each rank holds gradients of its own parameters
            parts["held"] = HeldGradients(self.updates)
            extra["updates"]["held"] = None
            if self.updates.ema is not None:
                parts["average"] = self.updates.ema
                extra["updates"]["ema"] = {"n_averaged": extra["updates"]["ema"]["n_averaged"]}
        counts, given = {"step": state.step, "epoch": state.epoch}, {k: v for k, v in parts.items() if v is not None}
        write(self.folder, self.net, given, counts, extra, keep=2)
        self._saved = moment

    @property
    def _scheduler(self) -> Any:
        """Give the scheduler, where there is one; several are kept with the state of the run."""
        return self.options.schedulers[0] if len(self.options.schedulers) == 1 else None

    def taken_down(self) -> dict[str, Any]:
        """Take down what a validation may move: the random generators, and its own loader."""
        validate: Any = self.options.validate
        told = validate.state_dict() if has_state(validate) else None
        return {"generators": generators_state(self.net.device), "validation": told}

    def _run_state(self) -> dict[str, Any]:
        state, several = self.state, len(self.options.schedulers) > 1
        before = state.before_validation or self.taken_down()
        return {
            "kind": KIND, **state.state_dict(), "gradients": self.gradients.state_dict(), **self._rule_state(),
            "updates": self.updates.state_dict(),
            **({"state_rate": self._rate.state_dict()} if self._rate is not None else {}),
            "validation": before["validation"],
            "position": self.position.state(state.batch, state.exact, before["generators"]),
            "schedulers": [s.state_dict() for s in self.options.schedulers] if several else [],
        }  # fmt: skip

    @property
    def _rate(self) -> Following | None:
        """Give the rate of the states, where it is one that follows the curvature."""
        rate = getattr(self.options.state_optimizer, "lr", None)
        return rate if isinstance(rate, Following) else None

    def _restore_rate(self, saved: dict[str, Any], path: Path, transaction: Transaction) -> None:
        if ("state_rate" in saved) != (self._rate is not None):
            kinds = ("follows the curvature", "does not")
            was, now = kinds if self._rate is None else kinds[::-1]
            raise CheckpointError(
                f"the checkpoint {path} is of a run with a state rate that {was}, and this one {now}: go on with the "
                "state_optimizer as it was",
                path=path,
            )
        if self._rate is not None:
            transaction.load(self._rate, saved["state_rate"])

    def _restore_updates(self, checkpoint: Checkpoint, saved: dict[str, Any], transaction: Transaction) -> None:
        """Restore what is held between updates, and the average of the weights; older runs held nothing."""
        if "updates" not in saved and self.updates.ema is None:
            return
        updates = saved.get("updates", {"held": None, "batches": 0, "samples": 0})
        mine, whole = HeldGradients(self.updates), self.net.places is None
        if self.updates.ema is not None and "ema" in updates:
            updates = {**updates, "ema": checkpoint.averaged(updates["ema"], self.options.judged(self.net))}
        transaction.load(self.updates, updates if whole else {**updates, "held": None})
        if "held" in checkpoint.parts:
            checkpoint.give_moved(transaction, "held", mine, self.net, self.options.init)
        elif not whole and updates["held"] is not None:
            mine.load_state_dict(checkpoint.cut_list(updates["held"], mine, self.net, self.options.init))

    def _rule_state(self) -> dict[str, Any]:
        rule: Any = self.options.rule
        state = {"rule_state": rule.state_dict()} if has_state(rule) else {}
        return {"rule": rule_name(rule), "rule_settings": rule_settings(rule), **state}

    def _check_rule(self, state: dict[str, Any], path: Path) -> None:
        rule: Any = self.options.rule
        before = state.get("rule", "Standard")
        if rule_name(rule) != before:
            raise CheckpointError(
                f"the checkpoint {path} is of a run with the learning rule {before}, not {rule_name(rule)}: go on with "
                "that one, or train pcgraph.load(...).net in a run of its own",
                path=path,
            )
        settings, own = state.get("rule_settings"), rule_settings(rule)
        if settings is not None and settings != own:
            was, now = (", ".join(f"{key}={value!r}" for key, value in each.items()) for each in (settings, own))
            raise CheckpointError(
                f"the checkpoint {path} is of a run with the learning rule {before}({was}), not {before}({now}): go on "
                "with the settings it had, or train pcgraph.load(...).net in a run of its own",
                path=path,
            )
        if ("rule_state" in state) != has_state(rule):
            found = "nothing, but it has" if has_state(rule) else "what it knew, but it lacks"
            raise CheckpointError(
                f"the checkpoint {path} keeps of the learning rule {before} {found} state_dict() and "
                "load_state_dict(): go on with the rule as it was",
                path=path,
            )

    def restore(self, folder: Path) -> None:
        """Put the run where the last checkpoint in `folder` was written: all of it, or nothing.

        Raises
        ------
        CheckpointError
            See :func:`pcgraph.load`; or it is no checkpoint of a run, or one with other parts.
        """
        checkpoint = load(folder)
        saved = checkpoint.extra
        if not isinstance(saved, dict) or saved.get("kind") != KIND:
            raise CheckpointError(
                f"the checkpoint {checkpoint.path} was not written by fit; pcgraph.load(...).restore(...) reads it",
                path=checkpoint.path,
            )
        try:
            with Transaction() as transaction:
                self._restore(checkpoint, saved, transaction)
        except CheckpointError:
            raise
        except Exception as error:  # whatever a user's own class raises, the checkpoint is what it is about
            raise CheckpointError(
                f"the run in the checkpoint {checkpoint.path} cannot be gone on with: {type(error).__name__}: {error}",
                path=checkpoint.path,
            ) from error
        if self.folder is not None and self.folder in (folder, folder.parent):
            self._saved = (self.state.epoch, self.state.batch)

    def _restore(self, checkpoint: Checkpoint, saved: dict[str, Any], transaction: Transaction) -> None:
        options, each = self.options, saved["schedulers"]
        several = len(options.schedulers) if len(options.schedulers) > 1 else 0
        if len(each) != several or ("scheduler" in checkpoint.parts) != (len(options.schedulers) == 1):
            raise CheckpointError(
                f"the checkpoint {checkpoint.path} is of a run with other schedulers", path=checkpoint.path
            )
        self._check_rule(saved, checkpoint.path)
        state = TrainingState.read(checkpoint.epoch, checkpoint.step, saved)
        rates = [group["lr"] for group in options.optimizer.param_groups]
        checkpoint.restore_within(
            transaction, net=self.net, optimizer=options.optimizer, initializer=options.init, scheduler=self._scheduler
        )
        for group, rate in zip(options.optimizer.param_groups, rates):
            if isinstance(rate, Tensor):  # torch brings the optimizer's state to the device, and not this
                group["lr"] = torch.as_tensor(group["lr"], device=rate.device)
        for scheduler, one in zip(options.schedulers, each):
            transaction.load(scheduler, one)
        self._restore_rate(saved, checkpoint.path, transaction)
        self._restore_updates(checkpoint, saved, transaction)
        if "rule_state" in saved:
            transaction.load(options.rule, saved["rule_state"])
        if saved["validation"] is not None and has_state(options.validate):
            transaction.load(options.validate, saved["validation"])
        self.gradients.load_state_dict(saved["gradients"])
        self.position.load(saved["position"], state.batch, transaction)
        self.state.become(state)
        if checkpoint.step:
            options.optimizer._opt_called = True  # type: ignore[attr-defined]  # torch warns of a scheduler before it
