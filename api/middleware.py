"""What every request passes through: an id on its answer, and an end to its body."""

import logging
from uuid import uuid4

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_ID = "request_id"  # its place in the request's state

logger = logging.getLogger(__name__)


class RequestId:
    """Gives each answer an `x-request-id`, and logs it beside an error of ours."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = f"req-{uuid4().hex}"
        scope.setdefault("state", {})[REQUEST_ID] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = request_id
                if message["status"] >= 500:
                    logger.error("%s %s %s: %d", request_id, scope["method"], scope["path"], message["status"])
            await send(message)

        await self._app(scope, receive, send_with_id)


class BodyLimit:
    """Stops reading a body that is longer than allowed, whatever its Content-Length says: 413."""

    def __init__(self, app: ASGIApp, *, limit: int, upload_path: str, upload_limit: int) -> None:
        self._app = app
        self._limit = limit
        self._upload_path = upload_path
        self._upload_limit = upload_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._upload_limit if scope["path"] == self._upload_path else self._limit
        received = 0

        async def receive_some() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise HTTPException(413, f"the body is longer than {limit} bytes", {"connection": "close"})
            return message

        await self._app(scope, receive_some, send)
