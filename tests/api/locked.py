"""Callers of an API that wants a key."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from api.database import transaction
from api.keys import make_key
from api.models import Scope
from tests.conftest import ApiServer


def new_key(project: str = "default", scope: Scope = Scope.WRITE) -> str:
    with transaction() as session:
        return make_key(session, "a test", project, scope)[1]


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@contextmanager
def client_of(api: ApiServer, project: str = "default", scope: Scope = Scope.WRITE) -> Iterator[httpx.Client]:
    """HTTP with a new key of the project."""
    with api.client() as client:
        client.headers.update(bearer(new_key(project, scope)))
        yield client
