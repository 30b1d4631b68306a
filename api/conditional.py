"""Conditional GET: an answer that has not changed since the client's copy is 304, without its body."""

from hashlib import blake2b

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class ConditionalGet:
    """ASGI middleware: gives whole JSON answers to GET an `ETag`, and answers `If-None-Match` by it.

    Streams and downloads pass through untouched. Tags are weak: an answer has the same one compressed and as it is.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET":
            await self._app(scope, receive, send)
            return
        held: Message | None = None

        async def send_tagged(message: Message) -> None:
            nonlocal held
            if message["type"] == "http.response.start" and _is_json(message):
                held = message
                return
            if held is not None:
                start, held = held, None
                if not message.get("more_body", False):
                    message = _tag(start, message, Headers(scope=scope).get("if-none-match"))
                await send(start)
            await send(message)

        await self._app(scope, receive, send_tagged)


def _is_json(start: Message) -> bool:
    return start["status"] == 200 and Headers(raw=start["headers"]).get("content-type", "").startswith("application/json")


def _tag(start: Message, body: Message, known: str | None) -> Message:
    """Give `start` its tag; returns the body to send, none where the client has it already."""
    tag = f'W/"{blake2b(body.get("body", b""), digest_size=12).hexdigest()}"'
    headers = MutableHeaders(raw=start["headers"])
    headers["etag"] = tag
    headers.setdefault("cache-control", "private, no-cache")
    if known is None or not ({tag, "*"} & {each.strip() for each in known.split(",")}):
        return body
    start["status"] = 304
    for name in ("content-length", "content-type"):
        del headers[name]
    headers.add_vary_header("Accept-Encoding")  # as the whole answer has it
    start["headers"] = headers.raw
    return {"type": "http.response.body", "body": b""}
