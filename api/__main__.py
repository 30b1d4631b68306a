"""`python -m api`: serve HTTP on MHPO_HOST:MHPO_PORT."""

import uvicorn

from api.settings import settings

uvicorn.run("api.main:app", host=settings().host, port=settings().port, timeout_graceful_shutdown=5)
