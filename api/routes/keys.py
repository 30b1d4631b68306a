"""API keys of the caller's project; every route needs a key of the scope admin."""

from datetime import timedelta
from http import HTTPStatus

from fastapi import APIRouter, Request, Response

from api import keys
from api.body import JsonBody
from api.caller import CALLER
from api.dependencies import SessionDep
from api.errors import not_found
from api.guard import KEYS_PATH
from api.key_views import KeyView, NewKey, NewKeyView
from api.models import DEFAULT_PROJECT, ApiKey
from api.schemas import Listing

router = APIRouter(prefix=KEYS_PATH, tags=["keys"])

_NEW_KEY = NewKey.model_json_schema(ref_template="#/components/schemas/{model}")
del _NEW_KEY["$defs"]  # the scope, which the answers have among the components
KEY_BODY = {
    "required": True,
    "content": {"application/json": {"schema": _NEW_KEY, "example": {"name": "ci", "scope": "read"}}},
}


@router.post("", status_code=HTTPStatus.CREATED, openapi_extra={"requestBody": KEY_BODY})
def create_key(body: JsonBody, session: SessionDep, request: Request, response: Response) -> NewKeyView:
    """Make a key for the project of the one that asks. The answer is the only place that has it."""
    wanted = NewKey.parse(body)
    caller = CALLER.get()
    lifetime = None if wanted.days is None else timedelta(days=wanted.days)
    with session.begin():
        project = caller.project if caller else DEFAULT_PROJECT
        key_id, key = keys.make_key(session, wanted.name, project, wanted.scope, lifetime)
    response.headers["location"] = request.url_for("get_key", key_id=key_id).path
    return NewKeyView(key=key, **KeyView.of(_find(session, key_id)).model_dump())


@router.get("")
def list_keys(session: SessionDep) -> Listing[KeyView]:
    """The project's keys, newest first, those that no longer work too."""
    return Listing(data=[KeyView.of(key) for key in keys.list_keys(session)])


@router.get("/{key_id}")
def get_key(key_id: str, session: SessionDep) -> KeyView:
    """One key, without the key itself."""
    return KeyView.of(_find(session, key_id))


@router.post("/{key_id}/revoke")
def revoke_key(key_id: str, session: SessionDep) -> KeyView:
    """Make a key useless, within a second."""
    with session.begin():
        key = keys.revoke_key(session, key_id)
    if key is None:
        raise not_found("key", key_id)
    return KeyView.of(key)


def _find(session: SessionDep, key_id: str) -> ApiKey:
    key = keys.find_key(session, key_id)
    if key is None:
        raise not_found("key", key_id)
    return key
