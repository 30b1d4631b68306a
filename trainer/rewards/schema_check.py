"""Whether a text is JSON that a schema allows. Runs in the pool's processes only."""

import json

from jsonschema.validators import Draft202012Validator, validator_for
from referencing import Registry


def valid_json(schema: str, text: str) -> float:
    """1.0 where the text is JSON that the schema allows. Nothing is fetched: a reference to elsewhere is an error."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return 0.0
    parsed = json.loads(schema)
    validator = validator_for(parsed, default=Draft202012Validator)
    return float(validator(parsed, registry=Registry()).is_valid(document))
