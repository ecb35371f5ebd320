"""The steward's process: its pump, its session with the broker, its socket for orders, the jobs it starts."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading

from appliance import clock
from appliance.broker import Broker as MosquittoProcess
from appliance.core_state import CoreFolder, catalog_key, online_keys, open_authority, open_keys, tenant_key
from appliance.keys import TenantKeys
from appliance.orders_socket import OrderServer
from appliance.processes import last_words, spawn
from appliance.pump import Pump
from appliance.schedule import Schedule
from appliance.settings import CoreSettings
from core.catalog import open_catalog
from core.ingest.spool import Spool
from core.orders import Answer, AnyOrder, JobFailed, JobSpec
from core.release.registry import ArtifactStore, BlobStore
from core.steward import Action, House, PersistBroker, Send, StartJob, Steward
from sync import codec, topics
from sync.link import Message, Publish
from sync.messages import CoreStatus
from sync.mqtt import Broker, MqttLink, Tls

log = logging.getLogger("falaj.steward")

TICK = 1.0  # seconds
RENEW = 600.0  # seconds between two looks at what expires


def open_house(folder: CoreFolder, settings: CoreSettings, keys: TenantKeys) -> House:
    """What one tenant's steward holds, from its folder."""
    return House(
        tenant=folder.tenant,
        catalog=open_catalog(folder.catalog, catalog_key(keys)),
        keys=online_keys(folder, keys),
        authority=open_authority(folder, keys),
        artifacts=ArtifactStore(folder.artifacts, folder.tenant, keys.object_key("artifact")),
        blobs=BlobStore(folder.blobs),
        spool=Spool(folder.samples),
        random=os.urandom,
        enrol_url=f"https://{settings.host}:{settings.ports.enrol}",
        uplink=(settings.host, settings.ports.uplink),
        tenant_key=tenant_key(folder, keys),
    )


class StewardNode:
    """Everything around one steward."""

    def __init__(self, folder: CoreFolder, settings: CoreSettings) -> None:
        self.folder, self.settings = folder, settings
        self.steward = Steward(open_house(folder, settings, open_keys(folder)))
        self.pump = Pump("steward", self._tick, TICK)
        self.schedule = Schedule()
        self.link = self._link(settings)
        self._unsaved = False  # something that must survive the broker's kill is not in its store yet
        self.server = OrderServer(folder.steward_socket, self._serve)

    def run(self) -> None:
        """Until SIGTERM."""
        ended = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: ended.set())
        signal.signal(signal.SIGINT, lambda *_: ended.set())
        self.pump.start()
        self.schedule.every(RENEW, lambda: self.pump.submit(self._renew))
        self.schedule.start()
        self.pump.submit(lambda: self._carry_out(self.steward.start(clock.now()))).result()
        self.pump.submit(self._renew)
        self.link.subscribe(*topics.core_subscriptions(self.folder.tenant))
        self.link.start(self._received, self._link_changed)
        threading.Thread(target=self.server.serve_forever, name="orders", daemon=True).start()
        log.info("steward of tenant %s is ready", self.folder.tenant)
        ended.wait()
        self.server.shutdown()
        self.schedule.stop()
        self.pump.stop()
        status = codec.encode(CoreStatus("stopped", clock.now()))
        self.link.publish(Publish(topics.core_status(self.folder.tenant), status, retain=True))
        self.link.stop()
        self.steward.house.catalog.close()

    def _link(self, settings: CoreSettings) -> MqttLink:
        pki = self.folder.pki
        will = CoreStatus("offline", clock.now())
        broker = Broker(
            host="127.0.0.1" if settings.listen in ("0.0.0.0", "::") else settings.listen,  # noqa: S104 - compared only
            port=settings.ports.uplink,
            client_id=topics.CORE_NAME,
            tls=Tls(pki / "ca.pem", pki / "core.pem", pki / "core.key"),
            clean_start=True,
            session_expiry=0,
        )
        return MqttLink(
            broker,
            Publish(topics.core_status(self.folder.tenant), codec.encode(will), retain=True),
            retain_as_published=True,  # what a device plants is seen, and cleared, as it is planted
            refused=lambda text: log.warning("%s", text),
        )

    def _serve(self, order: AnyOrder) -> Answer:
        def work() -> Answer:
            answer, actions = self.steward.order(order, clock.now())
            self._carry_out(actions)
            return answer

        answer: Answer = self.pump.submit(work).result()
        return answer

    def _received(self, message: Message) -> None:
        self.pump.post(lambda: self._carry_out(self.steward.handle(message, clock.now())))

    def _link_changed(self, up: bool, reason: str) -> None:
        log.info("uplink broker: %s", reason)
        self.pump.submit(lambda: self._carry_out(self.steward.link_changed(up, clock.now())))

    def _tick(self) -> None:
        self._carry_out(self.steward.tick(clock.now()))
        self._persist_broker()

    def _renew(self) -> None:
        self._carry_out(self.steward.renew(clock.now()))

    def _carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Send(message):
                    self.link.publish(message)
                case StartJob(spec):
                    self._start_job(spec)
                case PersistBroker():
                    self._unsaved = True

    def _persist_broker(self) -> None:
        """Once the broker has confirmed all that was sent: what is still on its way would not be in its store."""
        if not self._unsaved or not self.link.settled:
            return
        self._unsaved = False
        at = self.settings
        MosquittoProcess(self.folder.broker, at.listen, at.ports.uplink, "").persist()

    def _start_job(self, spec: JobSpec) -> None:
        """A process a job; whatever way it ends, the job ends with it."""
        output = self.folder.logs / f"job-{spec.job}.log"
        argv = [sys.executable, "-P", "-m", "appliance.cli", "core", "job", "--dir", str(self.folder.root)]
        child = spawn(argv, output, codec.encode(spec))

        def watch() -> None:
            code = child.wait()
            if code:
                reason = last_words(output) or f"ended with exit code {code}"
                self._serve(JobFailed(actor="steward", job=spec.job, error=reason, hint=f"see {output}"))

        threading.Thread(target=watch, name=f"job-{spec.job}", daemon=True).start()
