"""One process at a time writes into a folder of checkpoints."""

from __future__ import annotations

import errno
import os
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from pcgraph.errors import CheckpointError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
try:
    import msvcrt
except ImportError:
    msvcrt = None  # type: ignore[assignment]

__all__ = ["LOCK", "FolderLock"]

LOCK = ".lock"
HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
NO_LINK = getattr(os, "O_NOFOLLOW", 0)
"""What a link leads to is somebody's file, and nothing is written into it."""
FAR = 1 << 20
"""Windows keeps others from reading a byte that is locked: it is one far behind the name of the holder."""

_guard = threading.Lock()


@dataclass
class _Hold:
    """Says which thread of this process holds a folder, how many times it has entered, and by which open file."""

    thread: int
    times: int
    file: int | None


_held: dict[str, _Hold] = {}


def _forget() -> None:
    """Let go, in a forked process, of what its parent holds: a lock lasts until the last copy of its file is closed."""
    global _guard
    _guard = threading.Lock()
    for hold in _held.values():
        if hold.file is not None:
            os.close(hold.file)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


class FolderLock:
    """Holds a folder for this thread while entered; entering again, as a save within a run does, is no conflict.

    The operating system drops the lock with the process that holds it, however that dies, so that what a killed run
    leaves behind is taken over without further ado. Forked processes, such as those of a DataLoader, do not hold it.
    Whoever enters again where the folder has been removed meanwhile takes it anew.

    Parameters
    ----------
    folder : Path
        It is made if need be; relative to where the process is when this is made.

    Raises
    ------
    CheckpointError
        Another process or thread holds it; or it cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self._path = os.path.realpath(folder)
        except OSError as error:  # the folder that it is relative to has been removed
            raise self._unwritable(error) from error
        self._lock = os.path.join(self._path, LOCK)

    def __enter__(self) -> FolderLock:
        me = threading.get_ident()
        with _guard:
            hold = _held.get(self._path)
            if hold is None:
                hold = _Hold(me, 0, self._acquire())
            elif hold.thread != me:
                raise self._taken("another thread of this process")
            elif hold.file is not None and not self._is_current(hold.file):
                taken = self._acquire()
                os.close(hold.file)
                hold.file = taken
            hold.times += 1
            _held[self._path] = hold
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _guard:
            hold = _held.get(self._path)
            if hold is None:
                return  # a forked process unwinds what its parent has entered
            hold.times -= 1
            if hold.times:
                return
            del _held[self._path]
            if hold.file is not None:
                if self._is_current(hold.file):
                    with suppress(OSError):
                        os.unlink(self._lock)  # while it is held: nobody else can have begun with this very file
                os.close(hold.file)

    def _acquire(self) -> int | None:
        while True:
            try:
                os.makedirs(self._path, exist_ok=True)
                file = os.open(self._lock, os.O_RDWR | os.O_CREAT | NO_LINK, 0o666)
            except OSError as error:
                raise self._unwritable(error) from error
            try:
                _lock(file)
            except OSError as error:
                holder = os.read(file, 200).decode(errors="replace")
                os.close(file)
                if error.errno in HELD:
                    raise self._taken(holder or "another process") from None
                return None  # this file system has no locks
            if self._is_current(file):
                with suppress(OSError):  # on a full disk, the others are not told by whom
                    os.truncate(file, 0)
                    os.write(file, f"process {os.getpid()} on {socket.gethostname()}".encode())
                return file
            os.close(file)  # the holder before has just removed it

    def _is_current(self, file: int) -> bool:
        """Say whether the file that is locked is the one that others will find."""
        try:
            return os.path.samestat(os.fstat(file), os.stat(self._lock))
        except OSError:  # it is gone, or its folder is
            return False

    def _unwritable(self, error: OSError) -> CheckpointError:
        return CheckpointError(
            f"the checkpoint cannot be written to {self.folder}: {error.strerror or error}. Give a folder that can be "
            "written to.",
            path=self.folder,
        )

    def _taken(self, by: str) -> CheckpointError:
        return CheckpointError(
            f"the folder {self.folder} is being written to by {by}: two runs in one folder would mix their "
            "checkpoints. Give each run a folder of its own, or wait for that one to end.",
            path=self.folder,
        )


def _lock(file: int) -> None:
    """Lock an open file, at once or not at all; a copy of the file that is opened and closed beside it does no harm.

    Raises
    ------
    OSError
        Another process holds it; or there are no locks here.
    """
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    elif msvcrt is not None:
        os.lseek(file, FAR, os.SEEK_SET)
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(file, 0, os.SEEK_SET)
    else:
        raise OSError(errno.ENOLCK, "this system has no locks")
