"""Trust files and roots: how they come in, which root is believed, and whose orders count by it. What is known of
them lies in `news`; what a release needs of them `fetching` asks for, what they revoke `revoking` looks after."""

from __future__ import annotations

from contextlib import suppress

from edge import roots
from edge.agent.house import House
from edge.roots import TRUST_FILE_LIMIT
from sync import codec, roles, topics
from sync.errors import Malformed, SyncError, Untrusted
from sync.messages import TrustIndex
from sync.names import BadName, ModelName, TrustFile
from sync.topics import Address

TRUST_FILES = 1024  # how many at most are held ...
TRUST_BYTES = 8 * 1024 * 1024  # ... and how much of them: a broker must not fill the memory of a small box


def take(house: House, address: Address, payload: bytes, now: float) -> None:
    """One trust file, or the index of them, as the broker hands it out."""
    trust = house.trust
    name = str(address.file)
    if name == "index":
        before, trust.index = trust.index, _index(payload)
        trust.news.unread = True
        # It changes with the index; once asked for it is heard, but a broker drops what a slow line holds up.
        if "timestamp.json" not in trust.files or trust.index != before:
            house.listen(topics.trust(address.tenant, TrustFile("timestamp.json")))
        return
    if len(payload) > TRUST_FILE_LIMIT:
        raise Untrusted(f"trust file {name} has {len(payload)} bytes, {TRUST_FILE_LIMIT} are allowed")
    others = [len(data) for held, data in trust.files.items() if held != name]
    if len(others) >= TRUST_FILES or sum(others) + len(payload) > TRUST_BYTES:
        trust.files.clear()  # so that a flood does not keep the real ones out for good
        raise Untrusted(f"more than {TRUST_FILES} trust files or {TRUST_BYTES} bytes came; they are asked for again")
    if payload:
        # The timestamp is published after all it stands for: with older files a new root would seem not to fit.
        other = trust.files.get(name) != payload
        trust.news.unread |= name == "timestamp.json" and other
        trust.news.came += other
        trust.files[name] = payload
    if name.endswith(".root.json"):
        follow_roots(house, now)
    # The timestamp changes under its name, and the next root is waited for as long as the device lives.
    if name not in ("timestamp.json", roots.next_root(trust.root)):
        house.unlisten(topics.trust(address.tenant, address.file))  # type: ignore[arg-type]


def refuse(house: House, error: SyncError, now: float, model: ModelName | None = None, **facts: str) -> None:
    """Trust files that do not hold: told once, however often somebody hands them out, until some hold again."""
    if house.trust.news.first(error):
        house.events.complain(now, f"refused-{error.code}", str(error), model, "alarm", **facts)


def expired(house: House, error: SyncError, now: float, model: ModelName | None = None) -> None:
    """Trust files whose time is over: no verdict, but somebody may keep newer ones back; told once as well."""
    if house.trust.news.first(error):
        house.events.complain(now, "trust-expired", str(error), model)


def lacks_roots(house: House) -> bool:
    """Whether a newer root was trusted once than any that is known: the journal lost it."""
    return roots.trusted(house.trust.root).version < house.journal.high_water().get("root", 0)


def directors(house: House) -> roles.Keys:
    """Whose word counts; raises Untrusted while nobody knows whom the root that was lost had taken away."""
    if lacks_roots(house):
        raise Untrusted("the newest root that was trusted here is lost: nobody is believed before it came again")
    return roots.director_keys(house.trust.root)


def tidy(house: House) -> None:
    """Once the files were read: what neither the index nor an order names is not read again."""
    trust, assignment = house.trust, house.assignment
    orders = assignment.models.values() if assignment else ()
    manifests = (digest for order in orders for digest in (order.manifest, *(arm.manifest for arm in order.arms)))
    named = {name for name in trust.index if not name.endswith(".manifest")}
    named |= {"timestamp.json", roots.next_root(trust.root), *(f"{digest}.manifest" for digest in manifests)}
    trust.files = {name: data for name, data in trust.files.items() if name in named}


def follow_roots(house: House, now: float) -> None:
    """Takes up newer roots as they arrive, with an order or without: the director's key changes with them."""
    try:
        root = roots.newer_root(house.trust.root, house.trust.files)
    except Untrusted:
        house.trust.files.pop(roots.next_root(house.trust.root), None)
        raise
    adopt(house, root, now)


def adopt(house: House, root: bytes, now: float) -> None:
    """A root that was verified: journalled with the mark under it, then in force."""
    trust = house.trust
    if root == trust.root:
        return
    lost = lacks_roots(house)
    replaced = roots.director_replaced(trust.root, root) and not lost  # else that was done when it was trusted first
    if replaced:
        trust.void = house.journal.assignment() or b""
    house.journal.adopt(root, roots.settled(house.journal.high_water(), trust.root, root), orders_void=replaced)
    trust.root = root
    house.dirty = True
    house.listen(topics.trust(house.identity.tenant, roots.next_root(root)))
    if replaced or lost:
        house.listen(topics.desired(house.identity.tenant, house.identity.device))  # sent anew, and read by the new key
    if replaced:
        house.assignment = None
        house.events.report(
            now, "director-replaced", "a new root names another director; its orders count", severity="notice"
        )


def known_root(house: House) -> bytes:
    """The newest root that this device trusted. Where the journal's cannot be read: the newest that a release held here
    was accepted under, else the enrolment's."""
    kept, found = house.journal.root(), [house.identity.root]
    if kept is not None:
        try:
            roots.trusted(kept)
            return kept
        except Untrusted as error:
            house.journal.lose_root(str(error))
    if not house.journal.high_water():
        return house.identity.root
    for root in house.journal.accepted_roots():
        with suppress(Untrusted):
            roots.trusted(root)
            found.append(root)
    return max(found, key=lambda root: roots.trusted(root).version)


def _index(payload: bytes) -> tuple[str, ...]:
    """The hint is unsigned: a name in it that is no file name must not get any further."""
    files = codec.decode(TrustIndex, payload).files[:TRUST_FILES]
    try:
        return tuple(TrustFile(name) for name in files)
    except BadName as error:
        raise Malformed(f"trust index: {error}") from error
