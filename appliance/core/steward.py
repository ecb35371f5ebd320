"""The steward's process: its pump, its session with the broker, its socket for orders, the jobs it starts."""

from __future__ import annotations

import dataclasses
import logging
import os
import random
import signal
import sys
import threading
from datetime import timedelta

from appliance import clock
from appliance.broker import Broker as MosquittoProcess
from appliance.broker import end_session, write_access
from appliance.core.job_logs import job_log
from appliance.core.orders_socket import OrderServer
from appliance.core.outgoing import Outgoing
from appliance.core.schedule import Schedule
from appliance.core.state import (
    CoreFolder,
    authority_folder,
    catalog_key,
    online_files,
    online_keys,
    open_keys,
    tenant_key,
)
from appliance.keys import TenantKeys
from appliance.processes import last_words, launch, tell
from appliance.pump import Pump
from appliance.reopening import Reopening
from appliance.settings import CoreSettings
from core.answers import Answer
from core.catalog import open_catalog
from core.fleet.enrolment import Pair
from core.handoffs import JobSpec
from core.ingest.spool import Spool
from core.orders import AnyOrder, JobFailed
from core.release.registry import ArtifactStore, BlobStore
from core.steward import Access, Action, Cut, House, PersistBroker, Send, SendBlob, StartJob, Steward
from sync import codec, topics
from sync.durable import write_private
from sync.link import Message, Publish
from sync.messages import CoreStatus
from sync.mqtt import Broker, MqttLink, Tls
from sync.names import DeviceId, Digest

log = logging.getLogger("falaj.steward")

TICK = 1.0  # seconds
RENEW = 600.0  # seconds between two looks at what expires


def open_house(folder: CoreFolder, settings: CoreSettings, keys: TenantKeys) -> House:
    """What one tenant's steward holds, from its folder."""
    authorities = authority_folder(folder, keys)
    authority, successor = authorities.held()
    return House(
        tenant=folder.tenant,
        catalog=open_catalog(folder.catalog, catalog_key(keys)),
        keys=online_keys(folder, keys),
        online=online_files(folder, keys),
        authority=authority,
        authorities=authorities,
        successor=successor,
        artifacts=ArtifactStore(folder.artifacts, folder.tenant, keys.object_key("artifact")),
        blobs=BlobStore(folder.blobs),
        spool=Spool(folder.samples),
        random=os.urandom,
        enrol_url=f"https://{settings.host}:{settings.ports.enrol}",
        uplink=(settings.host, settings.ports.uplink),
        tenant_key=tenant_key(folder, keys),
        retained_bytes=settings.broker.retained_bytes,
        longevity=timedelta(days=settings.certificate_days),
    )


