"""The API's documents as lines for people: pure functions, one a screen. Times are UTC."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from appliance.cli.verdicts import learning_lines
from appliance.moments import utc

Document = Mapping[str, Any]

NO_DEVICE = "no device has enrolled; `falaj device token NAME` prints a token for one"
NO_TRUST = "not set up; `falaj trust init` makes the release key and the root"


def core(document: Document, now: float) -> list[str]:
    """`falaj status`: `document` as the command gathers it, `now` in seconds since 1970."""
    status = document["status"]
    counts, versions = status["counts"], status["versions"]
    head = f"Falaj core, tenant {status['tenant']} (falaj {versions['falaj']}, protocol {versions['protocol']})"
    told = f"devices: {counts['devices']}, {counts['online']} online, {counts['validated']} validated"
    parts = [head, *_concerns(document["concerns"])]
    parts += _section(told, device_lines(document["devices"]) or [NO_DEVICE])
    by_core = releases_by_core(status["trust"])
    releases = [_release(row, by_core) for row in document["releases"]]
    parts += _section("releases", releases or ["none; `falaj train MODEL`"])
    parts += _section("rollouts", [_rollout(row) for row in document["rollouts"]])
    parts += _section("made again by the core", [_made_again(row) for row in status["skew"]])
    parts += _section("drift and learning", learning_lines(document["retraining"], document["devices"]))
    parts += _section("rows", [_source(name, row) for name, row in status["sources"].items()])
    parts += _section("turned away, newest first", [rejection(row) for row in document["rejections"]])
    parts += _section("trust", trust_lines(status["trust"], now))
    parts += _section("last events", event_lines(document["events"]))
    return parts


def device_lines(devices: Sequence[Document]) -> list[str]:
    """A line for each device, one more for each further model."""
    width = max((len(row["device"]) for row in devices), default=0)
    lines = []
    for row in devices:
        report = row.get("report")
        models = [_model(name, model) for name, model in (report["models"] if report else {}).items()]
        first, *rest = models or ["nothing reported yet" if report is None else "no model assigned"]
        status = row["status"] if (state := row.get("state", "enrolled")) == "enrolled" else state
        since = f"since {utc(row['status_ts'])}; " if status in ("offline", "stopped") else ""
        lines.append(f"{row['device']:<{width}}  {status or 'never seen':<10}  {since}{first}")
        lines += [f"{'':<{width}}  {'':<10}  {other}" for other in rest]
    return lines


def newcomer_lines(devices: Sequence[Document], found: Document) -> list[str]:
    """Who waits for a person, with what to compare, and how many boxes are expected and not there yet."""
    lines = [
        f"{row['device']}  waits at {row['site']}, serial number {row['serial']}, fingerprint {row['fingerprint']}: "
        f"`falaj device accept {row['device']}`"
        for row in found["waiting"]
    ]
    there = {row["device"] for row in (*devices, *found["waiting"])}
    absent = [row["name"] for row in found["boxes"] if row["name"] not in there]
    more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
    return lines + ([f"expected: {', '.join(absent[:5])}{more}"] if absent else [])


def trust_lines(trust: Document, now: float) -> list[str]:
    """Profile, badge, and each role's version and end."""
    waiting = [line for one in trust.get("waiting", ()) for line in _waiting(one)]
    if not trust["initialised"]:
        return waiting or [NO_TRUST]
    lines = [f"profile {trust['profile']}: {trust['badge']}"]
    named = [(name, trust[name]) for name in ("root", "targets", "timestamp")]
    for name, role in (*named, *trust.get("models", {}).items()):
        if role:
            days = (role["expires"] - now) / 86_400
            left = (
                f"{days:.0f} days left" if days > 0 else "EXPIRED: no device installs anything new until it is renewed"
            )
            lines.append(f"{name:<9}  version {role['version']:<4}  until {_day(role['expires'])} ({left})")
    return lines + automatic_lines(trust) + waiting


def automatic_lines(trust: Document) -> list[str]:
    """What the core may release without a person, and what it did."""
    lines = []
    for model, one in trust.get("automatic", {}).items():
        signed = ", ".join(f"{model}@{number}" for number in one["releases"]) or "none yet"
        lines.append(f"AUTO       the core releases {model} by itself (key {one['keyid'][:12]}); signed automatically: "
                     f"{signed}; `falaj trust auto {model} --off` ends it")  # fmt: skip
    return lines


def releases_by_core(trust: Document) -> set[tuple[str, int]]:
    """(model, number) of each release in force that no person signed."""
    return {(model, number) for model, one in trust.get("automatic", {}).items() for number in one["releases"]}


