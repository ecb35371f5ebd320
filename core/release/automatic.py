"""Where owners let the core release a model by itself: the delegation that people sign, and what the core signs.

Theory. The role of a model, which people sign, may delegate its own paths to a role `auto.{model}` of one key: the
core's, made for this model. Clients come to it through the model's role alone, so it can name no other model's release,
and after that role's own targets, so people's word of a number comes first. The delegation says on which terms
(`sync.manifest.terms_of`): those of a release that people signed. Devices hold every release of the role to them.

What the core signs ends with the delegation. The role's file stays, for no snapshot may drop what an earlier one named;
a delegation that is given anew begins with no release in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from securesystemslib.signer import Key, Signer
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, TargetFile, Targets

from core.release.metadata import Files, later, newest, parse, target_roles, write
from sync.errors import Untrusted
from sync.manifest import auto_role_of, role_of, target_path, terms_of
from sync.names import Digest, ModelName
from sync.roles import TERMS_FIELD

LIFE = timedelta(days=28)  # of what the core signs; half of it before the end it signs anew
ROLE_BYTES = 256_000  # of the core's role, about 2,000 releases: half of what a device takes
MODEL = "model."  # in front of a model's name: the role that people sign
AUTO = "auto."  # and the one that the core signs


@dataclass(frozen=True)
class Allowed:
    """A delegation in force: whose key, and on which terms."""

    key: Key
    terms: Digest


# --- what people sign -------------------------------------------------------------------------------------------


def opting_in(files: Files, model: ModelName, key: Key, terms: Digest, until: datetime) -> dict[str, bytes]:
    """The model's next role, which lets `key` sign releases on these terms; it takes the place of a key before it.
    Raises as `check_terms` does."""
    check_terms(files, model, terms)
    role = _next(files, model, until)
    name = auto_role_of(model)
    handed = DelegatedRole(
        name, [key.keyid], 1, terminating=True, paths=[f"{model}/*/*"], unrecognized_fields={TERMS_FIELD: str(terms)}
    )
    role.delegations = Delegations({key.keyid: key}, {name: handed})
    return {role_of(model): write(Metadata(role))}


def check_terms(files: Files, model: ModelName, terms: Digest) -> None:
    """Raises Untrusted where releases that the core alone signed are in force on other terms: devices hold all of its
    role to those of one delegation, and could not install them any more."""
    found = allowed(files, model)
    if found is None or found.terms == terms:
        return
    if alone := sorted(number for named, number in by_core(files) if named == model):
        numbers = ", ".join(map(str, alone))
        raise Untrusted(f"the core alone signed {numbers} of {model}, on other terms than these: approve what shall "
                        f"stay (`falaj trust approve {model}@{alone[-1]}`), then `falaj trust auto {model} --off`, "
                        "which revokes the rest, then --on")  # fmt: skip


def on_other_terms(files: Files, model: ModelName, number: int, manifest: bytes) -> str:
    """What whoever signs this release is told where the core may sign on other terms: their signature ends nothing."""
    found = allowed(files, model)
    if found is None or found.terms == terms_of(manifest):
        return ""
    return (f"honest word: people let the core sign releases of {model} by itself, on other terms than those of "
            f"release {number}. Once this is in force it signs none; but who has its key ({found.key.keyid[:12]}) can "
            f"do so on the old terms until you sign `falaj trust auto {model} --on` (these terms, another key) or "
            "--off")  # fmt: skip


def opting_out(files: Files, model: ModelName, until: datetime) -> dict[str, bytes]:
    """The model's next role without that; raises Untrusted where there is nothing to end."""
    if allowed(files, model) is None:
        raise Untrusted(f"the core signs no release of {model} by itself: there is nothing to end")
    role = _next(files, model, until)
    role.delegations = None
    return {role_of(model): write(Metadata(role))}


def model_release(files: Files, model: ModelName) -> tuple[int, Digest]:
    """The newest release of a model that people signed, and the digest of its manifest; raises Untrusted where there
    is none: its terms are those on which the core may go on."""
    named = _targets(files, role_of(model)) if role_of(model) in target_roles(files) else {}
    found = {int(path.split("/")[1]): target for path, target in named.items() if target.length}
    if not found:
        raise Untrusted(f"people have signed no release of {model} yet: sign the first one yourself, "
                        f"`falaj trust approve {model}@NUMBER`")  # fmt: skip
    number = max(found)
    return number, Digest(found[number].hashes["sha256"])


def _next(files: Files, model: ModelName, until: datetime) -> Targets:
    role: Targets = newest(files, role_of(model), Targets).signed
    role.version += 1
    role.expires = until
    return role


# --- what is in force -------------------------------------------------------------------------------------------


