"""`python -m api`: serve HTTP on MHPO_HOST:MHPO_PORT, in MHPO_API_PROCESSES processes."""

import logging
import sys
from contextlib import suppress
from socket import socket

import uvicorn
from sqlalchemy.exc import SQLAlchemyError

from api.database import transaction
from api.keys import has_usable_key
from api.main import app
from api.processes import own_socket, serve_several
from api.settings import settings
from api.streams import Streams

NO_KEY = """\
The API would listen on {host}, where every request needs an API key, and there is none that works. Make one first:
    mhpo keys create NAME
(with docker-compose.yml: docker compose run --rm api mhpo keys create NAME), or set MHPO_HOST=127.0.0.1."""


class _Server(uvicorn.Server):
    """Ends its streams, which have no end of their own, before it waits for the requests that are being served."""

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        streams: Streams = app.state.streams
        streams.end()
        await super().shutdown(sockets)


def serve() -> None:
    """Serve until asked to stop; not at all where nobody could use it."""
    if settings().needs_key and not _somebody_has_a_key():
        sys.exit(NO_KEY.format(host=settings().host))
    own = own_socket()
    if own is None and settings().api_processes > 1:
        sys.exit(serve_several(settings().api_processes))
    _serve_here(None if own is None else [own])


def _serve_here(sockets: list[socket] | None) -> None:
    host, port = settings().host, settings().port
    # Kept open for longer than clients and proxies keep an idle connection: else one is closed as the next request is sent.
    config = uvicorn.Config(app, host=host, port=port, timeout_keep_alive=75, timeout_graceful_shutdown=5, server_header=False)
    server = _Server(config)
    with suppress(KeyboardInterrupt):
        server.run(sockets)
    if not server.started:
        sys.exit(3)  # as uvicorn's own command


def _somebody_has_a_key() -> bool:
    try:
        with transaction() as session:
            return has_usable_key(session)
    except SQLAlchemyError as error:  # an outage: nobody gets in before the database can be asked
        logging.getLogger(__name__).warning("whether there is an API key cannot be seen now: %s", error)
        return True


serve()
