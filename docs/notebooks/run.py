"""Run the notebooks and keep what they show: ``python docs/notebooks/run.py [NUMBER …]``.

Sphinx and a browser of the repository show the outputs that are kept; ``tests/docs/test_notebooks.py`` runs the
notebooks again and compares. Each runs in a kernel and an empty folder of its own.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


def paths() -> list[Path]:
    """List the notebooks in their order."""
    return sorted(HERE.glob("*.ipynb"))


def executed(path: Path) -> Any:
    """Run a notebook from the beginning, and return it with its outputs and without what differs from run to run."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        set_for_kernel = {
            "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "IPYTHONDIR": folder,
            "PYTHONWARNINGS": "error::FutureWarning",
        }  # fmt: skip
        client = NotebookClient(
            notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": folder}}, record_timing=False
        )
        before = {key: os.environ.get(key) for key in set_for_kernel}
        os.environ.update(set_for_kernel)
        try:
            client.execute()
        finally:
            for key, value in before.items():
                os.environ.pop(key, None) if value is None else os.environ.__setitem__(key, value)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def main() -> None:
    """Run all notebooks, or those whose names begin so."""
    for path in paths():
        if not sys.argv[1:] or path.name.startswith(tuple(sys.argv[1:])):
            nbformat.write(executed(path), path)
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