class StewardNode:
    """Everything around one steward."""

    def __init__(self, folder: CoreFolder, settings: CoreSettings) -> None:
        self.folder, self.settings = folder, settings
        self.steward = Steward(open_house(folder, settings, open_keys(folder)))
        self.pump = Pump("steward", self._tick, TICK)
        self.schedule = Schedule()
        self.link = self._link()
        self.outgoing = Outgoing(lambda m: self.link.publish(m), lambda: self.link.unconfirmed, self._unreadable)
        self.reopening = Reopening(self.pump, lambda: self.link.stop(), self._open_anew)
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
        self._open_link()
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

    def _link(self) -> MqttLink:
        will = CoreStatus("offline", clock.now())
        self._shown = self._files()
        return MqttLink(
            self._address(),
            Publish(topics.core_status(self.folder.tenant), codec.encode(will), retain=True),
            retain_as_published=True,  # what a device plants is seen, and cleared, as it is planted
            refused=lambda text: log.warning("%s", text),
            confirmed=self._confirmed,
            chance=random.random,
        )

    def _files(self) -> tuple[bytes, bytes]:
        """Who it says it is, and whom it believes to be the broker."""
        return (self.folder.pki / "core.pem").read_bytes(), self.folder.trusted.read_bytes()

    def _address(self) -> Broker:
        pki, listen = self.folder.pki, self.settings.listen
        return Broker(
            host="127.0.0.1" if listen in ("0.0.0.0", "::") else listen,  # noqa: S104 - compared only
            port=self.settings.ports.uplink,
            client_id=topics.CORE_NAME,
            tls=Tls(self.folder.trusted, pki / "core.pem", pki / "core.key"),
            clean_start=True,
            session_expiry=0,
        )

    def _open_link(self) -> None:
        self.link.subscribe(*topics.core_subscriptions(self.folder.tenant))
        self.link.start(self._received, self._link_changed)

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

        def work() -> None:
            self.outgoing.link_changed(up)
            self._carry_out(self.steward.link_changed(up, clock.now(), self.link.limit))

        self.pump.submit(work)

    def _confirmed(self) -> None:
        if self.outgoing.waiting:
            self.pump.submit(self._step)

    def _step(self) -> None:
        if self.steward.house.link_up:
            self.outgoing.step()

    def _unreadable(self, digest: Digest, why: str) -> None:
        self.pump.submit(lambda: self._carry_out(self.steward.unreadable(digest, why, clock.now())))

    def _tick(self) -> None:
        self._carry_out(self.steward.tick(clock.now()))
        self._step()
        self._persist_broker()
        self._follow_certificate()

    def _renew(self) -> None:
        # What a broker queues for us is bounded: of a whole fleet that came back at once a report may have been lost.
        self.link.subscribe(topics.core_reports(self.folder.tenant))
        self._carry_out(self.steward.renew(clock.now()))
        self._follow_certificate()

    def _follow_certificate(self) -> None:
        if (files := self._files()) != self._shown:  # renewed by the supervisor
            self._shown = files
            self.reopening.ask()

    def _open_anew(self) -> None:
        self.link = self._link()
        self._open_link()

    def _carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Send(message):
                    self.outgoing.say(message)
                case SendBlob(digest):
                    self.outgoing.stream(digest, self.steward.house.chunks(action))
                case StartJob(spec):
                    self._start_job(spec)
                case PersistBroker():
                    self._unsaved = True
                case Access(revocations, denied):
                    write_private(self.folder.pki / "revoked.pem", revocations)
                    write_access(self.folder.broker, self.folder.tenant, denied)
                    self._broker().reload()
                case Cut(device, pair):
                    threading.Thread(target=self._end, args=(device, pair), name=f"cut-{device}", daemon=True).start()
        self._step()

    def _end(self, device: DeviceId, pair: Pair) -> None:
        at = dataclasses.replace(self._address(), client_id=device)
        done = end_session(at, self.folder.trusted, pair.certificate, pair.key, self.folder.run)
        log.warning("the session of %s %s", device, "has ended" if done else "could not be taken over: no broker?")

    def _broker(self) -> MosquittoProcess:
        return MosquittoProcess(self.folder.broker, self.settings.listen, self.settings.ports.uplink, "")

    def _persist_broker(self) -> None:
        """Once the broker has confirmed all that was sent: what is still on its way would not be in its store."""
        if not self._unsaved or self.outgoing.waiting or self.link.unconfirmed:
            return
        self._unsaved = False
        self._broker().persist()

    def _start_job(self, spec: JobSpec) -> None:
        """A process a job; whatever way it ends, the job ends with it."""
        running = {job.id for job in self.steward.house.catalog.projects.unfinished()}
        output = job_log(self.folder.logs, spec.job, running)
        argv = [sys.executable, "-P", "-m", "appliance.cli", "core", "job", "--dir", str(self.folder.root)]
        child = launch(argv, output, listens=True)  # here: the kernel ends it with the thread that starts it

        def watch() -> None:
            tell(child, codec.encode(spec))  # here: a large one waits until the child has begun to read
            code = child.wait()
            if code:
                reason = last_words(output) or f"ended with exit code {code}"
                self._serve(JobFailed(actor="steward", job=spec.job, error=reason, hint=f"see {output}"))

        threading.Thread(target=watch, name=f"job-{spec.job}", daemon=True).start()