def holder_lines(trust: Document) -> list[str]:
    """Who holds which key, and how many of them sign."""
    if not trust["initialised"]:
        return []
    lines = []
    for what, role in (("root", trust["root"]), ("releases", trust["targets"])):
        if role:
            keys = ", ".join(f"{h['name'] or 'unnamed'} ({h['keyid'][:12]})" for h in role["holders"])
            lines.append(f"{what:<9}  {role['threshold']} of {keys}")
    core = [f"timestamp ({h['keyid'][:12]})" for h in (trust["timestamp"] or {}).get("holders", ())]
    core += [f"director ({trust['director']['keyid'][:12]})"] if trust["director"] else []
    return [*lines, f"{'the core':<9}  {', '.join(core)}"]


def _waiting(one: Document) -> list[str]:
    """What waits for signatures, and the command that gives one."""
    subject = one["subject"]
    if subject == "root":
        command = "falaj trust sign"
    elif subject.startswith("revoke "):
        command = f"falaj trust revoke {subject.removeprefix('revoke ')} --reason TEXT"
    elif subject.startswith("auto "):
        _, word, model = subject.split(" ", 2)
        command = f"falaj trust auto {model} --{word}"
    else:
        command = f"falaj trust approve {subject}"
    head = f"WAITS since {_day(one['since'])}: {'; '.join(one['text'])}"
    return [head, f"  signed by {', '.join(one['signed'])}; lacks {'; '.join(one['lacks'])}: `{command}`"]


def rejection(row: Document) -> str:
    """One row or file that was turned away, and why."""
    place = row["origin"] if row["row"] < 0 else f"{row['origin']} row {row['row']}"
    return f"{place}: {row['text']}"


def _section(title: str, lines: Iterable[str]) -> list[str]:
    inner = [f"  {line}" for line in lines]
    return ["", title, *inner] if inner else []


def _model(name: str, model: Document) -> str:
    serving, validated = model["serving"], model["validated"]
    if serving is None:
        what = "no model serves"
    else:
        sure = validated is not None and validated["artifact"] == serving["artifact"]
        what = f"release {serving['number']}{' validated' if sure else ', not validated'}"
    reason = f" ({model['reason']})" if model["reason"] else ""
    return f"{name}: {model['phase']}, {what}, {model['answers']} answers, {model['errors']} errors{reason}"


def _release(row: Document, by_core: Collection[tuple[str, int]]) -> str:
    name = f"{row['model']}@{row['number']}"
    state = f"{row['state']}, signed automatically" if (row["model"], row["number"]) in by_core else row["state"]
    next_step = f"  sign it with `falaj trust approve {name}`" if row["state"] == "staged" else ""
    return f"{name}  {state}  {utc(row['ts'])}  manifest {row['digest'][:12]}{next_step}"


def _rollout(row: Document) -> str:
    reason = f"  {row['reason']}" if row["reason"] else ""
    forced = f"  FORCED by {row['forced']}" if row["forced"] else ""
    return f"{row['model']}@{row['number']}  {row['state']}  since {utc(row['since'])}{reason}{forced}"


def _source(name: str, row: Document) -> str:
    files = f"{row['files']} file{'s' * (row['files'] != 1)}"
    return f"{name}: {row['rows']:,} rows in {files} of the lake, {row['rejections']} turned away"


def _made_again(row: Document) -> str:
    what = f"{row['mismatching']:,} of {row['cells']:,} cells differ, of {row['predictions']:,} served predictions"
    return f"{row['model']}@{row['number']}: {what}"


def _concerns(found: Sequence[Document]) -> list[str]:
    """What needs a person, the worst first, each with what to do next."""
    if not found:
        return ["", "nothing needs you"]
    lines = []
    for row in found:
        word = row["level"].upper() if row["level"] == "alarm" else row["level"]
        lines.append(f"{word:<6}  {row['subject']} {row['text']}")
        lines += [f"{'':<6}  {row['next']}"] if row["next"] else []
    return _section("needs you", lines)


def event_lines(rows: Sequence[Document]) -> list[str]:
    """A line for each event, source and code as wide as the longest."""
    source, code = (max((len(row[key]) for row in rows), default=0) for key in ("source", "code"))
    return [
        f"{utc(row['ts'])}  {row['severity']:<6}  {row['source']:<{source}}  {row['code']:<{code}}  "
        f"{row['model'] + ': ' if row['model'] else ''}{row['text']}"
        for row in rows
    ]


def _day(ts: float) -> str:
    return datetime.fromtimestamp(ts, UTC).strftime("%Y-%m-%d")
