"""The document, and the small rules of the door that need no store."""

import pytest
from fastapi import FastAPI

from edgeplane.api import documents, nodes, parts, sessions, tasks
from edgeplane.model.errors import Invalid
from edgeplane.model.tasks import TaskKind, TaskStatus


@pytest.fixture(scope="module")
def document():
    """Make the document of all routes."""
    app = FastAPI(title="Edgeplane", version="0")
    for module in (sessions, nodes, tasks):
        app.include_router(module.router, prefix="/api/v1")
    documents.install(app)
    return app.openapi()


def operations(document):
    """Yield each operation with its name."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def references(part):
    """Yield every reference inside a part of the document."""
    if isinstance(part, dict):
        for key, value in part.items():
            if key == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def test_every_reference_leads_somewhere(document):
    """A client generator finds each shape that is named."""
    there = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert set(references(document)) <= there


def test_the_frameworks_own_errors_are_not_in_it(document):
    """422 and its shapes are never answered."""
    assert not any("422" in operation["responses"] for _, operation in operations(document))
    assert not {"HTTPValidationError", "ValidationError"} & set(document["components"]["schemas"])


def test_every_operation_says_what_it_answers(document):
    """A success, and the errors any request can meet; all of them JSON."""
    for name, operation in operations(document):
        assert {"200", "400", "408", "413", "500", "503"} <= set(operation["responses"]), name
        for response in operation["responses"].values():
            assert response["content"]["application/json"]["schema"], name


def test_every_body_that_is_read_is_described(document):
    """A POST says what it takes."""
    for name, operation in operations(document):
        assert ("requestBody" in operation) is name.startswith("POST"), name


def test_filters_name_their_values(document):
    """The words a filter knows are the model's."""
    schemas = document["components"]["schemas"]
    assert schemas["TaskStatus"]["enum"] == list(TaskStatus)
    assert schemas["TaskKind"]["enum"] == list(TaskKind)


def test_shapes_are_lower_camel_case(document):
    """Keys of every shape are lowerCamelCase, as the contract has it."""
    for name, schema in document["components"]["schemas"].items():
        for key in schema.get("properties", {}):
            assert "_" not in key, (name, key)
            assert key[0].islower(), (name, key)


@pytest.mark.parametrize(("written", "value"), [("1", 1), ("9223372036854775807", 2**63 - 1)])
def test_an_id_is_digits(written, value):
    """Up to the largest a row can have."""
    assert parts.known_id(written, "task") == value


@pytest.mark.parametrize(
    "written", ["", "0", "-1", "9223372036854775808", "1" * 20, " 1", "1_0", "\u0661", "x"]
)
def test_anything_else_is_no_id(written):
    """Invalid, naming the noun."""
    with pytest.raises(Invalid, match="^id: not a task id$"):
        parts.known_id(written, "task")
