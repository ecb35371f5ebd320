"""A folder on a stick as a store of files, one a topic: what is written is whole, what is read is believed in nothing.

A stick comes from anywhere. Every name is checked before it is opened, no link is followed below the folder that was
given, only plain files are read and none beyond its size, and what has no business there is left alone and told. A
file appears under its name when it is on the disk (temporary name, fsync, rename).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from appliance.errors import Trouble
from appliance.screen import visible
from sync.carried import limit_of
from sync.durable import NO_FLUSH
from sync.names import TenantId
from sync.topics import ROOT

MOST = 500_000  # files of one tenant that are looked at
UNFINISHED = ".new"  # the end of a name that a cut write leaves behind
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class StickFailed(Trouble):
    """The folder cannot be used, or not any more; what was written before is whole."""


class StickFull(StickFailed):
    """There is no room for what is to be written."""


class NotTaken(Exception):
    """A file that is not what it must be: a link, a device, a folder, too large. Nothing of it was read."""


class Stick:
    """The files of one tenant below `place`; names are topics below the tenant. `refused` tells what was not taken
    (name, as it may be shown -> why). `caution` is empty, or what a person must know of this kind of disk: some (FAT
    over a network, SMB, shared folders of virtual machines) cannot be told to put a folder's entries on the disk."""

    def __init__(self, place: Path, tenant: TenantId, flush: Callable[[int], None] = os.fsync) -> None:
        """`flush` puts the entries of an open folder on the disk."""
        if not place.is_dir():
            raise StickFailed(f"{place} is no folder: put the stick in and mount it, or make the folder first")
        self.place, self.tenant = place, tenant
        self.refused: dict[str, str] = {}
        self.caution = ""
        self._flush = flush

    def read(self, name: str) -> bytes | None:
        """The content; None if there is no such file, or none that may be read (then `refused` says so)."""
        limit = limit_of(name)
        if limit is None:
            self.refused[visible(name)] = "no name of ours"
            return None
        *folders, last = name.split("/")
        try:
            with self._folder(folders) as folder:
                return _content(folder, last, limit)
        except FileNotFoundError:
            return None
        except NotTaken as error:
            self.refused[name] = str(error)
        except OSError as error:
            if error.errno == errno.EIO:
                raise self._failed("reading", error) from error
            self.refused[name] = error.strerror or str(error)
        return None

    def write(self, name: str, content: bytes) -> bool:
        """Puts the file there, whole or not at all; False if it lay there already. Raises StickFailed."""
        limit = limit_of(name)
        if limit is None or len(content) > limit:
            raise ValueError(f"{name}: {len(content)} bytes are nothing that may lie in a folder")
        if self.read(name) == content:
            return False
        *folders, last = name.split("/")
        try:
            with self._folder(folders, make=True) as folder:
                _put(folder, last, content)
                self._settle(folder)
        except (OSError, NotTaken) as error:
            raise self._failed(f"writing {name}", error) from error
        self.refused.pop(name, None)
        return True

    def remove(self, name: str) -> None:
        """Takes the file away, if it is there. Raises StickFailed."""
        *folders, last = name.split("/")
        try:
            with suppress(FileNotFoundError), self._folder(folders) as folder:
                os.unlink(last, dir_fd=folder)
        except (OSError, NotTaken) as error:
            raise self._failed(f"removing {name}", error) from error

    def names(self, below: str = "") -> list[str]:
        """The names of all files that may be read, in order; what else lies there is told in `refused`."""
        found: list[str] = []
        try:
            with self._folder(below.split("/") if below else []) as folder:
                self._survey(folder, f"{below}/" if below else "", found, 0)
        except FileNotFoundError:
            return []
        except NotTaken as error:
            self.refused[below] = str(error)
        except OSError as error:
            raise self._failed("reading", error) from error
        return sorted(found)

    def _survey(self, folder: int, prefix: str, found: list[str], depth: int) -> None:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda e: e.name):
                name = prefix + entry.name
                if len(found) + len(self.refused) > MOST:
                    raise StickFailed(f"more than {MOST} files lie in {self.place}: use a folder for Falaj alone")
                if entry.is_dir(follow_symlinks=False) and depth < 3:
                    try:
                        with _opened(entry.name, folder) as inner:
                            self._survey(inner, f"{name}/", found, depth + 1)
                    except (PermissionError, NotTaken) as error:  # one that is shut must not hide all others
                        self.refused[visible(name)] = getattr(error, "strerror", None) or str(error)
                elif entry.name.endswith(UNFINISHED):
                    continue
                elif not entry.is_file(follow_symlinks=False):
                    self.refused[visible(name)] = "no plain file"
                elif limit_of(name) is None:
                    self.refused[visible(name)] = "no name of ours"
                else:
                    found.append(name)

    @contextmanager
    def _folder(self, folders: list[str], *, make: bool = False) -> Iterator[int]:
        """The descriptor of a folder below the tenant's, reached without following a link."""
        current = os.open(self.place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in (*ROOT.split("/"), self.tenant, *folders):
                if make and _made(current, part):
                    self._settle(current)  # or what is flushed into it could be nowhere
                with _opened(part, current) as inner:
                    current, before = os.dup(inner), current
                os.close(before)
            yield current
        finally:
            os.close(current)

    def _settle(self, folder: int) -> None:
        """What is new in the folder is on the disk; a disk that does not know the order is a caution, one that fails is
        an error."""
        try:
            self._flush(folder)
        except OSError as error:
            if error.errno not in NO_FLUSH:
                raise
            self.caution = (
                f"{self.place} does not put folders on the disk when it is told to ({error.strerror}): unmount it "
                "before you take it away, or the newest files may be missing"
            )

    def _failed(self, doing: str, error: Exception) -> StickFailed:
        if getattr(error, "errno", None) == errno.ENOSPC:
            hint = "what was written before is whole: make room or take a larger one, and run the command again"
            return StickFull(f"{self.place}: {doing}: it is full; {hint}")
        why = getattr(error, "strerror", None) or str(error)
        return StickFailed(f"{self.place}: {doing}: {why}; what was written before is whole, run the command again")


@contextmanager
def _opened(name: str, folder: int) -> Iterator[int]:
    if name in ("", ".", ".."):
        raise NotTaken(f"{name!r} is no name of a folder")
    try:
        descriptor = os.open(name, _FOLDER, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise NotTaken(f"{visible(name)} is a link or no folder") from error
        raise
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _made(folder: int, name: str) -> bool:
    """Whether the folder was not there, and is now."""
    try:
        os.mkdir(name, 0o755, dir_fd=folder)
    except FileExistsError:
        return False
    return True


def _content(folder: int, name: str, limit: int) -> bytes:
    """Looked at before it is opened: to open a device can be to set it off."""
    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if not stat.S_ISREG(found.st_mode):
        raise NotTaken("no plain file")
    if found.st_size > limit:
        raise NotTaken(f"{found.st_size} bytes, {limit} are allowed")
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise NotTaken("no plain file")
        content = file.read(limit + 1)
    if len(content) > limit:
        raise NotTaken(f"more than {limit} bytes")
    return content


def _put(folder: int, name: str, content: bytes) -> None:
    new = f".{name}{UNFINISHED}"
    with suppress(FileNotFoundError):
        os.unlink(new, dir_fd=folder)
    descriptor = os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
    except OSError:  # on a full stick the part of it would take the room that is lacking
        with suppress(OSError):
            os.unlink(new, dir_fd=folder)
        raise
    os.replace(new, name, src_dir_fd=folder, dst_dir_fd=folder)
