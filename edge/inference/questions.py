"""What an inference request says and what its answer looks like: pure steps between a body and arrays.

Source: the protocol's REST text (kserve/open-inference-protocol) and its binary tensor extension. `parameters` of every
answer carry the release number, the digest of the artifact that computed it, and the prediction's id; `key` in those of
a question is what a split goes by.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from edge.inference import tensors
from edge.routing import LONGEST, Passing
from edge.serving import Answer, BadInput, Loaded
from sync.arrays import NAMES
from sync.golden import Arrays

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


Record = Callable[[Arrays, Answer], str]  # remembers a prediction and gives its id; empty: it has none


def unrecorded(inputs: Arrays, answer: Answer) -> str:
    """Nobody remembers predictions."""
    return ""


_question = msgspec.json.Decoder(Question)
RAW = Question([], parameters={"binary_data_output": True})  # a request without a JSON part: its body is the one input


def parse(text: bytes) -> Question:
    """The JSON part of a request; raises BadInput."""
    try:
        return _question.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"the request is not as the protocol says: {error}") from error


def arrays_of(question: Question, tail: bytes = b"") -> Arrays:
    """The arrays of a request; binary ones lie in the tail in the order of the inputs. Raises BadInput."""
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


def key_of(question: Question, number: str | int | None = None) -> str:
    """What a split goes by: `key` in the parameters, else the request's id, which may be given as `number`; empty if it
    says neither. An id is `Passing`. Raises BadInput."""
    key = question.parameters.get("key") if question.parameters else None
    if key is None:
        named = question.id if number is None else str(number)
        return Passing(named[:LONGEST]) if named else ""
    if not isinstance(key, str) or len(key) > LONGEST:
        raise BadInput(f"parameter 'key' is text of at most {LONGEST} characters: whose question it is")
    return key


def whole_body(loaded: Loaded, body: bytes) -> Arrays:
    """The one input of a model whose shape the size of the body tells: at most one dimension is free."""
    specs = loaded.session.inputs
    if len(specs) != 1:
        raise BadInput(f"a body without a JSON part is for a model with one input; this one takes {len(specs)}")
    return {specs[0].name: tensors.from_whole(specs[0], body)}


def answered(
    model: str, question: Question, inputs: Arrays, answer: Answer, record: Record
) -> tuple[dict[str, object], list[bytes]]:
    """The JSON document of an answer and its binary tensors, in order; `record` names the prediction.

    Raises BadInput, before anything is recorded, if the question wants what there is not.
    """
    wanted = _wanted(question, answer.outputs)
    return _written(model, question, answer, wanted, record(inputs, answer))


def _wanted(question: Question, outputs: Arrays) -> list[tuple[str, bool]]:
    """(output, whether in binary), in the order asked for; without a wish all of them."""
    binary = _flag("parameter", question.parameters, "binary_data_output", False)
    if not question.outputs:
        return [(name, binary) for name in outputs]
    wanted = []
    for output in question.outputs:
        if output.name not in outputs:
            raise BadInput(f"there is no output {output.name!r}; outputs are {', '.join(outputs)}")
        if "classification" in (output.parameters or {}):
            raise BadInput(f"output {output.name!r}: the classification extension is not offered")
        wanted.append((output.name, _flag(f"output {output.name!r}:", output.parameters, "binary_data", binary)))
    return wanted


def _flag(where: str, parameters: Parameters, name: str, default: bool) -> bool:
    if not parameters:
        return default
    flag = parameters.get(name, default)
    if not isinstance(flag, bool):
        raise BadInput(f"{where} {name!r} is true or false, not {flag!r}")
    return flag


def _written(
    model: str, question: Question, answer: Answer, wanted: list[tuple[str, bool]], prediction: str
) -> tuple[dict[str, object], list[bytes]]:
    outputs: list[dict[str, object]] = []
    pieces: list[bytes] = []
    for name, binary in wanted:
        array = answer.outputs[name]
        described = {"name": name, "datatype": NAMES[array.dtype], "shape": array.shape}
        if binary:
            pieces.append(tensors.to_binary(array))
            outputs.append({**described, "parameters": {"binary_data_size": len(pieces[-1])}})
        else:
            outputs.append({**described, "data": tensors.to_json(array)})
    release = answer.slot.release
    parameters: dict[str, object] = {"release": release.number, "artifact": release.artifact}
    if prediction:
        parameters["prediction"] = prediction
    document: dict[str, object] = {
        "model_name": model,
        "model_version": str(release.number),
        "parameters": parameters,
        "outputs": outputs,
    }
    if question.id is not None:
        document["id"] = question.id
    return document, pieces
