"""How large a request may be: refused by its declared length at once, by its true length as it comes."""

from typing import Final

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nearcast.control.api.failures import answer

MANIFESTS_BYTES: Final = 1 << 20
BLOB_BYTES: Final = 100 << 30
OTHERS_BYTES: Final = 8 << 20


def limit_of(path: str) -> int:
    """The most bytes that a request to ``path`` may carry."""
    if path.startswith("/v1/blobs/"):
        return BLOB_BYTES
    return MANIFESTS_BYTES if path == "/v1/apply" or path.startswith("/v1/resources/") else OTHERS_BYTES


class BodyLimit:
    """ASGI middleware that refuses larger bodies with 413."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = limit_of(scope["path"])
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if not declared.isdigit() or int(declared) > limit:
            await answer("invalid_input", 413, _reason(limit), connection="close")(scope, receive, send)
            return
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > limit:
                raise HTTPException(413, _reason(limit), {"connection": "close"})
            return message

        await self._app(scope, counted, send)


def _reason(limit: int) -> str:
    return f"expected a body of at most {limit} bytes"
