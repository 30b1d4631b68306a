"""What stands between the network and the routes, outermost first: headers, the guard, the body's clock."""

from fastapi import FastAPI

from api.body_timeout import BodyTimeout
from api.guard import Guard
from api.headers import SecurityHeaders
from api.rate_limit import RateLimit
from api.settings import settings

PER_MINUTE = 1200  # requests of one key, where the deployment says nothing else


def secure(app: FastAPI) -> None:
    """Guard `app`. Every middleware but the request's id must be there already: the last added sees a request first."""
    chosen = settings()
    default = 0 if chosen.on_loopback else PER_MINUTE
    limit = RateLimit(chosen.redis_url, default if chosen.rate_limit is None else chosen.rate_limit)
    app.add_middleware(BodyTimeout, seconds=chosen.body_seconds)
    app.add_middleware(Guard, needs_key=chosen.needs_key, limit=limit)
    app.add_middleware(SecurityHeaders)
