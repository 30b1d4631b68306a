"""What is asked and told about an API key over HTTP."""

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import Field

from api.models import ApiKey, Scope
from api.schemas import View
from trainer.strict import Count, Listed, Strict


class NewKey(Strict):
    """A key to be made."""

    name: Annotated[str, Field(min_length=1, max_length=64, description="Who or what uses it, for people")]
    scope: Annotated[Listed[Scope], Field(description="Each contains the one before")] = Scope.WRITE
    days: Annotated[Count | None, Field(le=3650, description="Until it expires; null: never")] = None


class KeyView(View):
    object: Literal["api_key"] = "api_key"
    id: str
    name: str
    project: str
    prefix: Annotated[str, Field(description="The first characters of the key")]
    scope: Scope
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: Annotated[datetime | None, Field(description="Exact to a minute")]

    @classmethod
    def of(cls, key: ApiKey) -> Self:
        return cls.model_validate(key)


class NewKeyView(KeyView):
    key: Annotated[str, Field(description="The key itself; nothing else tells it, now or later")]
