"""The OpenAPI document: shapes are declared once, as msgspec structs, and described from there."""

from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

_REF = "#/components/schemas/{name}"


class Shapes:
    """Collects the structs that routes name, for the document's components."""

    def __init__(self) -> None:
        self._types: dict[str, Any] = {"ErrorEnvelope": ErrorEnvelope}

    def ref(self, shape: Any) -> dict[str, Any]:
        """Name a struct, and remember to describe it."""
        self._types[shape.__name__] = shape
        return {"$ref": _REF.format(name=shape.__name__)}

    def components(self) -> dict[str, Any]:
        """Describe every struct named."""
        _, found = msgspec.json.schema_components(self._types.values(), ref_template=_REF)
        return dict(found)


class ErrorEnvelope(msgspec.Struct):
    """An error: ``code`` says which, ``message`` names the field and what is wrong with it."""

    code: int
    message: str
    data: None


shapes = Shapes()


def describe(
    *,
    data: Any = None,
    listed: Any = None,
    body: Any = None,
    errors: str = "400",
    anyone: bool = False,
) -> dict[str, Any]:
    """Describe a route: the shape of its body, and of the data (or of a list's items) it answers.

    Args:
        data: the struct answered.
        listed: the struct a list is made of, instead of ``data``.
        body: the struct read.
        errors: HTTP statuses it may answer besides 200 and 500, separated by blanks.
        anyone: it answers without a token.

    """
    described: dict[str, Any] = {
        "security": [] if anyone else [{"bearer": []}],
        "responses": {
            "200": _json("success", _success(shapes.ref(data) if data else _page(listed))),
            **{
                status: _json("error", shapes.ref(ErrorEnvelope))
                for status in (*errors.split(), "408", "413", "500", "503")
            },
        },
    }
    if body is not None:
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": shapes.ref(body)}},
        }
    return described


def describe_stream(*, event: Any, errors: str) -> dict[str, Any]:
    """Describe a route that answers with a stream of server-sent events."""
    described = describe(data=event, errors=errors)
    described["responses"]["200"] = {
        "description": "server-sent events; the data of each is an " + event.__name__,
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
    return described


def install(app: FastAPI) -> None:
    """Let the app answer with this document."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = get_openapi(title=app.title, version=app.version, routes=app.routes)
            components = found.setdefault("components", {}).setdefault("schemas", {})
            for unused in ("HTTPValidationError", "ValidationError"):
                components.pop(unused, None)
            components.update(shapes.components())
            for path in found["paths"].values():
                for operation in path.values():
                    operation["responses"].pop("422", None)
            found["components"]["securitySchemes"] = {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
            }
            app.openapi_schema = found
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _json(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _success(data: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["code", "message", "data"],
        "additionalProperties": False,
        "properties": {
            "code": {"const": 0},
            "message": {"const": "success"},
            "data": data,
        },
    }


def _page(listed: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["list", "total", "page", "pageSize", "nextCursor"],
        "additionalProperties": False,
        "properties": {
            "list": {"type": "array", "items": shapes.ref(listed)},
            "total": {"type": "integer", "description": "counted up to 10000, then: or more"},
            "page": {"type": "integer"},
            "pageSize": {"type": "integer"},
            "nextCursor": {"type": ["string", "null"]},
        },
    }
