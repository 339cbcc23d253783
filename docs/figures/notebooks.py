"""Draw the thumbnails of the notebooks, from what they show: ``python docs/figures/notebooks.py``."""

import base64
import io
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import nbformat

import pcgraph
from pcgraph import drawing

HERE = Path(__file__).parent
NOTEBOOKS = HERE.parent / "notebooks"
SIZE = (4.8, 2.7)


def graph(name: str, declared: object, clamped: set[str]) -> None:
    """A graph without a title and a legend, which a thumbnail has no room for."""
    figure, ax = plt.subplots(figsize=SIZE, layout="constrained")
    drawing.graph(declared, clamped, ax=ax, title="")
    ax.get_legend().remove()
    figure.savefig(HERE / "notebooks" / f"{name}.png", dpi=80)
    plt.close(figure)


def shown(name: str) -> None:
    """The last picture that a notebook shows."""
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    png = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})][-1]
    figure = plt.figure(figsize=SIZE)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.imshow(plt.imread(io.BytesIO(base64.b64decode(png))), interpolation="antialiased")
    ax.axis("off")
    figure.savefig(HERE / "notebooks" / f"{name}.png", dpi=80)
    plt.close(figure)


(HERE / "notebooks").mkdir(exist_ok=True)
skip = pcgraph.graphs.chain([64, 64, 64, 10])
skip.add_edge("h1", "y")
graph("1_first_network", skip, {"x", "y"})
cyclic = pcgraph.graphs.chain([64, 64, 64, 10])
cyclic.add_edge("y", "h2")
graph("2_a_cycle", cyclic, {"x"})
shown("3_query_any_node")
graph("4_cortex", pcgraph.graphs.cortex({"image": 64, "V1": 48, "V2": 32, "class": 10}), {"image", "class"})
shown("5_deep")
graph("6_your_own", pcgraph.graphs.chain([64, 64, 64, 10]), {"x", "y"})
