"""How often one caller may ask: a token bucket in Redis, shared by all API processes, on Redis's clock."""

import logging
import math
import time

from redis.asyncio import Redis
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)

# A bucket is one number: when it would be full again (generic cell rate algorithm). Times in ms.
_TAKE = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + clock[2] / 1000
local interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local full = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now) + interval
local early = full - burst * interval - now
if early > 0 then return math.ceil(early) end
redis.call('SET', KEYS[1], string.format('%.3f', full), 'PX', math.ceil(full - now))
return 0
"""
_MINUTE_MS = 60_000
_PATIENCE_SECONDS = 0.25
_OUTAGE_SECONDS = 5.0  # between two tries to reach a Redis that did not answer


class RateLimit:
    """`per_minute` requests a caller, all of them at once or spread; 0 for no limit.

    A Redis that does not answer limits nobody: the limit is for fairness, the keys are what protects.
    """

    def __init__(self, url: str, per_minute: int) -> None:
        self.per_minute = per_minute
        patience = _PATIENCE_SECONDS
        self._redis = Redis.from_url(url, socket_timeout=patience, socket_connect_timeout=patience) if per_minute else None
        self._no_try_before = 0.0

    async def wait_seconds(self, caller: str) -> int:
        """0 where the caller may go on, and the request is counted; else after how many seconds to try again."""
        if self._redis is None or time.monotonic() < self._no_try_before:
            return 0
        try:
            milliseconds = await self._redis.eval(
                _TAKE, 1, f"mhpo:rate:{caller}", str(_MINUTE_MS / self.per_minute), str(self.per_minute)
            )
        except RedisError as error:
            logger.warning("requests are not limited while Redis does not answer: %s", error)
            self._no_try_before = time.monotonic() + _OUTAGE_SECONDS
            return 0
        return math.ceil(int(milliseconds) / 1000)
