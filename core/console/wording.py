"""How the pages say things: times, sizes, shares, and a level and a word for every state. Pure.

A level is never shown by colour alone: each badge carries its word, each row its sign.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from sync.names import Digest

Level = Literal["ok", "busy", "plain", "notice", "alarm"]

AGES = 100 * 365.25 * 86_400.0  # seconds; a clock that is further off was never set
_STEPS = ((86_400.0, "day", "days"), (3_600.0, "h", "h"), (60.0, "min", "min"))


@dataclass(frozen=True)
class Badge:
    """A state in one word, and how much it matters."""

    level: Level
    word: str


@dataclass(frozen=True)
class Moment:
    """A time for people and, in full (ISO 8601, UTC), for whoever asks."""

    iso: str
    relative: str

    @property
    def clock(self) -> str:
        """`2027-01-15 08:00 UTC`."""
        return f"{self.iso[:10]} {self.iso[11:16]} UTC" if self.iso else ""


def moment(ts: float | None, now: float) -> Moment | None:
    """None where there is no time yet (None or 0). A time of a device's own making may be no date at all."""
    if not ts:
        return None
    try:
        iso = datetime.fromtimestamp(ts, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return Moment("", f"second {ts:g}")
    return Moment(iso, relative(ts, now))


def relative(ts: float, now: float) -> str:
    """`just now`, `3 min ago`, `in 5 days`. Coarse on purpose: a page that does not change is not redrawn."""
    away = abs(now - ts)
    if away > AGES:
        return "at no known time"
    for seconds, one, many in _STEPS:
        if away >= seconds:
            count = int(away // seconds)
            text = f"{count} {one if count == 1 else many}"
            return f"in {text}" if ts > now else f"{text} ago"
    return "in a moment" if ts > now else "just now"


def duration(seconds: float) -> str:
    """`8 s`, `2 min 05 s`, `1 h 10 min`."""
    whole = int(max(0.0, seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size(count: int) -> str:
    """Bytes in decimal units: `812 B`, `41.3 kB`, `4.0 MB`."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def share(value: float) -> str:
    """`97.4 %`."""
    return f"{100 * value:.1f} %"


def count(value: int) -> str:
    """Thousands apart by a narrow space: `12 408`."""
    return f"{value:,}".replace(",", "\u202f")


def sentence(text: str) -> str:
    """With a capital letter and a full stop."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) or not text else ".")


def plural(value: int, one: str, many: str = "") -> str:
    """`1 block`, `1 240 blocks`."""
    return f"{count(value)} {one if value == 1 else many or one + 's'}"


def share_of(right: int, labels: int) -> str:
    """`97.4 %`, or nothing where there is nothing to be right about."""
    return share(right / labels) if labels else ""


def short(digest: Digest) -> str:
    """Enough of a digest to tell releases apart by eye."""
    return digest[:10]


_STATUS: dict[str, Badge] = {
    "online": Badge("ok", "online"),
    "stopped": Badge("notice", "stopped"),
    "offline": Badge("alarm", "offline"),
    "unknown": Badge("notice", "never seen"),
}

_PHASES: dict[str, Badge] = {
    "no_model": Badge("plain", "no model"),
    "steady": Badge("ok", "steady"),
    "fetching": Badge("busy", "fetching"),
    "staged": Badge("busy", "staged"),
    "proving": Badge("busy", "proving"),
    "shadow": Badge("busy", "shadow"),
    "probation": Badge("busy", "probation"),
    "live_split": Badge("ok", "several answer"),
    "reverting": Badge("alarm", "reverting"),
}

_KEYS: dict[str, Badge] = {
    "none": Badge("notice", "keys unprotected"),
}

_BARRED: dict[str, Badge] = {
    "revoked": Badge("plain", "revoked"),
    "replaced": Badge("notice", "waits for its new box"),
    "cloned": Badge("alarm", "seen twice, stopped"),
}

_ROLLOUT: dict[str, Badge] = {
    "approved": Badge("busy", "approved"),
    "shadow": Badge("busy", "shadow"),
    "split": Badge("busy", "A/B"),
    "paused": Badge("alarm", "paused"),
    "canary": Badge("busy", "canary"),
    "ramp": Badge("busy", "ramp"),
    "complete": Badge("ok", "complete"),
    "reversing": Badge("alarm", "reversing"),
    "reversed": Badge("alarm", "reversed"),
    "superseded": Badge("plain", "superseded"),
}

_RELEASE: dict[str, Badge] = {
    "staged": Badge("notice", "waits for approval"),
    "approved": Badge("ok", "approved"),
    "automatic": Badge("ok", "signed automatically"),
    "revoked": Badge("plain", "revoked"),
}

_JOB: dict[str, Badge] = {
    "queued": Badge("plain", "queued"),
    "running": Badge("busy", "running"),
    "done": Badge("ok", "done"),
    "failed": Badge("alarm", "failed"),
}

_SEVERITY: dict[str, Badge] = {
    "info": Badge("plain", "info"),
    "notice": Badge("notice", "notice"),
    "alarm": Badge("alarm", "alarm"),
}

_DECISION: dict[str, Badge] = {
    "harm": Badge("alarm", "worse"),
    "safe": Badge("ok", "safe"),
    "hold": Badge("busy", "undecided"),
}

_CRITERIA = {
    "worse-than-incumbent": "It did worse than the release before it",
    "guardrail": "It broke a guardrail",
    "crash-loop": "The agent kept ending while it was on trial",
    "golden-mismatch": "It did not give the answers it was released with",
    "profile-exceeded": "It was slower or larger than its profile allows",
    "prove-deadline": "It ran too long in its proof",
    "prove-crashed": "It crashed in its proof",
    "not-finite": "It gave figures that are no numbers",
}


def criterion(code: str) -> str:
    """A criterion of a why card in words; one of a newer agent is read as it is spelt."""
    return _CRITERIA.get(code, code.replace("-", " ").capitalize())


_TABLES = {
    "status": _STATUS, "phase": _PHASES, "keys": _KEYS, "rollout": _ROLLOUT, "release": _RELEASE, "job": _JOB,
    "severity": _SEVERITY, "decision": _DECISION, "barred": _BARRED,
}  # fmt: skip


def badge(table: str, word: str) -> Badge:
    """The badge of a state. A word of a newer agent that is not known here is shown as it came, as a notice."""
    return _TABLES[table].get(word, Badge("notice", word))
