"""What a steward says to its broker, in its order; chunks of blobs one by one, as the broker confirms those before.

A broker that lost its store is given all again that devices may need, which may be more than the memory of this
machine. So a chunk is read from the disk when its turn comes, and while WINDOW messages are not confirmed its turn does
not come. What was said after it waits behind it: an assignment shall not come before what it points at.

While there is no session, what the broker shall keep is not held here: all of it is said anew to the next one. What it
shall not keep, as a command or labels, nobody says twice: that waits for the session.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from sync.errors import Damaged
from sync.link import Publish
from sync.names import Digest

WINDOW = 64  # messages the broker has not confirmed, from which on no chunk is read: 6 MiB of chunks of 96 KiB
HELD = 1_000  # messages that wait while there is no session; the oldest go first

Unreadable = Callable[[Digest, str], None]


class Outgoing:
    """The queue before a link, at first without a session; used by one thread. `unconfirmed` says how many messages the
    broker has not confirmed, `unreadable` is told of a blob of which a chunk could not be read, and why; the rest of it
    stays here."""

    def __init__(
        self, publish: Callable[[Publish], None], unconfirmed: Callable[[], int], unreadable: Unreadable,
        window: int = WINDOW,
    ) -> None:  # fmt: skip
        self._publish, self._unconfirmed, self._unreadable, self._window = publish, unconfirmed, unreadable, window
        self._queue: deque[Publish | tuple[Digest, Iterator[Publish]]] = deque()
        self._up = False

    @property
    def waiting(self) -> bool:
        """Whether anything has not gone out."""
        return bool(self._queue)

    def say(self, message: Publish) -> None:
        """At once, where nothing waits before it; without a session not at all, if the broker shall keep it."""
        if self._up and not self._queue:
            self._publish(message)
        elif self._up or not message.retain:
            self._queue.append(message)
            if not self._up and len(self._queue) > HELD:
                self._queue.popleft()

    def stream(self, digest: Digest, chunks: Iterator[Publish]) -> None:
        """Chunks of one blob; `next` on them reads one from the disk, or raises Damaged. Without a session: none."""
        if self._up:
            self._queue.append((digest, chunks))

    def link_changed(self, up: bool) -> None:
        """The session came or went: of what waited, only what nobody says anew is left, the newest HELD of it."""
        self._up = up
        once = [said for said in self._queue if isinstance(said, Publish) and not said.retain]
        self._queue = deque(once[-HELD:])

    def step(self) -> None:
        """Sends what may go now; to be called when something was added or confirmed, while the session is up."""
        while self._queue:
            head = self._queue[0]
            if isinstance(head, Publish):
                self._publish(head)
                self._queue.popleft()
            elif self._unconfirmed() >= self._window:
                return
            elif (chunk := self._next(*head)) is not None:
                self._publish(chunk)
            else:
                self._queue.popleft()

    def _next(self, digest: Digest, chunks: Iterator[Publish]) -> Publish | None:
        try:
            return next(chunks, None)
        except Damaged as error:
            self._unreadable(digest, str(error))
            return None
