"""The application: routes, errors, document, and the door in front."""

from fastapi import FastAPI

import edgeplane
from edgeplane.api import documents, errors, events, nodes, operations, sessions, tasks
from edgeplane.api.door import Door
from edgeplane.api.parts import Parts

PREFIX = "/api/v1"


def make_app(parts: Parts) -> Door:
    """Join the door and the routes to the parts they work with."""
    app = FastAPI(
        title="Edgeplane",
        version=edgeplane.__version__,
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,  # its page would load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.parts = parts
    for module in (sessions, nodes, tasks, operations, events):
        app.include_router(module.router, prefix=PREFIX)
    errors.install(app)
    documents.install(app)
    return Door(app, parts)