def allowed(files: Files, model: ModelName) -> Allowed | None:
    """By which key and on which terms the core may sign releases of a model; None: it may not."""
    if role_of(model) not in target_roles(files):
        return None
    return allowed_by(newest(files, role_of(model), Targets).signed, model)


def allowed_by(role: Targets, model: ModelName) -> Allowed | None:
    """The same, said by one version of the model's role; raises Untrusted for a delegation that Falaj did not make."""
    delegations = role.delegations
    if delegations is None or not delegations.roles:
        return None
    try:
        (handed,) = delegations.roles.values()
        (keyid,) = handed.keyids
        found = Allowed(delegations.keys[keyid], Digest(handed.unrecognized_fields[TERMS_FIELD]))
    except (KeyError, ValueError) as error:
        raise Untrusted(f"the role of {model} delegates something that Falaj did not write: {error}") from error
    if handed.name != auto_role_of(model):
        raise Untrusted(f"the role of {model} delegates to {handed.name!r}, which Falaj did not write")
    return found


def all_allowed(files: Files) -> dict[ModelName, Allowed]:
    """Of every model that the core may release by itself."""
    models = sorted(ModelName(name.removeprefix(MODEL)) for name in target_roles(files) if name.startswith(MODEL))
    return {model: found for model in models if (found := allowed(files, model)) is not None}


def of_people(files: Files) -> dict[str, str]:
    """Role -> file of its newest version, for targets and every role of a model that people sign."""
    return {role: name for role, name in target_roles(files).items() if not role.startswith(AUTO)}


def signed_by_core(files: Files, model: ModelName, number: int) -> bool:
    """Whether the core's role, where it is in force, names this release, whatever people's says."""
    ours = allowed(files, model) is not None and auto_role_of(model) in target_roles(files)
    return ours and target_path(model, number) in _targets(files, auto_role_of(model))


def by_core(files: Files) -> set[tuple[ModelName, int]]:
    """The releases in force that the core alone signed."""
    found = set()
    for model in all_allowed(files):
        if auto_role_of(model) in target_roles(files):
            people = _targets(files, role_of(model))
            ours = (path for path in _targets(files, auto_role_of(model)) if path not in people)
            found |= {(model, int(path.split("/")[1])) for path in ours}
    return found


def told(files: Files) -> tuple[str, ...]:
    """A sentence for each model that the core may release by itself, for whoever signs a change of keys."""
    return tuple(
        f"{model}: the core goes on signing releases by itself (key {found.key.keyid[:12]})"
        for model, found in all_allowed(files).items()
    )


def _targets(files: Files, role: str) -> Mapping[str, TargetFile]:
    named: Mapping[str, TargetFile] = newest(files, role, Targets).signed.targets
    return named


# --- what the core signs ----------------------------------------------------------------------------------------


def begun(files: Files, model: ModelName, signer: Signer, now: float) -> dict[str, bytes]:
    """The core's role as a delegation comes in force; `files` are those before. Releases stay in it only where one is
    in force already: with the delegation that ended they ended for good."""
    return _signed(files, model, signer, now, keep=allowed(files, model) is not None)


def released(
    files: Files, model: ModelName, number: int, manifest: bytes, signer: Signer, now: float
) -> dict[str, bytes]:
    """The core's role with one release more. Raises Untrusted where it has grown too large, well before devices would
    refuse the file, and with it all that it names."""
    path = target_path(model, number)
    fresh = _signed(files, model, signer, now, {path: TargetFile.from_data(path, manifest, ["sha256"])})
    if max(map(len, fresh.values())) > ROLE_BYTES:
        raise Untrusted(f"{auto_role_of(model)} names as many releases as it may: approve what shall stay (`falaj "
                        f"trust approve`), then `falaj trust auto {model} --off`, and --on begins it anew")  # fmt: skip
    return fresh


def renewed(files: Files, signers: Mapping[ModelName, Signer], now: float) -> dict[str, bytes]:
    """The core's roles of these models of whose life more than half is over, signed anew."""
    fresh: dict[str, bytes] = {}
    for model, signer in signers.items():
        ends = newest(files, auto_role_of(model), Targets).signed.expires
        if ends < later(now, LIFE / 2):
            fresh |= _signed(files, model, signer, now)
    return fresh


def _signed(
    files: Files,
    model: ModelName,
    signer: Signer,
    now: float,
    more: Mapping[str, TargetFile] | None = None,
    *,
    keep: bool = True,
) -> dict[str, bytes]:
    name, version, kept = auto_role_of(model), 1, {}
    if (before := target_roles(files).get(name)) is not None:
        old: Targets = parse(files[before], Targets).signed
        version, kept = old.version + 1, dict(old.targets) if keep else {}
    role = Metadata(Targets(version=version, expires=later(now, LIFE), targets=kept | dict(more or {})))
    role.sign(signer)
    return {f"{version}.{name}.json": write(role)}
