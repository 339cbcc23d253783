"""What goes away says so for a minor version at least, keeps working, and is gone when it was said to be."""

from __future__ import annotations

import importlib
import pkgutil

import pytest
from packaging.version import Version

import pcgraph
from pcgraph import deprecation
from pcgraph.deprecation import DEPRECATED, deprecated, renamed
from pcgraph.errors import PCGraphDeprecated, PCGraphWarning


@pytest.fixture(autouse=True)
def _none_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deprecation, "DEPRECATED", {})


def test_nothing_is_there_longer_than_was_said() -> None:
    """Whoever releases a version has to remove what it was to be without."""
    for module in pkgutil.walk_packages(pcgraph.__path__, "pcgraph."):
        if not module.name.startswith("pcgraph.backends.triton."):
            importlib.import_module(module.name)
    late = {what: gone for what, gone in DEPRECATED.items() if what.startswith("pcgraph.")}
    assert not {what for what, gone in late.items() if Version(gone) <= Version(pcgraph.__version__)}


def test_a_function_works_and_warns_where_it_is_called() -> None:
    @deprecated(since="0.2.0", gone="0.4.0", instead="new(x)")
    def old(x: int, *, y: int = 1) -> int:
        """Add."""
        return x + y

    with pytest.warns(
        PCGraphDeprecated, match=r"old is deprecated since 0.2.0 and is gone in 0.4.0; use new\(x\)"
    ) as w:
        assert old(1, y=2) == 3
    assert w[0].filename == __file__
    assert ".. deprecated:: 0.2.0" in (old.__doc__ or "")
    assert issubclass(
        PCGraphDeprecated, PCGraphWarning | FutureWarning
    )  # which python shows, unlike DeprecationWarning


def test_a_class_is_marked_at_its_init() -> None:
    class Old:
        @deprecated(since="0.2.0", gone="0.3.0", instead="New()")
        def __init__(self) -> None:
            self.made = True

    with pytest.warns(PCGraphDeprecated, match=r"Old is deprecated"):
        assert Old().made


def test_an_old_name_of_an_argument_is_taken_and_never_beside_the_new_one() -> None:
    @renamed("0.2.0", "0.4.0", rate="lr")
    def move(lr: float) -> float:
        return lr

    assert move(lr=1.0) == move(1.0) == 1.0
    with pytest.warns(PCGraphDeprecated, match=r"move\(rate=\).*use lr="):
        assert move(rate=2.0) == 2.0
    with pytest.raises(TypeError, match="give lr= alone"):
        move(rate=1.0, lr=2.0)


@pytest.mark.parametrize(
    ("since", "gone"), [("0.2.0", "0.2.1"), ("0.2", "0.4.0"), ("0.4.0", "0.2.0"), ("1.0.0", "1.0.0")]
)
def test_a_promise_that_is_too_short_is_refused(since: str, gone: str) -> None:
    with pytest.raises(ValueError, match="minor version|three numbers"):
        deprecated(since=since, gone=gone, instead="x")
    with pytest.raises(ValueError, match="minor version|three numbers"):
        renamed(since, gone, a="b")
