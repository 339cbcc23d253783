"""Figure 8, and Figure 10 of the appendix: test images, and what the trained decoders make of them.

    python examples/paper/fig8.py --full         # reads the networks that fig7.py --full has trained
    python examples/paper/fig8.py --quick        # trains small ones on digits first, for the tests

The first test image of each class, clamped at ``x``; T_eval = T_train steps from the initializer; then the value of
``h0`` forwarded through the network. Seed 0, after as many epochs as seed 0 of a cell has had, at the best of them on
the validation images; the rows say how many. A network that is not there keeps the row that it had; it has no pictures.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
from common import Store, arguments, save, table, versions
from decoder import METHODS, Problem, make, reconstruct
from fig7 import CHECKPOINTS, FULL, QUICK, Cell, Plan, Records, run, setting_of
from torch import Tensor

import pcgraph

__all__ = ["draw", "error_table", "first_of_each_class", "reconstructions"]

SEED = 0


def first_of_each_class(problem: Problem) -> tuple[Tensor, list[str]]:
    """Test images (classes, pixels) and the names of their classes."""
    images = problem.test
    rows = [int((images.labels == c).nonzero()[0]) for c in range(len(images.classes))]
    return images.images[rows], list(images.classes)


def cells_of(plan: Plan) -> list[Cell]:
    """The cells of Figure 7 in the order of the pictures."""
    cells = [*plan.grid(3), *plan.grid(4)]
    return sorted(cells, key=lambda cell: (cell.maps, list(METHODS).index(cell.method), cell.t_train))


def reconstructions(problem: Problem, plan: Plan, records: Records, folder: Path) -> dict[Cell, tuple[Tensor, int]]:
    """Cell -> the reconstructions (classes, pixels) and the epochs of training, for the networks that are there."""
    x, _ = first_of_each_class(problem)
    found = {}
    for cell in cells_of(plan):
        best = cell.folder(folder, SEED) / "best"
        rows = records.errors.where(**cell.key, seed=SEED, t_eval=cell.t_train, outcome="ok")
        if rows and pcgraph.checkpoints.exists(best):
            last = max(rows, key=lambda r: int(r["epochs"]))
            net, init, _ = make(setting_of(last, cell), problem, SEED)
            pcgraph.checkpoints.load(best).restore(net=net, initializer=init)
            images = reconstruct(net, init, x, (cell.t_train,), float(last["alpha_eval"]))[cell.t_train][0]
            found[cell] = images, int(last["epochs"])
    return found


def note(store: Store, problem: Problem, found: dict[Cell, tuple[Tensor, int]]) -> None:
    """A row for each image: its squared error a pixel."""
    x, classes = first_of_each_class(problem)
    for cell, (images, epochs) in found.items():
        store.add(*(
            {"maps": cell.maps, "method": cell.method, "t": cell.t_train, "class": name, "seed": SEED, "epochs": epochs,
             "error": f"{float((image - true).square().mean()):.6f}"} | versions()
            for name, image, true in zip(classes, images, x, strict=True)
        ))  # fmt: skip


def error_table(store: Store, plan: Plan, maps: int) -> str:
    """The error of every image that is drawn."""
    classes = list(dict.fromkeys(r["class"] for r in store.rows))
    rows = []
    for cell in (cell for cell in cells_of(plan) if cell.maps == maps):
        of_cell = store.where(maps=maps, method=cell.method, t=cell.t_train)
        if of_cell:
            by_class = {r["class"]: f"{float(r['error']):.3f}" for r in of_cell}
            rows.append([cell.method, cell.t_train, of_cell[0]["epochs"], *(by_class[c] for c in classes)])
    return table([f"{maps} weight maps", "T", "epochs", *classes], rows)


def draw(path: Path, problem: Problem, found: dict[Cell, tuple[Tensor, int]]) -> None:
    """The images in the first line, what each network makes of them below."""
    x, classes = first_of_each_class(problem)
    side = round(x.shape[1] ** 0.5)
    lines = [("test image", x), *(
        (f"{c.method}\nT = {c.t_train}, {epochs} epochs", images) for c, (images, epochs) in found.items()
    )]  # fmt: skip
    figure, axes = plt.subplots(
        len(lines), len(classes), figsize=(0.75 * len(classes) + 1.8, 0.75 * len(lines) + 0.3), squeeze=False,
        gridspec_kw={"wspace": 0.06, "hspace": 0.06, "left": 0.2, "right": 0.995, "bottom": 0.01},
    )  # fmt: skip
    figure.subplots_adjust(top=1 - 0.3 / (0.75 * len(lines) + 0.3))
    for row, (label, images) in zip(axes, lines, strict=True):
        row[0].text(-0.1, 0.5, label, transform=row[0].transAxes, ha="right", va="center", fontsize=8)
        for ax, image in zip(row, images, strict=True):
            ax.imshow(image.view(side, side).numpy(), cmap="gray", vmin=0, vmax=1)
            ax.axis("off")
    for ax, name in zip(axes[0], classes, strict=True):
        ax.set_title(name, fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    """Reconstruct, write the rows, the table and the picture."""
    args = arguments(__doc__, "fig8")
    plan, problem = (QUICK, Problem.digits()) if args.quick else (FULL, Problem.fashion())
    records, folder = Records(args.out), args.out / "checkpoints" if args.quick else CHECKPOINTS
    if args.quick:
        run(problem, plan, (SEED,), records, folder)
    store = Store(args.out / "fig8.csv", ["maps", "method", "t", "class"])
    found = reconstructions(problem, plan, records, folder)
    note(store, problem, found)
    for maps in (3, 4):
        save(args.out, f"fig8_{maps}", error_table(store, plan, maps), store.where(maps=maps))
        those = {cell: images for cell, images in found.items() if cell.maps == maps}
        if those:
            draw(args.out / f"fig8_{maps}.png", problem, those)


if __name__ == "__main__":
    main()
