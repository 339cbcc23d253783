"""What is bound decides nothing when it runs: which rows, which product and which activation were known before."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests import ROOT

KERNELS = sorted((ROOT / "pcgraph" / "backends" / "torch").glob("*.py"))
#: Functions within functions that bind, instead of being bound.
BINDING = {"make", "gradient", "keep", "sorted_by_both"}
#: What only a run can know: which gradients there are already, what learns now, and whether a module's result has any.
LATE = {
    "beta", "parameter.grad is None", "not parameter.requires_grad", "y.requires_grad", "back is not None", "trained",
    "grads[name] is not None", "grad is not None", "not y.requires_grad", "not trained or not y.requires_grad",
}  # fmt: skip


def decisions(source: str) -> Iterator[tuple[str, str]]:
    """Yield (function, condition) for what functions within functions decide."""
    tree = ast.parse(source)
    for outer in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        for inner in ast.walk(outer):
            if inner is outer or not isinstance(inner, ast.FunctionDef | ast.Lambda):
                continue
            for node in ast.walk(inner):
                name = getattr(inner, "name", "lambda")
                if isinstance(node, ast.If | ast.IfExp | ast.While):
                    yield name, ast.unparse(node.test)
                elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "getattr", "hasattr"):
                    yield name, ast.unparse(node)


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.name)
def test_what_is_bound_decides_nothing_when_it_runs(path):
    """Else every one of thousands of steps pays for a question that has one answer."""
    found = {
        pair for pair in decisions(path.read_text(encoding="utf-8")) if pair[0] not in BINDING and pair[1] not in LATE
    }
    assert not found


def test_the_kernels_have_functions_that_are_bound():
    assert sum(path.read_text(encoding="utf-8").count("return lambda") for path in KERNELS) > 20


@pytest.mark.parametrize(
    "inner", ["lambda: a if where is None else b", "lambda: take(a) if isinstance(where, slice) else 0", "run"]
)
def test_a_decision_is_found(inner):
    body = "    def run():\n        if fresh:\n            clear()\n" if inner == "run" else ""
    assert list(decisions(f"def bind(ws):\n{body}    return {inner}\n"))
