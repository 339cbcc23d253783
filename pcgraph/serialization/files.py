"""Write files whole, or not at all."""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pcgraph.arguments import shown
from pcgraph.errors import DataError

__all__ = ["is_there", "patiently", "require_writable", "write_whole"]

PAUSES = (0.05, 0.1, 0.2, 0.4) if os.name == "nt" else ()
"""Seconds between tries of what Windows refuses while a scanner or an indexer looks at a new file."""


def write_whole(path: str | Path, content: bytes, what: str) -> None:
    """Write a file so that, whatever happens, it holds what it held before or all of `content`; make its folder.

    Parameters
    ----------
    path : str or Path
    content : bytes
    what : str
        What the file is, in words, for the message.

    Raises
    ------
    DataError
        It cannot be written: a full disk, a read-only folder, a path that no file can have.
    """
    if not isinstance(path, str | Path):
        raise DataError(f"cannot write {what}: it needs a path, a str or Path (found {shown(path)})")
    try:
        target = Path(path).resolve()
        beside = target.with_name(f".{target.name[:100]}-{secrets.token_hex(8)}")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with beside.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            patiently(lambda: beside.replace(target))
        except OSError:
            beside.unlink(missing_ok=True)
            raise
    except (OSError, ValueError) as problem:  # a NUL in a path is a ValueError
        reason = getattr(problem, "strerror", None) or str(problem)
        raise DataError(f"cannot write {what} {path}: {reason}", path=path) from problem


def require_writable(folder: Path) -> None:
    """Find out whether files can be made in a folder, or in the one in which it would be made; nothing is left there.

    Raises
    ------
    OSError
        They cannot.
    """
    folder = folder.absolute()
    there = next(place for place in (folder, *folder.parents) if is_there(place))
    with tempfile.TemporaryFile(dir=there):  # which is more than its permissions say
        pass


def is_there(place: Path) -> bool:
    """Say whether anything has this name.

    Raises
    ------
    OSError
        Nothing can have it.
    """
    try:
        os.lstat(place)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def patiently(act: Callable[[], object]) -> None:
    """Do what renames or replaces; on Windows try again for a moment where somebody else has the file open.

    Raises
    ------
    OSError
        What the last try has raised; anywhere but on Windows it is the first.
    """
    for pause in PAUSES:
        try:
            act()
        except PermissionError:
            time.sleep(pause)
        else:
            return
    act()
