"""Webhooks by the Standard Webhooks scheme: told of a job's end, signed, tried again until the receiver has answered.

A trigger of the schema writes a delivery for each webhook in the transaction that ends a job, so none is lost and none is
sent of an end that was rolled back. A receiver may get one twice, under one `webhook-id`.
"""

import base64
import hashlib
import hmac
import json
import logging
import secrets
import time
from datetime import timedelta

import httpx
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from api.database import transaction
from api.destinations import ForbiddenError, open_destination
from api.models import Delivery, Json, Webhook, new_id
from api.settings import settings

logger = logging.getLogger(__name__)

TEST = "webhook.test"
MAX_ATTEMPTS = 10
_FACTOR = 3.0  # between two waits: with the first of 5 seconds the last attempt is 14 hours after the first
_BATCH = 20
_TIMEOUT = 10.0
_HELD = timedelta(seconds=60)  # for which a delivery that is being sent belongs to its sender


def make(session: Session, url: str, events: list[str]) -> Webhook:
    """A webhook of the caller's project, with a secret of its own."""
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    webhook = Webhook(id=new_id("hook"), url=url, events=events, secret=secret)
    session.add(webhook)
    session.flush()
    return webhook


def add_test(session: Session, webhook: Webhook) -> Delivery:
    """A delivery that stands for no job, held by the caller, who sends it."""
    event = {"id": new_id("evt"), "object": "event", "type": TEST, "created_at": int(time.time()), "data": {"id": webhook.id}}
    delivery = Delivery(webhook_id=webhook.id, type=TEST, payload=event, id=new_id("msg"), next_at=func.now() + _HELD)
    session.add(delivery)
    session.flush()
    return delivery


def deliver() -> int:
    """Send what is due; returns how many were tried. Raises the errors of an outage of the database."""
    due = _claim()
    for delivery, webhook in due:
        send(delivery, webhook)
    return len(due)


def send(delivery: Delivery, webhook: Webhook) -> str | None:
    """Send one that the caller holds, and record how it went; returns what went wrong, None where the receiver took it."""
    fault = _post(webhook, delivery)
    attempts = delivery.attempts + 1
    values: Json = {"attempts": attempts, "last_error": fault}
    if fault is None:
        values["delivered_at"] = func.now()
    elif attempts >= MAX_ATTEMPTS or delivery.type == TEST:
        values["failed_at"] = func.now()
        logger.warning("webhook %s: gave up on %s after %d attempts: %s", webhook.id, delivery.id, attempts, fault)
    else:
        wait = settings().webhook_backoff_seconds * _FACTOR ** (attempts - 1)
        values["next_at"] = func.now() + timedelta(seconds=wait)
    with transaction() as session:
        session.execute(update(Delivery).where(Delivery.id == delivery.id).values(values))
    return fault


def _claim() -> list[tuple[Delivery, Webhook]]:
    with transaction() as session:
        open_ = (Delivery.delivered_at.is_(None), Delivery.failed_at.is_(None), Delivery.next_at <= func.now())
        query = select(Delivery, Webhook).join(Webhook, Webhook.id == Delivery.webhook_id).where(*open_)
        query = query.order_by(Delivery.next_at).limit(_BATCH).with_for_update(of=Delivery, skip_locked=True)
        found = [(delivery, webhook) for delivery, webhook in session.execute(query)]
        keys = [delivery.id for delivery, _ in found]
        session.execute(
            update(Delivery)
            .where(Delivery.id.in_(keys))
            .values(next_at=func.now() + _HELD)
            .execution_options(synchronize_session=False)
        )
    return found


def _post(webhook: Webhook, delivery: Delivery) -> str | None:
    body = json.dumps(delivery.payload).encode()
    headers = {"content-type": "application/json", "user-agent": "mhpo", **sign(webhook.secret, delivery.id, body)}
    try:
        with open_destination(webhook.url, _TIMEOUT) as destination:
            answer = destination.post(content=body, headers=headers)
    except (httpx.HTTPError, httpx.InvalidURL, ForbiddenError) as error:
        return f"{type(error).__name__}: {error}"
    return None if answer.is_success else f"the receiver answered {answer.status_code}"


def sign(secret: str, message_id: str, body: bytes) -> dict[str, str]:
    """The three headers by which a receiver knows that the body is ours and new."""
    now = str(int(time.time()))
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.new(key, b".".join([message_id.encode(), now.encode(), body]), hashlib.sha256).digest()
    signature = "v1," + base64.b64encode(digest).decode()
    return {"webhook-id": message_id, "webhook-timestamp": now, "webhook-signature": signature}


def waiting(session: Session) -> int:
    """How many deliveries are still to be made."""
    open_ = (Delivery.delivered_at.is_(None), Delivery.failed_at.is_(None))
    return session.scalar(select(func.count()).select_from(Delivery).where(*open_)) or 0
