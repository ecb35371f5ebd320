"""A device that hears of a TUF repository by its link alone: every file is a message on its topic, the whole agent
takes them in, and what comes of it is what the agent does and tells. The repository may lie (`tests.edge.tuf_cases`).

Each case begins where those on files begin: releases 1 and 2 were accepted, release 3 is published and ordered. Nothing
serves here, for these releases have no models behind them: that serving goes on is tried in `tests/attacks`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from edge.agent import Identity
from edge.trust import Expired
from sync import codec, roles, topics
from sync.errors import Untrusted
from sync.link import Publish
from sync.loopback import Hub
from sync.messages import ASSIGNMENT_TYPE, Assignment, ModelOrder, TrustIndex
from sync.names import BadName, TrustFile
from tests.edge.device import Device
from tests.edge.tuf_cases import MODEL, Case, Files, Repository, digest_of, healed, key
from tests.edge.world import DAY, DEVICE, EPOCH, NOW, TENANT, new_identity

PATIENCE = 12  # seconds of story time in which bad or lacking files are asked for once more


@dataclass
class Line:
    """The broker, the core's session on it, and the device at its other end."""

    folder: Path
    identity: Identity
    seq: int = 0
    hub: Hub = field(default_factory=Hub)

    def __post_init__(self) -> None:
        self.link = self.hub.connect("core")
        self.link.start(lambda message: None, lambda up, why: None)
        self.device = Device(self, self.folder, self.identity)  # type: ignore[arg-type] - of a core it needs the broker

    def publish(self, files: Files) -> None:
        """Every file as a retained message, the timestamp after all it stands for, and the index that names them."""
        names = [name for name in sorted(files, key=lambda n: n == "timestamp.json") if _fits(name)]
        self._retain(topics.trust(TENANT, TrustFile("index")), b"")
        for topic in [t for t in self.hub.retained if "/trust/" in t and t.rsplit("/", 1)[1] not in names]:
            del self.hub.retained[topic]
        for name in names:
            self._retain(topics.trust(TENANT, TrustFile(name)), files[name])
        listed = tuple(TrustFile(name) for name in names if not name.endswith(".manifest"))
        self._retain(topics.trust(TENANT, TrustFile("index")), codec.encode(TrustIndex(listed)))

    def order(self, number: int, *, mode: str = "live") -> None:
        """Of the director that the first root names."""
        self.seq += 1
        order = ModelOrder(digest_of(number), number, {}, mode=mode)  # type: ignore[arg-type]
        wanted = Assignment(TENANT, DEVICE, EPOCH, self.seq, NOW, NOW + 7 * DAY, {MODEL: order})
        self._retain(topics.desired(TENANT, DEVICE), roles.sign(wanted, ASSIGNMENT_TYPE, key("director").private_bytes))

    def hear(self, done: Callable[[], bool], seconds: int = PATIENCE) -> bool:
        """Time passes on the device until `done`; whether it was."""
        for _ in range(seconds):
            if done():
                return True
            self.device.settle(1)
        return done()

    def takes_in(self, number: int) -> bool:
        """Whether the device comes to believe that release `number` is signed."""
        return self.hear(lambda: self.admitted == number)

    @property
    def admitted(self) -> int | None:
        """The release that was found among the signed ones, and is fetched."""
        d = self.device.house.deployments.get(MODEL)
        return d.candidate.release.number if d is not None and d.candidate is not None else None

    @property
    def codes(self) -> list[str]:
        """What was told since the device was switched on."""
        return [event.code for _, event in self.device.house.events.recent]

    @property
    def mark(self) -> dict[str, int]:
        return self.device.house.journal.high_water()

    def off(self) -> None:
        self.device.cut_power()

    def _retain(self, topic: str, payload: bytes) -> None:
        self.link.publish(Publish(topic, payload, retain=True))


def _fits(name: str) -> bool:
    """Whether a file can be a topic: what cannot is nowhere on the link."""
    with suppress(BadName):
        return bool(TrustFile(name))
    return False


@dataclass(frozen=True)
class Start:
    """Where the cases begin; each gets its own copy."""

    repo: Repository
    old: Files
    line: Line

    def at(self, folder: Path) -> tuple[Repository, Files, Line]:
        shutil.copytree(self.line.folder, folder)
        return self.repo.fork(), dict(self.old), Line(folder, self.line.identity, self.line.seq)


def begin(folder: Path) -> Start:
    repo = Repository.new()
    repo.release(1)
    old, line = dict(repo.files), joined(folder, repo)
    line.order(1)
    line.device.boot()
    assert line.takes_in(1)
    repo.targets.version += 1
    repo.release(2)
    line.publish(repo.files)
    line.order(2)
    assert line.takes_in(2)
    line.order(2, mode="off")
    assert line.hear(lambda: line.admitted is None)
    line.off()
    repo.targets.version += 1
    repo.release(3)
    return Start(repo, old, line)


def joined(folder: Path, repo: Repository) -> Line:
    """A device that enrolled just now, off, and what is published by now."""
    line = Line(folder, new_identity(repo.files["1.root.json"]))
    folder.mkdir(parents=True, exist_ok=True)
    line.publish(repo.files)
    return line


def attempt(case: Case, start: Start, folder: Path) -> None:
    """Runs one case to its end, as `tests.edge.tuf_cases.attempt` does on files."""
    repo, old, line = start.at(folder)
    honest = repo.fork() if case.heals and case.outcome else None
    asked = case.attack(repo, old) or 3
    line.publish(repo.files)
    line.order(asked)
    line.device.boot(link=False)
    mark = line.mark
    line.device.connect()
    try:
        if case.outcome is None:
            assert line.takes_in(asked), (line.codes, line.device.state.reason)
            assert all(line.mark[role] >= version for role, version in mark.items())
        else:
            refused(line, case, mark)
            if honest is not None:
                line.publish(healed(honest, repo))
                line.order(3)
                assert line.takes_in(3), (line.codes, line.device.state.reason)
    finally:
        line.off()


def refused(line: Line, case: Case, mark: dict[str, int]) -> None:
    """Nothing was accepted, one alarm says so where it is a verdict, and the mark stands. A root may have been
    followed, for it is verified by itself, and then what the keys that it takes away had signed is forgotten."""
    code = {Untrusted: "refused-untrusted", Expired: "trust-expired"}.get(case.outcome or Untrusted, "")
    line.hear(lambda: code in line.codes, 7)
    assert line.admitted is None
    assert [c for c in line.codes if c in ("refused-untrusted", "trust-expired")] == ([code] if code else [])
    assert code == "refused-untrusted" or "has not arrived" in line.device.state.reason or code in line.codes
    followed = line.mark["root"] > mark["root"]
    assert line.mark.items() - {("root", line.mark["root"])} <= mark.items() if followed else line.mark == mark
