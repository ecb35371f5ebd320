"""Boxes come and go by the commands that people type: a list, a site's token, a golden image, renewal, the end."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from appliance import certificates, clock
from appliance.core.state import authority_folder, open_keys
from appliance.demo.fleet import Device
from appliance.edge.enrolling import EnrolFailed, Unreachable, Waits, enrol, find_serial, first_boot, read_token
from appliance.edge.state import EdgeFolder, identity
from core.fleet import enrolment
from core.orders import Revoke
from sync import roles
from sync.durable import write_private
from sync.names import DEFAULT_TENANT, DeviceId, Serial
from tests.appliance.running import RunningCore, falaj
from tests.waiting import eventually

pytestmark = pytest.mark.broker


def codes(core: RunningCore) -> list[str]:
    return [event["code"] for event in core.api.get("/v1/events?limit=50")["events"]]


def row(core: RunningCore, name: str) -> dict[str, object]:
    return next((d for d in core.api.get("/v1/devices")["devices"] if d["device"] == name), {})


def golden(core: RunningCore, name: str, serial: str, token: str) -> Device:
    """A box with a token and a number, and no identity."""
    device = core.machines.add_device(name)
    device.folder.token.write_text(token)
    (device.folder.root / "serial").write_text(f"{serial}\n")
    return device


def site_token(core: RunningCore, *more: str) -> str:
    done = core.falaj("device", "token", "--site", "hall", "--uses", "5", *more)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def imported(core: RunningCore, tmp_path: Path, *lines: str) -> None:
    file = tmp_path / "boxes.csv"
    file.write_text("\n".join(("serial,name,site,labels", *lines)) + "\n")
    done = core.falaj("device", "import", str(file))
    assert done.returncode == 0, done.stderr


def ends_soon(core: RunningCore, folder: EdgeFolder) -> float:
    """Puts a certificate into the folder that ends in an hour; when it does."""
    own, now = identity(folder), clock.now()
    authority = authority_folder(core.folder, open_keys(core.folder)).held()[0]
    public = bytes.fromhex(roles.signer(own.signing_key).public_key.keyval["public"])
    pem = enrolment.certify(authority, DEFAULT_TENANT, DeviceId(own.device), public, now, timedelta(hours=1))
    write_private(folder.identity / "device.pem", pem)
    return certificates.read(pem).ends


def test_a_golden_image_joins_renews_is_revoked_and_comes_back(core: RunningCore, tmp_path: Path) -> None:
    imported(core, tmp_path, "J-1,joiner,hall,line=a")
    device = golden(core, "joiner", "J-1", site_token(core))
    settings = device.folder.root / "edge.toml"
    settings.write_text(f'labels = ["class=press"]\n{settings.read_text()}')
    device.start()
    eventually(lambda: row(core, "joiner").get("status") == "online", "the box to join by itself")
    assert (device.status() or {})["labels"] == ["class=press", "line=a"], "its image's, and those of the list"
    assert not device.folder.token.exists(), "the site's token is not left behind"

    assert device.process is not None
    device.process.terminate()
    device.process.wait()
    end = ends_soon(core, device.folder)
    device.start()
    eventually(lambda: identity(device.folder).ends > end, "the next certificate")
    eventually(lambda: "certificate-installed" in codes(core), "the box over its next session")
    eventually(lambda: row(core, "joiner").get("status") == "online", "its session")

    done = core.falaj("device", "revoke", "joiner", "--reason", "lost")
    assert done.returncode == 0, done.stderr
    eventually(lambda: (device.status() or {}).get("uplink") == "down", "the end of its session")
    assert row(core, "joiner")["state"] == "revoked"
    assert "revoked" in core.falaj("device", "list").stdout

    imported(core, tmp_path, "J-1,joiner,hall,line=b;class=lathe")
    token = core.falaj("device", "replace", "joiner").stdout.strip()
    device.process.terminate()
    device.process.wait()
    joined = falaj("edge", "enrol", token, "--again", "--dir", str(device.folder.root))
    assert joined.returncode == 0, joined.stderr
    device.start()
    eventually(lambda: row(core, "joiner").get("status") == "online", "the box under its next epoch")
    assert row(core, "joiner")["epoch"] == 2 and "device-cloned" not in codes(core)
    assert (device.status() or {})["labels"] == ["class=press", "line=b"], "of one word its own settings' value counts"
    device.process.terminate()
    device.process.wait()


def test_with_approval_the_box_waits_and_keeps_asking_with_its_keys(core: RunningCore, tmp_path: Path) -> None:
    folder, text = EdgeFolder(tmp_path / "edge"), site_token(core, "--approve")
    with pytest.raises(Waits, match=r"compare it there, then `falaj device accept w-1`") as told:
        enrol(folder, read_token(text), clock.now(), Serial("W-1"))
    key = (folder.asking / "device.key").read_bytes()
    shown = core.falaj("device", "list").stdout
    assert "w-1  waits at hall" in shown
    mine = str(told.value).partition("fingerprint is ")[2].partition(";")[0]
    assert len(mine) == 29 and mine in shown, "the box works out its own, and the core shows the same"
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        assert core.falaj("device", "accept", "--all").returncode == 0

    late = clock.now() + 7200  # the token holds an hour, and a person may take longer
    answer = first_boot(folder, lambda: text, Serial("W-1"), lambda: late, wait, lambda: 1.0)
    assert answer.device == "w-1" and waits == [1.0]
    assert identity(folder).signing_key == key and not folder.asking.exists()


@pytest.mark.slow
def test_two_hundred_boxes_come_by_one_list_and_one_token_and_one_is_replaced_by_one_command(
    core: RunningCore, tmp_path: Path
) -> None:
    """Over the real HTTPS door; one of them by the very command a person types."""
    imported(core, tmp_path, *(f"Q-{n:03},fleet-{n:03},hall,line=q" for n in range(200)))
    done = core.falaj("device", "token", "--site", "hall", "--uses", "200")
    token = done.stdout.strip()
    by_hand = EdgeFolder(tmp_path / "fleet-000")
    joined = falaj("edge", "enrol", token, "--serial", "Q-000", "--dir", str(by_hand.root))
    assert joined.returncode == 0 and "fleet-000 joined" in joined.stdout, joined.stderr
    for n in range(1, 200):
        answer = enrol(EdgeFolder(tmp_path / f"fleet-{n:03}"), read_token(token), clock.now(), Serial(f"Q-{n:03}"))
        assert (answer.device, answer.epoch) == (f"fleet-{n:03}", 1)
    devices = {d["device"]: d for d in core.api.get("/v1/devices")["devices"]}
    assert sum(name.startswith("fleet-") and d["state"] == "enrolled" for name, d in devices.items()) == 200
    assert falaj("edge", "enrol", token, "--serial", "Q-000", "--dir", str(tmp_path / "one-more")).returncode == 1

    handed_on = core.falaj("device", "replace", "fleet-007").stdout.strip()
    other = falaj("edge", "enrol", handed_on, "--dir", str(tmp_path / "spare"))
    assert other.returncode == 0, other.stderr
    assert row(core, "fleet-007")["epoch"] == 2 and row(core, "fleet-007")["state"] == "enrolled"
    for n in range(200):  # the other tests' lists are short
        core.api.order(Revoke(actor="test", device=DeviceId(f"fleet-{n:03}"), reason="the test is over"))


def test_a_bad_line_is_named_and_nothing_is_imported(core: RunningCore, tmp_path: Path) -> None:
    file = tmp_path / "boxes.csv"
    file.write_text("serial,name,site\nB-1,good,hall\nB-2,Bad Name,hall\n")
    done = core.falaj("device", "import", str(file))
    assert done.returncode == 1
    assert "line 3: 'Bad Name' is no device name" in done.stderr and "nothing was imported" in done.stderr
    assert "good" not in str(core.api.get("/v1/newcomers"))


@pytest.mark.parametrize(
    "words",
    [("token",), ("token", "a", "--site", "hall", "--uses", "1"), ("token", "--site", "hall"),
     ("token", "a", "--approve"), ("token", "--site", "Hall!", "--uses", "1"), ("accept",),
     ("accept", "a", "--all"), ("revoke", "a"),
     ("replace", "A#")],
)  # fmt: skip
def test_what_makes_no_sense_is_wrong_usage(words: tuple[str, ...]) -> None:
    assert falaj("device", *words).returncode == 2


def test_the_network_may_come_later_and_a_bad_token_never_helps(core: RunningCore, tmp_path: Path) -> None:
    imported(core, tmp_path, "L-1,later,hall,")
    text = site_token(core)
    token = read_token(text)
    tries = 0

    def now() -> float:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise Unreachable("no network yet")
        return clock.now()

    pauses: list[float] = []
    folder = EdgeFolder(tmp_path / "edge")
    answer = first_boot(folder, lambda: text, Serial("L-1"), now, pauses.append, lambda: 0.0)
    assert answer.device == "later" and pauses == [0.5, 1.0]
    with pytest.raises(EnrolFailed, match="say who it is: give --serial"):
        enrol(EdgeFolder(tmp_path / "other"), token, clock.now())

    def announce(seconds: float) -> None:
        imported(core, tmp_path, "X,box-x,hall,")

    with pytest.raises(EnrolFailed, match="no box with the serial number X is expected at hall"):
        enrol(EdgeFolder(tmp_path / "x"), token, clock.now(), Serial("X"))
    found = first_boot(EdgeFolder(tmp_path / "x"), lambda: text, Serial("X"), clock.now, announce, lambda: 0.0)
    assert found.device == "box-x", "as soon as it is on the list"
    with pytest.raises(EnrolFailed, match="paste it whole"):
        first_boot(EdgeFolder(tmp_path / "y"), lambda: "no token", Serial("Y"), clock.now, announce, lambda: 0.0)
    with pytest.raises(EnrolFailed, match="is later, and the token is for None"):
        enrol(folder, token, clock.now(), Serial("L-1"), again=True)


def test_where_a_serial_number_comes_from(tmp_path: Path) -> None:
    folder, maker = EdgeFolder(tmp_path / "edge"), tmp_path / "product_serial"
    folder.root.mkdir()
    assert find_serial(None, folder, (maker,)) is None
    maker.write_text("Default string\n")
    assert find_serial(None, folder, (maker,)) is None
    maker.write_bytes(b"/5XK/CN 7016/\0")
    assert find_serial(None, folder, (maker,)) == "5XK-CN-7016"
    (folder.root / "serial").write_text("MINE\n")
    assert find_serial(None, folder, (maker,)) == "MINE"
    assert find_serial("GIVEN", folder, (maker,)) == "GIVEN"
    with pytest.raises(EnrolFailed, match="give another with --serial"):
        find_serial("ＳN", folder, ())
