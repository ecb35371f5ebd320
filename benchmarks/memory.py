"""What trust and delivery add to an agent's memory.

    .venv/bin/python benchmarks/memory.py [--runs 5] [--write]

Fresh processes import more and more, and say how much memory they hold then (`VmRSS`). The reference is what any MQTT
client with certificates needs: paho and cryptography, with a TLS context made. "After a release": its trust files were
read by tuf, its chunks taken, flushed and unsealed, and it stands in a journal. What serving needs, numpy and
onnxruntime, stands there for comparison: trust and delivery load neither. The last line is a whole idle agent with one
committed release, as `falaj edge run` starts it, with local HTTP and without a broker beside it. Needs the development
set-up; takes some ten seconds. Ends 1 where the target is missed.
"""

from __future__ import annotations

import base64
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.results import options, tell

ROOT = Path(__file__).parents[1]
TITLE = "### What trust and delivery add"
TARGET = 12.0  # MiB that trust and delivery may add over paho and cryptography
REFERENCE = """
import ssl, paho.mqtt.client
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
paho.mqtt.client.Client(paho.mqtt.client.CallbackAPIVersion.VERSION2, protocol=paho.mqtt.client.MQTTv5)
ssl.create_default_context()
ed25519.Ed25519PrivateKey.generate().sign(b"x"); AESGCM(bytes(32)).encrypt(bytes(12), b"x", b"")
"""
ROOMS = """
import edge.trust, edge.download, edge.artifacts, edge.outbox, edge.journal, sync.mqtt, sync.sealing, sync.roles
"""
USED = """
import pickle, pathlib, sys
from sync.chunks import digest
from sync.messages import EVENT, DeviceEvent
from sync.names import DeviceId, ModelName, TenantId
from sync.sealing import unseal_artifact, unwrap, wrap_context
place = pathlib.Path(sys.argv[1])
parcel = pickle.loads((place / "parcel").read_bytes())
tenant, device, model = TenantId(parcel["tenant"]), DeviceId(parcel["device"]), ModelName(parcel["model"])
journal, outbox = edge.journal.Journal.open(place / "j.db"), edge.outbox.Outbox(place / "o.db", 1, "b")
accepted = edge.trust.accept(
    place / "trust", parcel["root"], parcel["files"], journal.high_water(), model, 1, digest(parcel["manifest"]),
    parcel["now"])
artifacts = edge.artifacts.Artifacts(place / "artifacts")
for blob in (accepted.manifest.variants[0].blob, accepted.manifest.golden):
    download = edge.download.Download(blob, artifacts.present(blob))
    while not download.done:
        for index in download.ask(parcel["now"], 16):
            piece = parcel["sealed"][str(blob.sealed)][index * blob.chunk : (index + 1) * blob.chunk]
            assert download.arrived(index, piece, parcel["now"])
            artifacts.put(blob, index, piece)
    artifacts.finish(blob)
    key = unwrap(parcel["keys"][str(blob.sealed)], parcel["private"], wrap_context(tenant, device, blob.sealed))
    content = artifacts.opened(blob, lambda sealed: unseal_artifact(sealed, key, tenant, blob.plain))
journal.accept(model, 1, accepted.record, accepted.versions)
for _ in range(100):
    outbox.add(EVENT, DeviceEvent("beat", "x" * 100), 1.0)
outbox.pending()
del parcel, content, piece
"""
STEPS = {
    "Python alone": "",
    "paho and cryptography": REFERENCE,
    "... and tuf": REFERENCE + "import tuf.ngclient, tuf.api.metadata",
    "... and trust and delivery": REFERENCE + ROOMS,
    "the same, after a release": REFERENCE + ROOMS + USED,
    "numpy and onnxruntime, for comparison": REFERENCE + "import numpy, onnxruntime",
}
SAY = "\nprint(next(int(l.split()[1]) for l in open('/proc/self/status') if l.startswith('VmRSS')) / 1024)"


def parcel() -> bytes:
    """What a device was sent of one release: trust files, sealed blobs, keys wrapped to it."""
    from tests.edge.world import Core, new_identity

    core = Core()
    device, shipped = new_identity(core.root), core.ship(1)
    wrapped = core.order(shipped, device).keys
    told = {
        "tenant": str(device.tenant), "device": str(device.device), "model": "motion", "now": core.now,
        "root": core.root, "files": core.files, "manifest": shipped.manifest, "private": device.sealing_key,
        "sealed": {str(digest): sealed for digest, sealed in shipped.sealed.items()},
        "keys": {str(digest): base64.b64decode(key) for digest, key in wrapped.items()},
    }  # fmt: skip
    return pickle.dumps(told)


def resident(code: str, runs: int, sent: bytes) -> float:
    """MiB a fresh process holds after this code, median."""
    found = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as home:
            (Path(home) / "parcel").write_bytes(sent)
            argv = [sys.executable, "-P", "-c", code + SAY, home]
            env = {**os.environ, "PYTHONPATH": str(ROOT)}
            found.append(float(subprocess.run(argv, capture_output=True, text=True, check=True, env=env).stdout))
    return statistics.median(found)


def agent() -> float:
    """MiB of a real agent that serves one release and has nothing to do."""
    from appliance.demo.fleet import free_ports
    from tests.faults.box import new_box
    from tests.faults.small_disk import SmallDisk

    with tempfile.TemporaryDirectory() as home:
        one, two, three = free_ports(3)
        box = new_box(SmallDisk(Path(home) / "disk"), Path(home), (one, two, three))
        box.start()
        try:
            assert box.process is not None
            status = Path(f"/proc/{box.process.pid}/status").read_text().splitlines()
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024
        finally:
            box.end()


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--runs", type=int, default=5, help="fresh processes that each median is of")
    given = parser.parse_args()
    sent = parcel()
    found = {name: resident(code, given.runs, sent) for name, code in STEPS.items()}
    reference = found["paho and cryptography"]
    added = found["the same, after a release"] - reference
    found["a whole agent, idle, one release"] = agent()
    rows = [f"| {name} | {size:.1f} | {size - reference:+.1f} |" for name, size in found.items()]
    word = "met" if added <= TARGET else "MISSED"
    lines = [
        f"Resident MiB of fresh processes, medians of {given.runs}; of the whole agent one.", "",
        "| process | MiB | over paho and cryptography |", "|---|---:|---:|", *rows, "",
        f"Trust and delivery add **{added:.1f} MiB** (target {TARGET:g}, {word}).",
    ]  # fmt: skip
    tell(TITLE, "memory.py", lines, given)
    return 0 if added <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
