"""The checkpoints of a run: when they are written, what is in them, how one goes on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pcgraph.checkpoints import exists, generators_state, load, save
from pcgraph.errors import CheckpointError, ConfigError
from pcgraph.training.position import has_state
from pcgraph.training.records import EpochRecord, metric_of
from pcgraph.training.settings import rule_name, rule_settings

if TYPE_CHECKING:
    from pcgraph.training.loop import Run

__all__ = ["Keeper"]

KIND = "pcgraph.fit"


class Keeper:
    """Writes the checkpoints of one run, and reads one.

    Parameters
    ----------
    run : Run
    folder : str, Path or None
        None: nothing is written.
    every : int or None
        Steps between checkpoints, beside the one after each epoch.
    """

    def __init__(self, run: Run, folder: str | Path | None, every: int | None) -> None:
        self.run = run
        self.folder = None if folder is None else Path(folder)
        self.every = every
        self._saved: tuple[int, int] | None = None
        if every is not None and (isinstance(every, bool) or not isinstance(every, int) or every < 1):
            raise ConfigError(f"checkpoint_every is a positive integer (found {every!r})", key="checkpoint_every")
        if every is not None and folder is None:
            raise ConfigError("checkpoint_every= needs checkpoint=, a folder", key="checkpoint_every")
        if self.folder is not None and run.settings.resume is None and exists(self.folder):
            raise ConfigError(
                f"the folder {self.folder} holds the checkpoints of another run: go on with it by "
                f"resume={str(self.folder)!r}, or give another folder",
                key="checkpoint",
            )

    def after_step(self) -> None:
        """Save, if it is time."""
        if self.every is not None and self.run.step % self.every == 0:
            self.save()

    def after_epoch(self, record: EpochRecord) -> None:
        """Save; and if no epoch before was as good, also as ``best``."""
        self.save()
        name = self._followed(record)
        if self.folder is not None and name is not None and self.run.history.best(name) is record:
            save(
                self.folder / "best", self.run.net, initializer=self.run.init, step=record.step, epoch=record.epoch + 1,
                extra={"metric": name, "value": metric_of(record, name)}, keep=1,
            )  # fmt: skip

    def _followed(self, record: EpochRecord) -> str | None:
        settings = self.run.settings
        name = settings.metric or (settings.early_stopping.metric if settings.early_stopping else None)
        if name is None and record.validation:
            name = "accuracy" if "accuracy" in record.validation else next(iter(record.validation))
        return name

    def save(self) -> None:
        """Write a checkpoint of this moment, unless the last one is."""
        run = self.run
        moment = (run.epoch, run.batch)
        if self.folder is None or moment == self._saved:
            return
        one = run.schedulers[0] if len(run.schedulers) == 1 else None
        save(
            self.folder, run.net, optimizer=run.optimizer, initializer=run.init, scheduler=one, step=run.step,
            epoch=run.epoch, extra=self._state(),
        )  # fmt: skip
        self._saved = moment

    def _state(self) -> dict[str, Any]:
        run = self.run
        generators = run.pending["generators"] if run.pending is not None else generators_state(run.net.device)
        validation = run.pending["validation"] if run.pending is not None else run.validation_state()
        return {
            "kind": KIND,
            "batch": run.batch, "samples": run.samples, "energies": run.energies, "accuracies": run.accuracies,
            "seconds": run.seconds(), "history": run.history.state_dict(), "watch": run.watch.state_dict(),
            "gradients": run.gradients.state_dict(), "validation": validation, **self._rule_state(),
            "position": run.position.state(run.batch, run.exact, generators),
            "schedulers": [s.state_dict() for s in run.schedulers] if len(run.schedulers) > 1 else [],
        }  # fmt: skip

    def _rule_state(self) -> dict[str, Any]:
        rule: Any = self.run.settings.rule
        state = {"rule_state": rule.state_dict()} if has_state(rule) else {}
        return {"rule": rule_name(rule), "rule_settings": rule_settings(rule), **state}

    def _check_rule(self, state: dict[str, Any], path: Path) -> None:
        rule: Any = self.run.settings.rule
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

    def restore(self, folder: str | Path) -> None:
        """Put the run where the last checkpoint in `folder` was written.

        Raises
        ------
        CheckpointError
            See :func:`pcgraph.load`; or it is no checkpoint of a run, or one with other parts.
        """
        run = self.run
        checkpoint = load(folder)
        state = checkpoint.extra
        if not isinstance(state, dict) or state.get("kind") != KIND:
            raise CheckpointError(
                f"the checkpoint {checkpoint.path} was not written by fit; pcgraph.load(...).restore(...) reads it",
                path=checkpoint.path,
            )
        several = len(run.schedulers) if len(run.schedulers) > 1 else 0
        if len(state["schedulers"]) != several or ("scheduler" in checkpoint.parts) != (len(run.schedulers) == 1):
            raise CheckpointError(f"the checkpoint {checkpoint.path} is of a run with other schedulers", path=folder)
        self._check_rule(state, checkpoint.path)
        rates = [group["lr"] for group in run.optimizer.param_groups]
        checkpoint.restore(
            net=run.net, optimizer=run.optimizer, initializer=run.init,
            scheduler=run.schedulers[0] if len(run.schedulers) == 1 else None,
        )  # fmt: skip
        for group, rate in zip(run.optimizer.param_groups, rates):
            if isinstance(rate, Tensor):  # torch brings the optimizer's state to the device, and not this
                group["lr"] = torch.as_tensor(group["lr"], device=rate.device)
        if "rule_state" in state:
            run.settings.rule.load_state_dict(state["rule_state"])  # type: ignore[attr-defined]
        if checkpoint.step:
            run.optimizer._opt_called = True  # type: ignore[attr-defined]  # torch warns of a scheduler's step before it
        for scheduler, saved in zip(run.schedulers, state["schedulers"]):
            scheduler.load_state_dict(saved)
        run.epoch, run.step = checkpoint.epoch, checkpoint.step
        run.batch, run.samples = state["batch"], state["samples"]
        run.energies, run.accuracies, run.before = state["energies"], state["accuracies"], state["seconds"]
        run.history.load_state_dict(state["history"])
        run.history.stopped = ""
        run.watch.load_state_dict(state["watch"])
        run.gradients.load_state_dict(state["gradients"])
        run.position.load(state["position"])
        if state["validation"] is not None and has_state(run.settings.validate):
            run.settings.validate.load_state_dict(state["validation"])  # type: ignore[union-attr]
        if self.folder is not None and self.folder in (Path(folder), Path(folder).parent):
            self._saved = (run.epoch, run.batch)
