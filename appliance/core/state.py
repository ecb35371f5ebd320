"""The core's folder: where each thing lies, and what the first start makes (keys, CA, certificates)."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from appliance import keys
from appliance.broker import BrokerFiles
from appliance.core.authorities import AuthorityFolder, certificates
from appliance.keys import TenantKeys
from appliance.settings import CoreSettings
from core.fleet import enrolment, renewal
from core.fleet.enrolment import Pair
from core.steward import Keys
from sync import roles
from sync.durable import write_private
from sync.names import TenantId

SAMPLES_KEY = "samples"  # X25519, among the secrets: what devices seal samples to ...
REPORTS_KEY = "reports"  # ... and what they seal all else to that they say
SERVERS = ("broker", "enrol", "core")  # whose certificates the core renews itself


@dataclass(frozen=True)
class CoreFolder:
    """Paths below the core's state folder; every tenant has its own subtree."""

    root: Path
    tenant: TenantId

    @property
    def home(self) -> Path:
        return self.root / "tenants" / self.tenant

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def steward_socket(self) -> Path:
        return self.run / "steward.sock"

    @property
    def api_socket(self) -> Path:
        return self.run / "api.sock"

    @property
    def catalog(self) -> Path:
        return self.home / "catalog.db"

    @property
    def lake(self) -> Path:
        return self.home / "lake"

    @property
    def artifacts(self) -> Path:
        return self.home / "artifacts"

    @property
    def blobs(self) -> Path:
        return self.home / "blobs"

    @property
    def samples(self) -> Path:
        """The spool of sealed sample batches."""
        return self.home / "samples"

    @property
    def broker(self) -> Path:
        return self.home / "broker"

    @property
    def pki(self) -> Path:
        return self.home / "pki"

    @property
    def trusted(self) -> Path:
        """Whose certificates the broker takes: the authority in force, and the next one if there is one."""
        return self.pki / "trusted.pem"

    @property
    def console_token(self) -> Path:
        return self.run / "console.token"

    @property
    def ready(self) -> Path:
        """There while everything of the core is up."""
        return self.run / "ready"

    def broker_files(self) -> BrokerFiles:
        pki = self.pki
        return BrokerFiles(self.trusted, pki / "broker.pem", pki / "broker.key", pki / "revoked.pem")


def open_keys(folder: CoreFolder) -> TenantKeys:
    """The tenant's keys by KEK provider `file`."""
    return keys.tenant_keys(folder.root / "kek", folder.home / "tenant.key", folder.tenant)


def renew_servers(folder: CoreFolder, settings: CoreSettings, authority: Pair, now: float) -> tuple[str, ...]:
    """Issues those of `broker`, `enrol` and `core` anew of which a third of their life is left, or whose address or
    authority is another now; the keys stay, so that one file replaces one. Returns which."""
    renewed = []
    for name in SERVERS:
        path = folder.pki / f"{name}.pem"
        present, key = path.read_bytes(), (folder.pki / f"{name}.key").read_bytes()
        moved = name != "core" and {*map(_spelt, renewal.hosts(present))} != {*map(_spelt, _hosts(settings))}
        ours = renewal.issued_by(present, authority.certificate)
        if ours and not moved and not renewal.life(present).due(now):
            continue
        pair = (
            enrolment.issue_core(authority, now, key)
            if name == "core"
            else enrolment.issue_server(authority, _hosts(settings), now, key)
        )
        write_private(path, _chain(folder.pki, name, pair))
        renewed.append(name)
    return tuple(renewed)


def servers_hold_until(folder: CoreFolder) -> float:
    """When the first of these certificates ends (seconds since 1970); raises OSError or ValueError where one of them
    cannot be read."""
    return min(renewal.life((folder.pki / f"{name}.pem").read_bytes()).ends for name in SERVERS)


def _hosts(settings: CoreSettings) -> tuple[str, ...]:
    return tuple(dict.fromkeys((settings.host, "127.0.0.1", "localhost")))


def _spelt(host: str) -> str:
    """An address in its one spelling; a name as it is."""
    try:
        return str(ip_address(host))
    except ValueError:
        return host


