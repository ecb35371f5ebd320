"""Tables and config beside the releases: fetched as the director names them, checked against what the releases here
declare, swapped in as a whole. The version before stays on disk; one that is refused changes nothing.

Level-triggered like all else: each walk compares what the newest assignment names with what is in force.
"""

from __future__ import annotations

from msgspec.structs import replace

from edge.agent import fetching, loading
from edge.agent.house import House
from edge.agent.pieces import Turned
from edge.artifacts import Rotten
from edge.states import HeldPiece
from sync.errors import SyncError, Unfit
from sync.lookups import LIMIT, Config, Table, check, check_config, decode, decode_config, takes
from sync.manifest import Lookup, Manifest
from sync.messages import Assignment
from sync.names import LookupName
from sync.pieces import Piece, PieceReport

CONFIG = "@config"  # among the tables; no table can be called so
SEALED = 2 * LIMIT  # bytes of a sealed one: more than sealing adds. The director alone must not fill a disk


def resume(house: House, now: float) -> None:
    """What was in force before the restart is in force again, opened and checked anew; else the version before it."""
    for name, held in house.journal.pieces().items():
        house.pieces.held[name] = held
        try:
            if held.current is not None:
                _put_in_force(house, name, held)
        except SyncError as error:
            house.events.report(now, "piece-lost", f"{_called(name)}: {error}; it is fetched anew", severity="alarm")
            house.pieces.held[name] = HeldPiece(None, held.previous)
            _fall_back(house, name, held.previous, now)


def gather(house: House, now: float) -> None:
    """Moves every table and the config towards what the newest assignment names."""
    assignment = house.assignment
    if assignment is None:
        return
    wanted = _wanted(assignment)
    for sealed in house.pieces.gathers - {piece.blob.sealed for piece in wanted.values()}:
        fetching.drop(house, sealed)
        house.pieces.gathers.discard(sealed)
    house.pieces.turned = {name: turned for name, turned in house.pieces.turned.items() if name in wanted}
    for name in [*house.pieces.held.keys() - wanted.keys()]:
        if not _asked_for(house, name):
            _forget(house, name)
    for name, piece in wanted.items():
        held = house.pieces.held.get(name, HeldPiece())
        if held.current is not None and held.current.blob.sealed == piece.blob.sealed:
            _confirm(house, name, held, piece)
        elif now <= assignment.expires and not house.clock_is_off(now):
            _advance(house, name, held, piece, now)


def reports(house: House) -> tuple[dict[LookupName, PieceReport], PieceReport | None]:
    """What the core is told: of the tables, and of the config."""
    found = {}
    for name in sorted(house.pieces.held.keys() | house.pieces.turned.keys()):
        current = house.pieces.held.get(name, HeldPiece()).current
        refused = house.pieces.turned[name].reason if name in house.pieces.turned else ""
        found[name] = PieceReport(current.version, current.as_of, refused) if current else PieceReport(0, 0.0, refused)
    config = found.pop(CONFIG, None)
    return {LookupName(name): report for name, report in found.items()}, config


def _wanted(assignment: Assignment) -> dict[str, Piece]:
    tables = {str(name): piece for name, piece in assignment.lookups.items()}
    return tables if assignment.config is None else {**tables, CONFIG: assignment.config}


def _called(name: str) -> str:
    return "the config" if name == CONFIG else f"lookup {name}"


def _confirm(house: House, name: str, held: HeldPiece, piece: Piece) -> None:
    """The same bytes again: perhaps looked at more recently, or wrapped anew."""
    house.pieces.turned.pop(name, None)
    if piece == held.current:
        return
    _write(house, name, replace(held, current=piece))
    if name != CONFIG:
        house.pieces.lookups.confirm(LookupName(name), piece.as_of)


def _advance(house: House, name: str, held: HeldPiece, piece: Piece, now: float) -> None:
    """1. bytes; 2. open and check; 3. journal; 4. in force. A release that comes later may accept what was refused."""
    turned, here = house.pieces.turned.get(name), frozenset((m.model, m.number) for m in _manifests(house))
    refused_before = turned is not None and (turned.piece, turned.here) == (piece, here)
    if refused_before or house.pieces.waits.holds(name, now):
        return
    try:
        if piece.blob.length > SEALED:
            raise Unfit(f"it has {piece.blob.length} bytes, {SEALED} are allowed")
        if not house.artifacts.complete(piece.blob):
            house.pieces.gathers.add(piece.blob.sealed)
            fetching.under_way(house, piece.blob, now)
            if not house.artifacts.complete(piece.blob):
                return
        house.pieces.gathers.discard(piece.blob.sealed)
        _take_up(house, name, held, piece, now)
    except OSError as error:
        _put_off(house, name, "disk-refused", f"{_called(name)} is not kept: {error.strerror}", now)
    except Rotten as error:  # what rotted is gone: it is lacking at the next try
        _put_off(house, name, error.code, f"{_called(name)}: {error}", now)
    except SyncError as error:
        house.pieces.turned[name] = Turned(piece, here, str(error))
        house.dirty = True
        text = f"{_called(name)} {piece.version}: {error}; version {held.current.version if held.current else 0} stays"
        house.events.report(now, f"refused-{error.code}", text, severity="alarm")


