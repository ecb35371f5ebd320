"""Files that are there whole or not at all, also after a power cut: the one room of all packages that knows how.

    a temporary name -> the content -> fsync -> rename -> fsync of the folder

Whoever reads finds the old content or the new, never a part; what is written is open to its owner alone. OSError means
that the disk refused: the name stands for the old content or the new one, whole either way. One writer at a time for a
name; the temporary that a cut left behind is replaced by the next write.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

UNFINISHED = ".tmp"  # the end of a name that a cut write leaves behind
# What a disk answers that cannot flush the entries of a folder: FAT over a network, SMB, shared folders of virtual
# machines. It keeps them as well as it can, and to refuse every write there would help nobody.
NO_FLUSH = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF})


def write_private(path: Path, content: bytes) -> None:
    """Puts the content in the place of what was there; folders that are missing are made, as private."""
    with writing(path) as file:
        file.write(content)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """As `write_private` for what is written piece by piece: it is there when the block ends, and not if it raises."""
    make_folder(path.parent)
    half = path.with_name(path.name + UNFINISHED)
    half.unlink(missing_ok=True)
    descriptor = os.open(half, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(descriptor)
        rename(half, path)
    except BaseException:
        with contextlib.suppress(OSError):  # what the disk refused before is what the caller hears of
            half.unlink(missing_ok=True)  # on a full disk it is the room that the next write needs
        raise


def rename(old: Path, new: Path) -> None:
    """Gives a file or folder another name in the same folder, in the place of what had it. Its content is the caller's
    to flush before."""
    old.replace(new)
    sync_folder(new.parent)


def make_folder(folder: Path) -> None:
    """Makes the folder and what is missing above it, open to the owner alone."""
    absent = itertools.takewhile(lambda path: not path.exists(), (folder, *folder.parents))
    for path in reversed(list(absent)):
        path.mkdir(mode=0o700, exist_ok=True)  # another process may have been first: just as good
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """What was named or removed in the folder is on the disk, as far as the disk knows how (`NO_FLUSH`)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_FLUSH:
            raise
    finally:
        os.close(descriptor)