def prepare(folder: CoreFolder, settings: CoreSettings, tenant_keys: TenantKeys, now: float) -> None:
    """Makes what is missing: online keys, those of samples and reports, CA, certificates of broker, listener and core.

    Nothing is replaced but certificates that end soon; an installation of an older version gets what it lacks.
    """
    for path in (folder.root, folder.home, folder.run, folder.logs, folder.pki):
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in ("director", "snapshot", "timestamp"):
        path = folder.home / "keys" / name
        if not path.exists():
            tenant_keys.keep_secret(path, roles.new_signing_key())
    for name in (SAMPLES_KEY, REPORTS_KEY):
        path = folder.home / "keys" / name
        if not path.exists():
            tenant_keys.keep_secret(path, keys.new_box_key())
    authorities = authority_folder(folder, tenant_keys)
    if not (folder.pki / "ca.pem").exists():
        authorities.begin(enrolment.create_authority(folder.tenant, now))
    authority, _ = authorities.held()
    authorities.tidy()
    write_private(folder.trusted, b"".join(certificates(folder.pki)))
    for name in ("broker", "enrol"):
        if not (folder.pki / f"{name}.pem").exists():
            _write_pair(folder.pki, name, enrolment.issue_server(authority, _hosts(settings), now))
    if not (folder.pki / "core.pem").exists():
        _write_pair(folder.pki, "core", enrolment.issue_core(authority, now))
    if not (folder.pki / "revoked.pem").exists():
        write_private(folder.pki / "revoked.pem", enrolment.empty_revocations(authority, now))
    renew_servers(folder, settings, authority, now)


def authority_folder(folder: CoreFolder, tenant_keys: TenantKeys) -> AuthorityFolder:
    return AuthorityFolder(folder.pki, folder.home / "keys", tenant_keys)


def online_keys(folder: CoreFolder, tenant_keys: TenantKeys) -> Keys:
    secrets = folder.home / "keys"
    names = ("director", "snapshot", "timestamp", REPORTS_KEY)
    return Keys(*(tenant_keys.read_secret(secrets / name) for name in names))


@dataclass(frozen=True)
class OnlineFiles:
    """The online keys on disk, two files a role: which of them counts, the root in force says (of a model that the core
    may release by itself, the model's role)."""

    secrets: Path
    tenant_keys: TenantKeys

    def held(self, role: str) -> tuple[bytes, ...]:
        """The keys of a role, PEM."""
        return tuple(self.tenant_keys.read_secret(path) for path in self._paths(role) if path.exists())

    def bring(self, role: str, pem: bytes, keep: bytes) -> None:
        """Keeps a further key beside `keep` (empty: there is none), in the place of any other."""
        first, second = self._paths(role)
        place = second if keep and first.exists() and self.tenant_keys.read_secret(first) == keep else first
        self.tenant_keys.keep_secret(place, pem)

    def _paths(self, role: str) -> tuple[Path, Path]:
        return self.secrets / role, self.secrets / f"{role}.next"


def online_files(folder: CoreFolder, tenant_keys: TenantKeys) -> OnlineFiles:
    return OnlineFiles(folder.home / "keys", tenant_keys)


def tenant_key(folder: CoreFolder, tenant_keys: TenantKeys) -> str:
    """The public half of the key that samples are sealed to, base64."""
    return base64.b64encode(keys.box_public(samples_key(folder, tenant_keys))).decode()


def samples_key(folder: CoreFolder, tenant_keys: TenantKeys) -> bytes:
    """Its private half (32 raw bytes), for the job that lands samples alone."""
    return tenant_keys.read_secret(folder.home / "keys" / SAMPLES_KEY)


def catalog_key(tenant_keys: TenantKeys) -> bytes:
    return tenant_keys.derive("catalog")


def _write_pair(folder: Path, name: str, pair: Pair) -> None:
    """The key first: a certificate without its key would never be made again."""
    write_private(folder / f"{name}.key", pair.key)
    write_private(folder / f"{name}.pem", _chain(folder, name, pair))


def _chain(folder: Path, name: str, pair: Pair) -> bytes:
    """Servers send the CA along, so that a newcomer can compare its fingerprint."""
    return pair.certificate if name == "core" else pair.certificate + (folder / "ca.pem").read_bytes()
