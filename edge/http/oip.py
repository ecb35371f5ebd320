"""What the requests of the Open Inference Protocol v2 mean: functions from a request to a response.

Source: the protocol's REST text (kserve/open-inference-protocol) and its binary tensor data and model
repository extensions. A version is a release number as text; only the live one answers. `parameters` of every
answer carry the release number and the digest of the artifact that computed it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import msgspec

from edge.http import tensors, wire
from edge.http.wire import Request, Response
from edge.serving import Answer, BadInput, Loaded, NoModel, Serving
from sync.features import TensorSpec
from sync.golden import Arrays
from sync.names import BadName, ModelName

JSON_LENGTH = "inference-header-content-length"
EXTENSIONS = ("binary_tensor_data", "model_repository")


Parameters = dict[str, Any] | None  # some clients write null for what they leave out


class InputTensor(msgspec.Struct, frozen=True):
    name: str
    shape: list[int]
    datatype: str
    parameters: Parameters = None
    data: list[Any] | None = None


class WantedOutput(msgspec.Struct, frozen=True):
    name: str
    parameters: Parameters = None


class Question(msgspec.Struct, frozen=True):
    """The JSON part of an inference request."""

    inputs: list[InputTensor]
    id: str | None = None
    parameters: Parameters = None
    outputs: list[WantedOutput] | None = None


class IndexWish(msgspec.Struct, frozen=True):
    ready: bool = False


_question = msgspec.json.Decoder(Question)
_index = msgspec.json.Decoder(IndexWish)
_RAW = Question([], parameters={"binary_data_output": True})  # a request without a JSON part: its body is the one input


def server_metadata(version: str) -> Response:
    return wire.json({"name": "falaj", "version": version, "extensions": EXTENSIONS})


def model_metadata(name: str, loaded: Loaded) -> Response:
    return wire.json(
        {
            "name": name,
            "versions": [str(loaded.slot.release.number)],
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


def infer(serving: Serving, model: str, version: str | None, request: Request) -> Response:
    """Answers an inference request; raises what `live` and `Serving.predict` do, BadInput if misspelt."""
    loaded = live(serving, model, version)
    question, tail = _split(request)
    inputs = _whole_body(loaded, tail) if question is _RAW else _inputs(question, tail)
    name = cast(ModelName, model)  # something serves under it, so it is one
    answer = serving.predict(name, inputs, loaded.slot.release.number if version else None)
    wanted = list(_wanted(question, answer.outputs))
    return _written(model, question, answer, wanted)


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
    if version is not None and version != str(loaded.slot.release.number):
        text = f"{model} has no version {version!r} here; version {loaded.slot.release.number} serves"
        raise wire.Refused(404, text)
    return loaded


def _split(request: Request) -> tuple[Question, bytes]:
    """The JSON part and the binary tail of a request."""
    stated = request.headers.get(JSON_LENGTH)
    length = len(request.body)
    if stated is not None:
        if not (stated.isascii() and stated.isdecimal() and len(stated) <= 9 and int(stated) <= length):
            raise BadInput(f"Inference-Header-Content-Length is {stated!r}, the body has {length} bytes")
        length = int(stated)
        if length == 0 and request.body:
            return _RAW, request.body
    try:
        question = _question.decode(request.body[:length])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"the request is not as the protocol says: {error}") from error
    return question, request.body[length:]


def _inputs(question: Question, tail: bytes) -> Arrays:
    """The arrays of a request; binary ones lie in the tail in the order of the inputs."""
    arrays: Arrays = {}
    at = 0
    for tensor in question.inputs:
        if tensor.name in arrays:
            raise BadInput(f"input {tensor.name!r} is given twice")
        shape = tensors.checked_shape(tensor.name, tensor.shape)
        size = (tensor.parameters or {}).get("binary_data_size")
        if size is None:
            arrays[tensor.name] = tensors.from_json(tensor.name, tensor.datatype, shape, tensor.data)
            continue
        if tensor.data is not None or type(size) is not int or not 0 <= size <= len(tail) - at:
            raise BadInput(f"input {tensor.name!r}: binary_data_size is {size!r}, {len(tail) - at} bytes are left")
        piece = tail[at : at + size]
        arrays[tensor.name] = tensors.from_binary(tensor.name, tensor.datatype, shape, piece)
        at += size
    if at != len(tail):
        raise BadInput(f"{len(tail) - at} bytes after the JSON part belong to no input")
    return arrays


def _whole_body(loaded: Loaded, body: bytes) -> Arrays:
    """The one input of a model whose shape the size of the body tells: at most one dimension is free."""
    specs = loaded.session.inputs
    if len(specs) != 1:
        raise BadInput(f"a body without a JSON part is for a model with one input; this one takes {len(specs)}")
    return {specs[0].name: tensors.from_whole(specs[0], body)}


def _wanted(question: Question, outputs: Arrays) -> Iterator[tuple[str, bool]]:
    """(output, whether in binary), in the order asked for; without a wish all of them."""
    binary = _flag("parameter", question.parameters, "binary_data_output", False)
    if not question.outputs:
        yield from ((name, binary) for name in outputs)
        return
    for output in question.outputs:
        if output.name not in outputs:
            raise BadInput(f"there is no output {output.name!r}; outputs are {', '.join(outputs)}")
        if "classification" in (output.parameters or {}):
            raise BadInput(f"output {output.name!r}: the classification extension is not offered")
        yield output.name, _flag(f"output {output.name!r}:", output.parameters, "binary_data", binary)


def _flag(where: str, parameters: Parameters, name: str, default: bool) -> bool:
    flag = (parameters or {}).get(name, default)
    if not isinstance(flag, bool):
        raise BadInput(f"{where} {name!r} is true or false, not {flag!r}")
    return flag


def _written(model: str, question: Question, answer: Answer, wanted: list[tuple[str, bool]]) -> Response:
    outputs: list[dict[str, object]] = []
    pieces: list[bytes] = []
    for name, binary in wanted:
        array = answer.outputs[name]
        described = {"name": name, "datatype": tensors.NAMES[array.dtype], "shape": array.shape}
        if binary:
            pieces.append(tensors.to_binary(array))
            outputs.append({**described, "parameters": {"binary_data_size": len(pieces[-1])}})
        else:
            outputs.append({**described, "data": tensors.to_json(array)})
    document: dict[str, object] = {
        "model_name": model,
        "model_version": str(answer.release.number),
        "parameters": {"release": answer.release.number, "artifact": answer.release.artifact},
        "outputs": outputs,
    }
    if question.id is not None:
        document["id"] = question.id
    head = wire.json(document)
    if not pieces:
        return head
    length = (("Inference-Header-Content-Length", str(len(head.body))),)
    return Response(200, head.body + b"".join(pieces), wire.BINARY, length)


def _described(spec: TensorSpec) -> dict[str, object]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": spec.shape}
