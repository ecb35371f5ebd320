"""Sealed blobs on disk, by the digest of their sealed bytes. Nothing here is ever plaintext.

A blob under way lies in `{digest}.part`, each chunk at its offset; after a restart its chunks are hashed again, so
there is no bitmap that could lie. A finished blob is renamed into place after fsync, so a file without `.part` is
whole, or a disk error that the next load will find.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from sync import chunks
from sync.errors import Damaged
from sync.manifest import Blob
from sync.names import Digest


class Rotten(Damaged):
    """A blob that was whole is missing or changed on this disk: the disk's fault, never a verdict on the release."""

    code = "blob-rotten"


class Artifacts:
    """The folder of sealed blobs of one device."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with contextlib.suppress(OSError):  # a disk that refuses: `put` makes it, or says why not
            self._make()

    def complete(self, blob: Blob) -> bool:
        path = self.folder / blob.sealed
        return path.exists() and path.stat().st_size == blob.length

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
        offset, _ = chunks.span(blob, index)
        self._make()
        descriptor = os.open(self._part(blob), os.O_CREAT | os.O_WRONLY, 0o600)
        try:
            written = 0
            while written < len(payload):  # a disk that fills up takes a part, and refuses the next
                written += os.pwrite(descriptor, payload[written:], offset + written)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def finish(self, blob: Blob) -> None:
        """All chunks are here: checks the digest of the whole and moves it into place.

        Raises Damaged if the whole does not match; the part is removed then, to be fetched anew. Raises OSError if
        the disk refuses.
        """
        part = self._part(blob)
        if chunks.digest(part.read_bytes()) != blob.sealed:
            part.unlink()
            raise Damaged(f"blob {blob.sealed[:12]}: chunks fit, the whole does not")
        part.replace(self.folder / blob.sealed)
        _sync_folder(self.folder)

    def read(self, blob: Blob) -> bytes:
        """The sealed bytes; raises Rotten if they are missing, unreadable or changed. What is no good is removed,
        to be fetched anew."""
        try:
            sealed = (self.folder / blob.sealed).read_bytes()
        except OSError as error:
            self._give_up(blob)
            raise Rotten(f"blob {blob.sealed[:12]}: {error.strerror}") from error
        if chunks.digest(sealed) != blob.sealed:
            self._give_up(blob)
            raise Rotten(f"blob {blob.sealed[:12]} changed on disk and is fetched anew")
        return sealed

    def discard(self, blob: Blob) -> None:
        """Removes a damaged blob, so that it is fetched again."""
        (self.folder / blob.sealed).unlink(missing_ok=True)

    def prune(self, keep: set[Digest]) -> None:
        """Removes everything that no deployment names any more; what the disk does not let go of stays till the next
        time."""
        for path in self._files():
            if path.name.removesuffix(".part") not in keep:
                with contextlib.suppress(OSError):  # room is not made: whoever needs it hears so from the disk
                    path.unlink()

    def have(self) -> tuple[Digest, ...]:
        """The finished blobs, by sealed digest."""
        return tuple(sorted(Digest(p.name) for p in self._files() if not p.suffix))

    def _make(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def _files(self) -> list[Path]:
        return list(self.folder.iterdir()) if self.folder.is_dir() else []

    def _give_up(self, blob: Blob) -> None:
        """A blob that stayed where it cannot be read would look complete for ever."""
        with contextlib.suppress(OSError):  # a disk that does not even unlink: `Rotten` is what is told
            self.discard(blob)

    def _part(self, blob: Blob) -> Path:
        return self.folder / f"{blob.sealed}.part"


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
