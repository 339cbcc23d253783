"""Run ``pcgraph search``: the settings of ``pcgraph train`` are searched for, as a TOML file says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from pcgraph import drawing, tuning
from pcgraph.cli.train import require_out
from pcgraph.experiments.options import write_config
from pcgraph.tuning.settings import Settings

__all__ = ["search"]


def search(
    config: Annotated[
        Path, typer.Argument(metavar="FILE.toml", help="Settings of train, [space] and [search]; see docs/settings.md.")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="For report, tables, pictures and the best settings.")
    ] = None,
    storage: Annotated[
        str | None, typer.Option(metavar="FILE|URL", help="Where trials are kept. [search.db in the folder]")
    ] = None,
    trials: Annotated[int | None, typer.Option(help="Of the first stage, in all. [20]")] = None,
    retry: Annotated[
        bool, typer.Option("--retry", help="Run finalists again that a killed process has left unfinished.")
    ] = False,
) -> None:
    """Search for settings of `train` that predict best what was held back from training.

    Called again it goes on, and called on several machines with one storage they share the trials.
    """
    plan = Settings.read(config, {"storage": storage, "trials": trials})
    place = out or Path("runs") / config.stem
    require_out(place)  # what is found in hours has to go somewhere
    asked: dict[str, Any] = {"storage": str(place / "search.db"), "name": config.stem, **plan.search}
    found = tuning.search(plan.train, plan.space, final_epochs=plan.base["epochs"], retry=retry, **asked)
    console = Console(highlight=False, soft_wrap=True)
    found.write(place)
    console.print(str(found), markup=False)
    if found.ranked:
        drawing.search(found, place / "search.png")
        write_config(place / "best.toml", plan.options(found.best))
        console.print(f"Train with the best by: pcgraph train --config {place / 'best.toml'}", markup=False)
    console.print(f"Report, tables and picture: {place}", markup=False)
