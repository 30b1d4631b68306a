"""Webhooks: who is told of the end of jobs."""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from fastapi import APIRouter
from pydantic import Field, field_validator
from sqlalchemy import select

from api import webhooks
from api.body import JsonBody
from api.dependencies import SessionDep
from api.destinations import refusal
from api.errors import not_found
from api.models import Delivery, Webhook
from api.openapi import json_body
from api.schemas import Listing, View
from trainer.strict import Listed, Strict

Event = Literal["fine_tuning.job.succeeded", "fine_tuning.job.failed", "fine_tuning.job.cancelled"]

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])


class NewWebhook(Strict):
    url: Annotated[str, Field(max_length=2000, description="http or https; it gets a POST and must answer 2xx in 10 seconds")]
    events: Annotated[Listed[tuple[Event, ...]], Field(min_length=1)] = get_args(Event)

    @field_validator("url")
    @classmethod
    def _can_be_called(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
            raise ValueError(f"must be an http or https address without a password; got {url!r:.80}")
        if (fault := refusal(parts.hostname)) is not None:
            raise ValueError(f"{fault}; got {parts.hostname!r:.80}")
        return url


class WebhookView(View):
    object: Literal["webhook"] = "webhook"
    id: str
    url: str
    events: list[str]
    created_at: datetime


class NewWebhookView(WebhookView):
    secret: Annotated[str, Field(description="Shown here only; receivers verify the signature with it")]


class DeliveryView(View):
    object: Literal["webhook.delivery"] = "webhook.delivery"
    id: Annotated[str, Field(description="The `webhook-id` header, the same at each attempt")]
    type: str
    payload: dict[str, Any]
    attempts: int
    last_error: str | None
    created_at: datetime
    next_at: Annotated[datetime, Field(description="Of the next attempt, where there is one")]
    delivered_at: datetime | None
    failed_at: Annotated[datetime | None, Field(description="When the last attempt had failed")]


_EXAMPLE = {"url": "https://example.com/hook", "events": ["fine_tuning.job.succeeded"]}


@router.post("", status_code=HTTPStatus.CREATED, openapi_extra={"requestBody": json_body(NewWebhook, _EXAMPLE)})
def create_webhook(body: JsonBody, session: SessionDep) -> NewWebhookView:
    """Have a URL told of the end of jobs, signed as standardwebhooks.com says and as OpenAI's clients verify it."""
    wanted = NewWebhook.parse(body)
    with session.begin():
        webhook = webhooks.make(session, wanted.url, list(wanted.events))
    session.refresh(webhook)
    return NewWebhookView.model_validate(webhook)


@router.get("")
def list_webhooks(session: SessionDep) -> Listing[WebhookView]:
    """All, newest first."""
    found = session.scalars(select(Webhook).order_by(Webhook.created_at.desc(), Webhook.id))
    return Listing(data=[WebhookView.model_validate(each) for each in found])


@router.delete("/{webhook_id}")
def delete_webhook(webhook_id: str, session: SessionDep) -> WebhookView:
    """Tell it no more, also not of what is still waiting to be sent."""
    with session.begin():
        webhook = _find(session, webhook_id)
        view = WebhookView.model_validate(webhook)
        session.delete(webhook)
    return view


@router.post("/{webhook_id}/test")
def test_webhook(webhook_id: str, session: SessionDep) -> DeliveryView:
    """Send a `webhook.test` now, once; the answer says how it went."""
    with session.begin():
        webhook = _find(session, webhook_id)
        delivery = webhooks.add_test(session, webhook)
        session.refresh(delivery)
    webhooks.send(delivery, webhook)
    session.refresh(delivery)
    return DeliveryView.model_validate(delivery)


@router.get("/{webhook_id}/deliveries")
def list_deliveries(webhook_id: str, session: SessionDep) -> Listing[DeliveryView]:
    """The last 100 deliveries, newest first."""
    webhook = _find(session, webhook_id)
    sent = (
        select(Delivery).where(Delivery.webhook_id == webhook.id).order_by(Delivery.created_at.desc(), Delivery.id).limit(100)
    )
    return Listing(data=[DeliveryView.model_validate(each) for each in session.scalars(sent)])


def _find(session: SessionDep, webhook_id: str) -> Webhook:
    webhook = session.get(Webhook, webhook_id)
    if webhook is None:
        raise not_found("webhook", webhook_id)
    return webhook
