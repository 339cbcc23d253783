"""The records of a run go to a CSV or JSONL file, to TensorBoard and to a progress bar."""

from __future__ import annotations

import csv
import io
import json
import os
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from tqdm import TqdmWarning

from pcgraph.errors import ConfigError, DataError
from pcgraph.training.loader_position import length_of
from pcgraph.training.records import EpochRecord, StepRecord

with warnings.catch_warnings():  # a notebook without ipywidgets has a plain bar, and no word about it is needed
    warnings.simplefilter("ignore", TqdmWarning)
    from tqdm.auto import tqdm

__all__ = ["FileLog", "Log", "ProgressBar", "TensorBoardLog", "open_log"]

#: Names are written as they are, those that no encoding has among them, and end a line nowhere but at its end.
TEXT: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogatepass", "newline": ""}
COLUMNS = ["kind", "epoch", "step", "samples", "energy", "accuracy", "lr", "seconds", "fell", "curvature", "reach"]


class Log(Protocol):
    """Takes rows, one a measured step or epoch; begins with those that a resumed run has made before."""

    def begin(self, rows: list[dict[str, Any]]) -> None:
        """Begin with these rows."""

    def write(self, row: dict[str, Any]) -> None:
        """Take one row more."""

    def close(self) -> None:
        """Take no more."""


class FileLog:
    """Writes one line a record, each out to the disk at once.

    CSV has a header; a new name (of a validation's number, say) adds a column, for which the file is written anew.

    Parameters
    ----------
    path : str or Path
        Ending in ``.csv`` or ``.jsonl``.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.is_csv = self.path.suffix == ".csv"
        if self.path.suffix not in (".csv", ".jsonl"):
            raise ConfigError(f"a log ends in .csv or .jsonl (found {str(path)!r})", key="log")
        self.columns = list(COLUMNS)
        self._stream: io.TextIOWrapper | None = None

    def begin(self, rows: list[dict[str, Any]]) -> None:
        """Begin anew with the rows that the checkpoint knows of, whatever became of the file since."""
        self._add_columns(*rows)
        self._start(rows)

    def write(self, row: dict[str, Any]) -> None:
        if self._add_columns(row) and self.is_csv:
            self._start(self._read())
        assert self._stream is not None
        try:
            self._stream.write(self._line(row))
            self._stream.flush()
        except OSError as error:
            raise self._unwritten(error) from error

    def close(self) -> None:
        if self._stream is not None:
            with suppress(OSError):  # each row is flushed, so that what is left is one that has failed before
                self._stream.close()

    def _add_columns(self, *rows: dict[str, Any]) -> bool:
        new = [key for row in rows for key in row if key not in self.columns]
        self.columns += dict.fromkeys(new)
        return bool(new)

    def _line(self, row: dict[str, Any]) -> str:
        if not self.is_csv:
            return json.dumps(row) + "\n"
        text = io.StringIO()
        values = [value if (value := row.get(name)) is not None else "" for name in self.columns]
        returns = any(isinstance(value, str) and "\r" in value for value in values)  # which csv leaves bare
        quoting: Any = csv.QUOTE_ALL if returns else csv.QUOTE_MINIMAL
        csv.writer(text, lineterminator="\n", quoting=quoting).writerow(values)
        return text.getvalue()

    def _start(self, rows: list[dict[str, Any]]) -> None:
        """Begin the file anew with these rows, all or nothing."""
        self.close()
        beside = self.path.with_name(self.path.name + ".new")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            head = {name: name for name in self.columns}
            with open(beside, "w", **TEXT) as stream:
                stream.writelines(self._line(row) for row in ([head] if self.is_csv else []) + rows)
            os.replace(beside, self.path)
            self._stream = open(self.path, "a", **TEXT)  # noqa: SIM115
        except OSError as error:
            raise self._unwritten(error) from error

    def _unwritten(self, error: OSError) -> DataError:
        return DataError(f"the log {self.path} cannot be written: {error.strerror or error}", path=self.path)

    def _read(self) -> list[dict[str, Any]]:
        with open(self.path, **TEXT) as stream:
            whole = [f"{line}\n" for line in stream.read().split("\n")[:-1]]
        try:
            if not self.is_csv:
                return [json.loads(line) for line in whole]
            reader = csv.DictReader(whole)
            known = list(reader.fieldnames or [])
            self.columns = known + [name for name in self.columns if name not in known]
            return [dict(row) for row in reader]
        except (ValueError, KeyError, csv.Error) as error:
            raise DataError(f"{self.path} is no log of pcgraph: {error}", path=self.path) from error


class TensorBoardLog:
    """Writes scalars for TensorBoard, if that is installed."""

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                "tensorboard= needs TensorBoard, which is not installed: pip install tensorboard", key="tensorboard"
            ) from error
        self._writer: Any = SummaryWriter(str(folder))

    def begin(self, rows: list[dict[str, Any]]) -> None:
        """Take nothing back: TensorBoard shows the last value of a step."""

    def write(self, row: dict[str, Any]) -> None:
        for name, value in row.items():
            if name not in ("kind", "epoch", "step") and isinstance(value, int | float):
                self._writer.add_scalar(f"{row['kind']}/{name}", value, row["step"])

    def close(self) -> None:
        self._writer.close()


def open_log(log: str | Path | None, tensorboard: str | Path | None) -> list[Log]:
    """Make the logs that were asked for."""
    logs: list[Log] = []
    if log is not None:
        logs.append(FileLog(log))
    if tensorboard is not None:
        logs.append(TensorBoardLog(tensorboard))
    return logs


class ProgressBar:
    """Shows a bar an epoch, with energy, accuracy and batches a second; nothing if it is off."""

    def __init__(self, on: bool, epochs: int) -> None:
        self.on, self.epochs = on, epochs
        self._bar: Any = None

    def start(self, epoch: int, loader: Any, done: int) -> None:
        """Begin the bar of an epoch, of which `done` batches have been seen."""
        if self.on:
            width = len(str(self.epochs))
            self._bar = tqdm(
                total=length_of(loader), initial=done, unit="batch", desc=f"epoch {epoch + 1:{width}d}/{self.epochs}",
                mininterval=0.2, dynamic_ncols=True,
            )  # fmt: skip

    def step(self, record: StepRecord | None) -> None:
        """Move on by one batch; a measured one shows its numbers."""
        if self._bar is not None:
            if record is not None:
                self._bar.set_postfix(_shown(record.energy, record.accuracy), refresh=False)
            self._bar.update()

    def finish(self, record: EpochRecord | None) -> None:
        """End the bar with the epoch's numbers."""
        if self._bar is not None:
            if record is not None:
                shown = _shown(record.energy, record.accuracy)
                shown |= {f"val {k.replace('_', ' ')}": _number(k, v) for k, v in record.validation.items()}
                self._bar.set_postfix(shown, refresh=False)
            self._bar.close()
            self._bar = None


def _shown(energy: float | None, accuracy: float | None) -> dict[str, str]:
    shown = {} if energy is None else {"energy": f"{energy:.4g}"}
    return shown if accuracy is None else {**shown, "accuracy": f"{accuracy:.1%}"}


def _number(name: str, value: float) -> str:
    return f"{value:.2%}" if "accuracy" in name else f"{value:.4g}"
