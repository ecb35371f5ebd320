"""What the requests of the Open Inference Protocol v2 mean: functions from a request to a response.

Source: the protocol's REST text (kserve/open-inference-protocol) and its binary tensor data and model
repository extensions. A version is a release number as text; only the live one answers, and in a split its arms.
`parameters` of every answer carry the release number, the digest of the artifact that computed it, and the
prediction's id; those of a request may carry the `key` that a split goes by, else its id is taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import msgspec

from edge.http import wire
from edge.http.wire import Request, Response
from edge.inference import RAW, Question, Record, answered, arrays_of, key_of, parse, unrecorded, whole_body
from edge.serving import Answer, BadInput, Loaded, ModelError, NoModel, Serving
from sync.features import TensorSpec
from sync.golden import Arrays
from sync.names import BadName, ModelName

JSON_LENGTH = "inference-header-content-length"
EXTENSIONS = ("binary_tensor_data", "model_repository")


class IndexWish(msgspec.Struct, frozen=True):
    ready: bool = False


_index = msgspec.json.Decoder(IndexWish)


def server_metadata(version: str) -> Response:
    return wire.json({"name": "falaj", "version": version, "extensions": EXTENSIONS})


def model_metadata(name: str, loaded: Loaded, arms: Iterable[int] = ()) -> Response:
    """`arms`: the versions that answer beside it in a split."""
    return wire.json(
        {
            "name": name,
            "versions": [str(number) for number in dict.fromkeys((loaded.slot.release.number, *arms))],
            "platform": "onnx_onnxv1",
            "inputs": [_described(spec) for spec in loaded.session.inputs],
            "outputs": [_described(spec) for spec in loaded.session.outputs],
        }
    )


def repository_index(serving: Serving, request: Request) -> Response:
    """All models of the device; `{"ready": true}` in the request leaves out those that do not serve now."""
    try:
        only_ready = bool(request.body) and _index.decode(request.body).ready
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"the request is not as the protocol says: {error}") from error
    entries = []
    for name, loaded in serving.models().items():
        if loaded is not None:
            number = str(loaded.slot.release.number)
            entries.append({"name": name, "version": number, "state": "READY", "reason": ""})
        elif not only_ready:
            entries.append({"name": name, "state": "UNAVAILABLE", "reason": "no release serves now"})
    return wire.json(entries)


def infer(
    serving: Serving, model: str, version: str | None, requests: Sequence[Request], record: Record = unrecorded
) -> list[Response | ModelError]:
    """Answers inference requests to one model that came together, each for itself: a response, or why there is none.

    Raises what `live` does; the same release answers all. `record` names each prediction.
    """
    loaded = live(serving, model, version)
    name = cast(ModelName, model)  # something serves under it, so it is one
    asked = [_read(loaded, request) for request in requests]
    good = [one for one in asked if not isinstance(one, ModelError)]
    number = loaded.slot.release.number if version else None
    answers = iter(serving.predict_each(name, [one[1] for one in good], number, [one[2] for one in good]))
    return [one if isinstance(one, ModelError) else _told(model, one, next(answers), record) for one in asked]


def _read(loaded: Loaded, request: Request) -> tuple[Question, Arrays, str] | ModelError:
    """The question, its inputs, and its key in a split."""
    try:
        question, tail = _split(request)
        inputs = whole_body(loaded, tail) if question is RAW else arrays_of(question, tail)
        return question, inputs, key_of(question)
    except ModelError as error:
        return error


def _told(
    model: str, asked: tuple[Question, Arrays, str], answer: Answer | ModelError, record: Record
) -> Response | ModelError:
    if isinstance(answer, ModelError):
        return answer
    question, inputs, _ = asked
    try:
        document, pieces = answered(model, question, inputs, answer, record)
    except ModelError as error:
        return error
    head = wire.json(document)
    if not pieces:
        return head
    length = (("Inference-Header-Content-Length", str(len(head.body))),)
    return Response(200, head.body + b"".join(pieces), wire.BINARY, length)


def live(serving: Serving, model: str, version: str | None) -> Loaded:
    """What serves under this name and version; raises NoModel, or Refused (404) for another version."""
    try:
        loaded = serving.loaded(model)
    except NoModel:
        try:
            ModelName(model)
        except BadName as error:
            raise wire.Refused(404, str(error)) from error
        raise
    if version is None or version == str(loaded.slot.release.number):
        return loaded
    for number, arm in serving.arms(model).items():
        if version == str(number):
            return arm
    text = f"{model} has no version {version!r} here; version {loaded.slot.release.number} serves"
    raise wire.Refused(404, text)


def _split(request: Request) -> tuple[Question, bytes]:
    """The JSON part and the binary tail of a request."""
    stated = request.headers.get(JSON_LENGTH)
    length = len(request.body)
    if stated is not None:
        if not (stated.isascii() and stated.isdecimal() and len(stated) <= 9 and int(stated) <= length):
            raise BadInput(f"Inference-Header-Content-Length is {stated!r}, the body has {length} bytes")
        length = int(stated)
        if length == 0 and request.body:
            return RAW, request.body
    return parse(request.body[:length]), request.body[length:]


def _described(spec: TensorSpec) -> dict[str, object]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": spec.shape}