def _put_off(house: House, name: str, code: str, text: str, now: float) -> None:
    if house.pieces.waits.put_off(name, code, now):
        house.events.report(now, code, text, severity="alarm")


def _take_up(house: House, name: str, held: HeldPiece, piece: Piece, now: float) -> None:
    """Raises SyncError, and nothing has changed; OSError where the disk refuses."""
    content = _opened(house, name, piece)
    _check(house, name, content)
    after = HeldPiece(piece, _beside(house, name, held, content))
    _write(house, name, after)
    _put_in_force(house, name, after, content)
    house.pieces.turned.pop(name, None)
    house.pieces.waits.drop(name)
    house.blocked.hurry()  # a release may have waited for just this
    fetching.prune(house)
    if name == CONFIG:
        house.events.report(now, "config-applied", f"config {piece.version} is in force", version=piece.version)
    else:
        house.events.report(now, "lookup-applied", f"lookup {name} {piece.version} is in force", version=piece.version)


def _beside(house: House, name: str, held: HeldPiece, content: Table | Config) -> Piece | None:
    """What stays beside a new version: the one before, or an older one that a release here still answers with, because
    it takes neither of the newer two."""
    if isinstance(content, Config):
        return held.current or held.previous
    tables = [(piece, _before(house, name, piece)) for piece in (held.current, held.previous)]
    for lookup in (one for one in _declared(house) if one.name == name and not takes(one, content)):
        for piece, found in tables:
            if found is not None and takes(lookup, found[0]):
                return piece
    return held.current or held.previous


def _opened(house: House, name: str, piece: Piece) -> Table | Config:
    plain = loading.open_blob(house, piece.blob, piece.key, LIMIT)
    if name == CONFIG:
        return decode_config(plain)
    table = decode(plain)
    if table.name != name:
        raise Unfit(f"it is the table {table.name}, and was named {name}")
    return table


def _check(house: House, name: str, content: Table | Config) -> None:
    """Raises Unfit for a table that no release here accepts which asks for it, and for a config that one does not."""
    manifests = _manifests(house)
    if isinstance(content, Config):
        for manifest in manifests:
            check_config(content, manifest.variables)
            if why := loading.config_complaint(manifest, content):
                raise Unfit(f"bindings of {manifest.model} cannot be under it: {why}")
        return
    said = []
    for lookup in (one for one in _declared(house) if one.name == name):
        try:
            check(content, lookup)
            return
        except Unfit as error:
            said.append(error)
    if said:
        raise said[0]


def _put_in_force(house: House, name: str, held: HeldPiece, content: Table | Config | None = None) -> None:
    assert held.current is not None
    content = _opened(house, name, held.current) if content is None else content
    if isinstance(content, Config):
        house.pieces.lookups.config, house.pieces.lookups.config_version = content, held.current.version
        house.outside.bindings_changed()
    else:
        numbers = held.current.version, held.previous.version if held.previous is not None else 0
        house.pieces.lookups.put(content, held.current.as_of, _before(house, name, held.previous), numbers)


def _before(house: House, name: str, previous: Piece | None) -> tuple[Table, float] | None:
    """The version before, where it still opens: only a release that does not accept the newest one wants it."""
    try:
        content = _opened(house, name, previous) if previous is not None else None
    except SyncError:
        return None
    return (content, previous.as_of) if previous is not None and isinstance(content, Table) else None


def _fall_back(house: House, name: str, previous: Piece | None, now: float) -> None:
    try:
        if previous is not None:
            _put_in_force(house, name, HeldPiece(previous))
    except SyncError as error:
        text = f"{_called(name)} {previous and previous.version}: {error}"
        house.events.report(now, "piece-lost", text, severity="alarm")


def _asked_for(house: House, name: str) -> bool:
    """Whether a release here asks for this table, named or not: the release that comes may need none, and the one that
    serves, and those to go back to, answer with it until they are gone."""
    return name != CONFIG and any(lookup.name == name for lookup in _declared(house))


def _forget(house: House, name: str) -> None:
    """The newest assignment names it no more, and nobody here asks for it."""
    house.journal.put_piece(name, None)
    del house.pieces.held[name]
    if name == CONFIG:
        house.pieces.lookups.config, house.pieces.lookups.config_version = Config({}), 0
        house.blocked.hurry()
        house.outside.bindings_changed()
    else:
        house.pieces.lookups.drop(LookupName(name))
    house.dirty = True


def _write(house: House, name: str, held: HeldPiece) -> None:
    """Journal first."""
    house.journal.put_piece(name, held)
    house.pieces.held[name] = held
    house.dirty = True


def _declared(house: House) -> list[Lookup]:
    """How the releases here ask for tables, those that serve first."""
    return [lookup for manifest in _manifests(house) for lookup in manifest.lookups]


def _manifests(house: House) -> list[Manifest]:
    there = house.deployments.values()
    slots = (*(d.serving for d in there), *(slot for d in there for slot in (d.candidate, *d.previous)))
    return [slot.manifest for slot in slots if slot is not None]
