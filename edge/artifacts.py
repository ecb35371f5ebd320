"""Sealed blobs on disk, by the digest of their sealed bytes. Nothing here is ever plaintext.

A blob under way lies in `{digest}.part`, each chunk at its offset; after a restart its chunks are hashed again, so
there is no bitmap that could lie, and a chunk that a power cut took before it was flushed only comes once more. A
finished blob is flushed and then renamed into place, so a file without `.part` is whole, or a disk error that the next
load will find: each chunk fitted its digest in the signed manifest, and unsealing authenticates every byte once more.
The digest of the whole is taken only where that fails, to tell whose fault it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from io import BufferedIOBase
from pathlib import Path

from sync import chunks, durable
from sync.errors import Damaged
from sync.manifest import Blob
from sync.names import Digest

FLUSH = 16  # chunks between two flushes: what a power cut costs, and how long the last flush can take


class Rotten(Damaged):
    """A blob that was whole is missing or changed on this disk: the disk's fault, never a verdict on the release."""

    code = "blob-rotten"


class Artifacts:
    """The folder of sealed blobs of one device."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._unflushed: dict[Digest, int] = {}  # chunks of a part that were written since it was flushed
        with contextlib.suppress(OSError):  # a disk that refuses: `put` makes it, or says why not
            durable.make_folder(self.folder)

    def complete(self, blob: Blob) -> bool:
        try:
            return (self.folder / blob.sealed).stat().st_size == blob.length
        except (FileNotFoundError, NotADirectoryError):
            return False

    def present(self, blob: Blob) -> set[int]:
        """The chunks of an unfinished blob that are here and whole; what cannot be read is lacking."""
        found: set[int] = set()
        with contextlib.suppress(OSError), self._part(blob).open("rb") as file:
            for index in range(len(blob.hashes)):
                offset, length = chunks.span(blob, index)
                file.seek(offset)
                if chunks.fits(blob, index, file.read(length)):
                    found.add(index)
        return found

    def put(self, blob: Blob, index: int, payload: bytes) -> None:
        """Writes one chunk that was checked by `chunks.fits`; OSError if the disk refuses."""
        descriptor = self._open_part(blob)
        try:
            offset, written = index * blob.chunk, 0
            while written < len(payload):  # a disk that fills up takes a part, and refuses the next
                written += os.pwrite(descriptor, payload[written:], offset + written)
            unflushed = self._unflushed.pop(blob.sealed, 0) + 1
            if unflushed < FLUSH:
                self._unflushed[blob.sealed] = unflushed
            else:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def finish(self, blob: Blob) -> None:
        """All chunks are here: flushes the part and moves it into place. Raises OSError if the disk refuses."""
        self._unflushed.pop(blob.sealed, None)
        part = self._part(blob)
        descriptor = os.open(part, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        durable.rename(part, self.folder / blob.sealed)

    def opened(self, blob: Blob, unseal: Callable[[BufferedIOBase], bytes]) -> bytes:
        """What `unseal` makes of the file, which it reads once and authenticates byte by byte; only if it raises
        Damaged are they doubted, and it is asked again where they are as they were signed. Raises Rotten if they are
        missing, unreadable or changed, and what is no good is removed, to be fetched anew; else what it raised."""
        try:
            with (self.folder / blob.sealed).open("rb") as file:
                return _unsealed(blob, file, unseal)
        except OSError as error:
            self._give_up(blob)
            raise Rotten(f"blob {blob.sealed[:12]}: {error.strerror}") from error
        except Rotten:
            self._give_up(blob)
            raise

    def discard(self, blob: Blob) -> None:
        """Removes a damaged blob, so that it is fetched again."""
        (self.folder / blob.sealed).unlink(missing_ok=True)

    def prune(self, keep: set[Digest]) -> None:
        """Removes everything that no deployment names any more; what the disk does not let go of stays till the next
        time."""
        self._unflushed = {digest: count for digest, count in self._unflushed.items() if digest in keep}
        for path in self._files():
            if path.name.removesuffix(".part") not in keep:
                with contextlib.suppress(OSError):  # room is not made: whoever needs it hears so from the disk
                    path.unlink()

    def have(self) -> tuple[Digest, ...]:
        """The finished blobs, by sealed digest. What else lies there, as on the root of a disk, is none of ours."""
        return tuple(sorted(Digest(p.name) for p in self._files() if Digest.shape.fullmatch(p.name)))

    def _open_part(self, blob: Blob) -> int:
        flags = os.O_CREAT | os.O_WRONLY
        try:
            return os.open(self._part(blob), flags, 0o600)
        except FileNotFoundError:
            durable.make_folder(self.folder)
            return os.open(self._part(blob), flags, 0o600)

    def _files(self) -> list[Path]:
        return list(self.folder.iterdir()) if self.folder.is_dir() else []

    def _give_up(self, blob: Blob) -> None:
        """A blob that stayed where it cannot be read would look complete for ever."""
        with contextlib.suppress(OSError):  # a disk that does not even unlink: `Rotten` is what is told
            self.discard(blob)

    def _part(self, blob: Blob) -> Path:
        return self.folder / f"{blob.sealed}.part"


def _unsealed(blob: Blob, file: BufferedIOBase, unseal: Callable[[BufferedIOBase], bytes]) -> bytes:
    try:
        return unseal(file)
    except Damaged as error:
        file.seek(0)
        if hashlib.file_digest(file, "sha256").hexdigest() != blob.sealed:
            raise Rotten(f"blob {blob.sealed[:12]} changed on disk and is fetched anew") from error
    file.seek(0)
    return unseal(file)  # read anew: what a disk gave wrong once is no verdict on the release
