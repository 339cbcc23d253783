"""The slow reference, Hypothesis strategies, and conformance checks for users' own extensions are here.

Each is a module of its own, imported when it is first asked for; the strategies need the extra ``testing``.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

    from pcgraph.testing import conformance, reference, strategies

__all__ = ["conformance", "reference", "strategies"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> "ModuleType":
        if name in __all__:
            return importlib.import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
