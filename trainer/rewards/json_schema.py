"""The JSON schema grader. A schema's patterns may backtrack for hours, so it runs in the pool."""

import json
import re

from trainer.grader_config import JsonSchemaGrader
from trainer.rewards.answer import without_thinking
from trainer.rewards.grader import Grader
from trainer.rewards.pool import Call
from trainer.types import Completion, Problem

SCHEMA_CHECK = "trainer.rewards.schema_check"
_BLOCK = re.compile(r"```json\s*\n(.*?)```", re.DOTALL)


def json_schema_grader(spec: JsonSchemaGrader) -> Grader:
    """1.0 where what follows the thinking, or its last ```json block, is JSON that the schema allows."""
    schema = json.dumps(spec.json_schema)

    def grade(_: Problem, completion: Completion) -> Call:
        text = without_thinking(completion.text)
        blocks = _BLOCK.findall(text)
        return Call(f"{SCHEMA_CHECK}:valid_json", (schema, blocks[-1] if blocks else text), spec.timeout)

    return grade
