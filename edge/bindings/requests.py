"""Prediction requests over MQTT: a question on a model's topic, its answer where the question says.

The question is the JSON body of the Open Inference Protocol v2, or the short form of a field device: the numbers of one
row. The answer goes to the MQTT 5 response topic with the correlation data, or to `reply_to` in the payload, and bears
the question's `id`. Answers go below one place alone: whoever may ask must not have the agent write where they may not
write themselves, and no answer can be a question or a reading again. Questions are answered in turn on the link's
thread, so the broker, not this process, holds those that wait; of those that came together the ones to one model go
through its graph as one run, where that changes no bit (`edge.batching`). Large tensors are HTTP's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from typing import Annotated, Any, Literal, cast

import msgspec
import orjson

from edge.answers import conclude
from edge.inference import (
    InputTensor,
    Parameters,
    Question,
    Record,
    WantedOutput,
    answered,
    arrays_of,
    from_list,
    key_of,
    unrecorded,
)
from edge.serving import Answer, BadInput, Loaded, ModelError, NoModel, Serving
from sync import codec, topics
from sync.golden import Arrays
from sync.link import Message, Publish
from sync.messages import PROTOCOL, Prediction
from sync.names import BadName, DeviceId, ModelName

LARGEST = 1024 * 1024  # bytes of a request: parsing a larger one would keep sensors waiting
WAITS = 60  # seconds that a broker keeps an answer (QoS 1) for an asker that is away
_REST = re.compile(r"[A-Za-z0-9._~:@-]{1,64}(/[A-Za-z0-9._~:@-]{1,64}){0,7}")  # of a reply topic

_Whole = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]  # a larger one cannot be written back
Number = str | _Whole | None  # by which an asker knows its question again


class BadReply(ValueError):
    """A question whose answer has no place to go to; `code` is stable."""

    code = "bad-reply-topic"


class Asked(msgspec.Struct, frozen=True):
    """A question. `inputs` is the Open Inference Protocol's, with `parameters` and `outputs`; `data` the short form: of
    one row the numbers, flat or nested, for a model with one input, else by the input's name."""

    id: Number = None
    reply_to: str | None = None
    inputs: list[InputTensor] | None = None
    data: list[Any] | dict[str, list[Any]] | None = None
    parameters: Parameters = None
    outputs: list[WantedOutput] | None = None


class Told(msgspec.Struct, frozen=True):
    """The answer to a question in the short form."""

    prediction: Prediction
    id: Number = None


class Declined(msgspec.Struct, frozen=True):
    """The answer to a question that no release answered: `error` as the Open Inference Protocol has it, a stable
    `code`, and the quality a prediction would have. `topic` is set on the error topic: the one of the question."""

    error: str
    code: str
    quality: Literal["no_model", "abstain"]
    id: Number = None
    topic: str | None = None
    v: int = PROTOCOL


class _Return(msgspec.Struct, frozen=True):
    """What a question that is not understood may still say of where its answer goes."""

    id: Number = None
    reply_to: str | None = None


class _Heard(msgspec.Struct):
    """A question, the topic for its answer (None: there is no place for one), and the answer once there is one."""

    message: Message
    asked: Asked | _Return
    to: str | None
    told: bytes


class _Ready(msgspec.Struct, frozen=True):
    """A question as its model takes it; `key` is whose it is in a split."""

    question: Question
    key: str
    inputs: Arrays


_asked = msgspec.json.Decoder(Asked)
_return = msgspec.json.Decoder(_Return)


