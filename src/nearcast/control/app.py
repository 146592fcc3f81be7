"""The HTTP application: routes, failures in one shape, limits. It is made, not found: no module holds one.

Not decided here: on which socket it is served, and when the loop of the controllers runs (`server`).
"""

from fastapi import FastAPI
from fastapi.routing import APIRoute

from nearcast import __version__
from nearcast.control.api import failures, fleet, metrics, nodes, plans, releases, repository, resources
from nearcast.control.api.limits import BodyLimit
from nearcast.control.api.services import Services

_DESCRIPTION = """Desired state, membership and releases of one fleet.

Send the admin token, or a node's credential, as `authorization: Bearer TOKEN`. Every failure is
`{"error": {"code", "message", "hint"}}`. Manifests are read strictly: an unknown field is refused.
"""


def create_app(services: Services | None) -> FastAPI:
    """The application over ``services``; without them it can only describe itself."""
    app = FastAPI(
        title="nearcast control plane",
        version=__version__,
        description=_DESCRIPTION,
        generate_unique_id_function=_operation_id,
        responses={"default": {"model": failures.Failure, "description": "Any other failure."}},
        docs_url=None,  # their page would load scripts from elsewhere
        redoc_url=None,
    )
    app.state.services = services
    failures.install(app)
    app.add_middleware(BodyLimit)
    if services is not None:
        app.add_middleware(metrics.Counted, recorder=services.plane.recorder)
    for module in (fleet, metrics, resources, plans, nodes, releases, repository):
        app.include_router(module.router)
    return app


def _operation_id(route: APIRoute) -> str:
    """A name for generated clients: ``resources_apply``."""
    tag = str(route.tags[0]) if route.tags else "control"
    return f"{tag}_{route.name}"
