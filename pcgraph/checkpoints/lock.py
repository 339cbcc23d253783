"""One process at a time writes into a folder of checkpoints."""

from __future__ import annotations

import errno
import os
import socket
import threading
from contextlib import suppress
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
FAR = 1 << 20
"""Windows keeps others from reading a byte that is locked: it is one far behind the name of the holder."""

#: (process, folder) -> the thread that holds it, and how many times it has entered. A fork inherits the dict alone.
_held: dict[tuple[int, str], tuple[int, int]] = {}
_guard = threading.Lock()


class FolderLock:
    """Holds a folder for this thread while entered; entering again, as a save within a run does, is no conflict.

    The operating system drops the lock with the process that holds it, however that dies, so that what a killed run
    leaves behind is taken over without further ado. Forked processes, such as those of a DataLoader, do not hold it.

    Parameters
    ----------
    folder : Path
        It is made if need be.

    Raises
    ------
    CheckpointError
        Another process or thread holds it; or it cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = os.path.realpath(folder)
        self._key = (0, "")
        self._file: int | None = None

    def __enter__(self) -> FolderLock:
        me, self._key = threading.get_ident(), (os.getpid(), self._path)
        with _guard:
            holder, times = _held.get(self._key, (me, 0))
            if holder != me:
                raise self._taken("another thread of this process")
            if not times:
                self._file = self._acquire()
            _held[self._key] = (me, times + 1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _guard:
            holder, times = _held.pop(self._key)
            if times > 1:
                _held[self._key] = (holder, times - 1)
        if self._file is not None:
            with suppress(OSError):  # it may be gone, with its folder
                os.unlink(self.folder / LOCK)  # while it is held: nobody else can have begun with this very file
            os.close(self._file)
            self._file = None

    def _acquire(self) -> int | None:
        while True:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                file = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
            except OSError as error:
                raise CheckpointError(
                    f"the checkpoint cannot be written to {self.folder}: {error.strerror or error}. Give a folder that "
                    "can be written to.",
                    path=self.folder,
                ) from error
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
            return os.path.samestat(os.fstat(file), os.stat(self.folder / LOCK))
        except FileNotFoundError:
            return False

    def _taken(self, by: str) -> CheckpointError:
        return CheckpointError(
            f"the folder {self.folder} is being written to by {by}: two runs in one folder would mix their "
            "checkpoints. Give each run a folder of its own, or wait for that one to end.",
            path=self.folder,
        )


def _lock(file: int) -> None:
    """Lock an open file for this process, at once or not at all.

    Raises
    ------
    OSError
        Another process holds it; or there are no locks here.
    """
    if fcntl is not None:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    elif msvcrt is not None:
        os.lseek(file, FAR, os.SEEK_SET)
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(file, 0, os.SEEK_SET)
    else:
        raise OSError(errno.ENOLCK, "this system has no locks")