class Requests:
    """The questions of one device's applications. `handle` is called from one thread; `publish` must not block.

    `record` names each prediction, `now` is the device's clock (seconds since 1970), `heard` gives the filters of the
    bindings: no answer goes where one of them listens.
    """

    def __init__(
        self,
        device: DeviceId,
        serving: Serving,
        publish: Callable[[Publish], None],
        now: Callable[[], float],
        record: Record = unrecorded,
        heard: Callable[[], tuple[str, ...]] = tuple,
    ) -> None:
        self._serving, self._publish, self._now = serving, publish, now
        self._record, self._heard = record, heard
        self._root, self._replies = f"{topics.local_requests(device)}/", f"{topics.local_replies(device)}/"
        self._errors = topics.local_errors(device)

    def subscriptions(self) -> tuple[str, ...]:
        """The topic filters of all questions, for models that are not there too: they are told so."""
        return (f"{self._root}+",)

    def hears(self, topic: str) -> bool:
        """Whether a message on this topic is a question."""
        return topic.startswith(self._root)

    def stacks(self, topic: str) -> bool:
        """Whether this is a question to a model of which several may go as one run: it is worth a look whether others
        came with it."""
        live = self._serving.incumbent(cast(ModelName, topic.removeprefix(self._root)))
        return live is not None and live.rows > 1

    def handle(self, message: Message, ack: Callable[[], None]) -> None:
        """Answers one question, or tells why not; then acknowledges it."""
        self.handle_all([(message, ack)])

    def handle_all(self, questions: Sequence[tuple[Message, Callable[[], None]]]) -> None:
        """Answers questions that came together, each for itself, or tells why not; sends the answers in the order of
        the questions, and acknowledges each question after its answer."""
        heard = [self._hear(message) for message, _ in questions]
        asking: dict[str, list[_Heard]] = {}
        for one in heard:
            if not one.told:
                asking.setdefault(one.message.topic.removeprefix(self._root), []).append(one)
        for model, those in asking.items():
            for one, told in zip(those, self._answers(model, [cast(Asked, one.asked) for one in those]), strict=True):
                one.told = told
        for one, (_, ack) in zip(heard, questions, strict=True):
            self._send(one)
            ack()

    def _hear(self, message: Message) -> _Heard:
        """What is asked and where the answer goes; if that cannot be, what is told instead."""
        asked: Asked | _Return
        try:
            asked, told = _read(message.payload), b""
        except BadInput as error:
            asked = _address(message.payload)
            told = _declined(error, asked.id)
        try:
            return _Heard(message, asked, self._place(message.response_topic or asked.reply_to), told)
        except BadReply as error:
            told = codec.encode(Declined(str(error), error.code, "abstain", asked.id, message.topic))
            return _Heard(message, asked, None, told)

    def _send(self, one: _Heard) -> None:
        message, qos = one.message, min(one.message.qos, 1)
        if one.to is None:
            self._publish(Publish(self._errors, one.told, qos))
            return
        correlation = message.correlation if message.response_topic else None
        self._publish(Publish(one.to, one.told, qos, expiry=WAITS if qos else None, correlation=correlation))

    def _place(self, topic: str | None) -> str:
        """Where an answer goes; raises BadReply unless that lies where answers may go."""
        if not topic:
            raise BadReply(f"no place for an answer: name a response topic, or reply_to, below {self._replies}")
        if not (topic.startswith(self._replies) and _REST.fullmatch(topic, len(self._replies))):
            raise BadReply(f"answers go below {self._replies} alone: up to 8 levels of 1 to 64 letters, digits, ._~:@-")
        if any(topics.matches(pattern, topic) for pattern in self._heard()):
            raise BadReply("a binding listens on this topic: an answer would be taken for a reading")
        return topic

    def _answers(self, model: str, asked: Sequence[Asked]) -> list[bytes]:
        """The answers to questions to one model, in order."""
        try:
            name = _named(model)
        except NoModel as error:
            return [_declined(error, one.id) for one in asked]
        ready = [self._ready(name, one) for one in asked]
        good = [one for one in ready if not isinstance(one, ModelError)]
        inputs, keys = [one.inputs for one in good], [one.key for one in good]
        answers: Iterator[Answer | ModelError]
        try:
            answers = iter(self._serving.predict_each(name, inputs, keys=keys) if good else ())
        except NoModel as error:
            answers = repeat(error)
        return [
            _declined(one, of.id) if isinstance(one, ModelError) else self._answer(name, of, one, next(answers))
            for of, one in zip(asked, ready, strict=True)
        ]

    def _ready(self, model: ModelName, asked: Asked) -> _Ready | ModelError:
        try:
            question = Question(asked.inputs or [], None, asked.parameters, asked.outputs)
            key = key_of(question, asked.id)
            loaded = self._serving.loaded(model, key)
            inputs = _row(loaded, asked.data) if asked.inputs is None else arrays_of(question)
        except ModelError as error:
            return error
        return _Ready(question, key, inputs)

    def _answer(self, model: ModelName, asked: Asked, ready: _Ready, answer: Answer | ModelError) -> bytes:
        if isinstance(answer, ModelError):
            return _declined(answer, asked.id)
        try:
            if asked.inputs is None:
                return codec.encode(Told(self._prediction(model, ready.inputs, answer), asked.id))
            document, _ = answered(model, ready.question, ready.inputs, answer, self._record)
        except ModelError as error:
            return _declined(error, asked.id)
        return orjson.dumps(document if asked.id is None else {**document, "id": asked.id})

    def _prediction(self, model: ModelName, inputs: Arrays, answer: Answer) -> Prediction:
        classes = answer.slot.manifest.classes
        value, probabilities = conclude(answer.outputs, classes)
        number, release = self._record(inputs, answer), answer.release.number
        return Prediction(number, model, self._now(), "ok", value, probabilities, classes, answer.key, release)


def _read(payload: bytes) -> Asked:
    """The question in a payload; raises BadInput."""
    if len(payload) > LARGEST:
        raise BadInput(f"{len(payload)} bytes, {LARGEST} are taken over MQTT: send fewer rows, or ask over HTTP")
    try:
        asked = _asked.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"the request is not as the protocol says: {error}") from error
    if (asked.inputs is None) == (asked.data is None):
        raise BadInput("a request has either 'inputs', as the Open Inference Protocol says, or 'data', the short form")
    if (asked.parameters or asked.outputs) and _binary(asked):
        raise BadInput("binary tensors are answered over HTTP; over MQTT all is JSON")
    return asked


def _binary(asked: Asked) -> bool:
    wishes = (asked.parameters or {}, *(output.parameters or {} for output in asked.outputs or ()))
    return any(wish.get(name) for wish in wishes for name in ("binary_data_output", "binary_data"))


def _address(payload: bytes) -> _Return:
    try:
        return _return.decode(payload) if len(payload) <= LARGEST else _Return()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Return()  # it says nothing of it


def _row(loaded: Loaded, data: list[Any] | dict[str, list[Any]] | None) -> Arrays:
    """The inputs for the short form; raises BadInput."""
    specs = {spec.name: spec for spec in loaded.session.inputs}
    given = data if isinstance(data, dict) else dict.fromkeys(specs, data)
    if (isinstance(data, list) and len(specs) != 1) or given.keys() != specs.keys():
        raise BadInput(f"'data' has the numbers of one row by input; inputs are {', '.join(specs)}")
    return {name: from_list(spec, given[name]) for name, spec in specs.items()}


def _named(model: str) -> ModelName:
    try:
        return ModelName(model)
    except BadName as error:
        raise NoModel(model[:64], known=False) from error


def _declined(error: ModelError, number: Number) -> bytes:
    quality: Literal["no_model", "abstain"] = "no_model" if isinstance(error, NoModel) else "abstain"
    return codec.encode(Declined(str(error), error.code, quality, number))
