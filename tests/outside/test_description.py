"""docs/openapi-edge.yaml against the door itself, by requests that schemathesis makes from it, right and wrong ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from edge.http.doorkeeper import Doorkeeper
from tests.edge import graphs
from tests.outside import lived, served

schemathesis: Any = served.client("schemathesis")
yaml: Any = served.client("yaml")
FILE = Path(__file__).resolve().parents[2] / "docs" / "openapi-edge.yaml"
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance", "negative_data_rejection", "unsupported_method",
)  # fmt: skip
MODELS = [str(graphs.MODEL), str(served.IMAGE), "echo-fp32", "nobody"]  # one that waits is answered 503, rightly


def description() -> dict[str, Any]:
    """The description, with names of models and versions that lead somewhere."""
    document: dict[str, Any] = yaml.safe_load(FILE.read_text())
    parameters = document["components"]["parameters"]
    parameters["model"]["schema"] = {"enum": MODELS}
    parameters["version"]["schema"] = {"enum": ["7", "6"]}
    parameters["entity"]["schema"] = {"enum": [served.ENTITY, "nobody"]}
    (number,) = document["paths"]["/v1/predictions/{id}"]["get"]["parameters"]
    number["schema"] = {"enum": [served.KNOWN, "nobody"]}
    return document


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with served.door() as door:
        yield f"http://127.0.0.1:{door.port}"


def operations() -> list[Any]:
    return [found.ok() for found in schemathesis.openapi.from_dict(description()).get_all_operations()]


def play(operation: Any, address: str, examples: int) -> int:
    """Asks as often as `examples`, right and wrong in turn; returns how often. Any violation raises."""
    checks = [schemathesis.checks.CHECKS.get_one(name) for name in CHECKS]
    asked = 0
    for mode in schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE:

        @hypothesis.settings(max_examples=examples, deadline=None, derandomize=True, database=None,
                             suppress_health_check=list(hypothesis.HealthCheck))  # fmt: skip
        @hypothesis.given(operation.as_strategy(generation_mode=mode))
        def one(case: Any) -> None:
            nonlocal asked
            asked += 1
            case.call_and_validate(base_url=address, checks=checks)

        with suppress(hypothesis.errors.Unsatisfiable):  # a request without parameters cannot be wrong
            one()
    return asked


@pytest.mark.parametrize("operation", operations(), ids=lambda operation: operation.label)
def test_the_door_is_as_described(operation: Any, address: str) -> None:
    assert play(operation, address, 12) > 0


@pytest.mark.slow
@pytest.mark.parametrize("operation", operations(), ids=lambda operation: operation.label)
def test_the_door_is_as_described_for_long(operation: Any, address: str) -> None:
    assert play(operation, address, 400) > 0


def test_the_status_of_a_device_that_has_lived_is_described_whole() -> None:
    """It is what the other tests here are answered, and nothing in it is left to be guessed."""
    described, said = description()["components"]["schemas"]["Status"], lived.status()
    assert set(described["required"]) == set(described["properties"]) == set(said)
    assert said["why"] and said["lookups"] and said["line"] and "version" in said["config"]  # type: ignore[operator]


def test_a_token_that_is_asked_for_is_described() -> None:
    """Every page, and with what the doorkeeper really answers."""
    document = description()
    for path, verb in ((path, verb) for path, found in document["paths"].items() for verb in found.values()):
        assert verb["responses"].keys() >= {"401", "429"}, path
    assert document["security"] == [{}, {"token": []}]
    keeper = Doorkeeper("t" * 32, lambda who: None)
    told = {keeper.refuse("10.0.0.9", "Bearer no", 0.0) for _ in range(11)}
    headers = {"401": "NoToken", "429": "Guessed"}
    assert {(str(status), header) for status, _, (header, _) in filter(None, told)} == {
        (status, header)
        for status, name in headers.items()
        for header in document["components"]["responses"][name]["headers"]
    }


def test_what_was_asked_is_told_of_as_described(address: str) -> None:
    schema = schemathesis.openapi.from_dict(description())
    checks = [schemathesis.checks.CHECKS.get_one(name) for name in CHECKS]
    newest = schema["/v1/predictions"]["GET"].Case().call_and_validate(base_url=address, checks=checks).json()
    assert newest["predictions"], "the door remembers"
    one = schema["/v1/predictions/{id}"]["GET"].Case(path_parameters={"id": served.KNOWN})
    assert one.call_and_validate(base_url=address, checks=checks).json()["prediction"]["value"] == "walk"
    why = schema["/v1/why"]["GET"].Case().call_and_validate(base_url=address, checks=checks).json()
    assert why["why"]


def test_a_good_question_and_its_answer_are_as_described(address: str) -> None:
    schema = schemathesis.openapi.from_dict(description())
    window = graphs.windows(2)["window"]
    tensor = {"name": "window", "datatype": "FP32", "shape": list(window.shape), "data": window.ravel().tolist()}
    for wish in ([], [{"name": "probabilities", "parameters": {"binary_data": True}}]):
        body = {"id": "q", "inputs": [tensor], "outputs": wish}
        found = {"path_parameters": {"model": str(graphs.MODEL)}, "body": body, "media_type": "application/json"}
        case = schema["/v2/models/{model}/infer"]["POST"].Case(**found)
        answer = case.call_and_validate(
            base_url=address, checks=[schemathesis.checks.CHECKS.get_one(n) for n in CHECKS]
        )
        assert answer.status_code == 200
