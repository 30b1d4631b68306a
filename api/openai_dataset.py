"""Training files in OpenAI's form for reinforcement, `{"messages": [...], ...item}`, as problems with answers."""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from api import uploads
from api.models import File, Purpose, is_id
from trainer.config import Dataset
from trainer.data import iter_rows
from trainer.strict import SpecError


@dataclass(frozen=True, slots=True)
class Problems:
    """A file that a job can train on, or be scored on."""

    file: File
    system_prompt: str | None
    rows: int


def problems_of(session: Session, file_id: str, param: str, answer_column: str) -> Problems:
    """The file itself where its rows have a problem and that column; else one made of its messages, kept as a file of its own.

    Raises SpecError that names the line and the field.
    """
    file = session.get(File, file_id, with_for_update={"read": True}) if is_id("file", file_id) else None
    if file is None:
        raise SpecError(param, f"no uploaded file has the id {file_id!r:.80}")
    if "messages" not in file.columns:
        if "problem" not in file.columns or answer_column not in file.columns:
            columns = ", ".join(file.columns)
            raise SpecError(param, f"{file.filename} needs `messages`, or `problem` and `{answer_column}`; it has {columns}")
        return Problems(file, None, file.rows)
    system, rows = _read(file, param, answer_column)
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    with uploads.received(io.BytesIO(text), f"{file.id}.jsonl", Purpose.DERIVED) as derived:
        uploads.keep(session, derived)
    return Problems(derived, system, len(rows))


def _read(file: File, param: str, answer_column: str) -> tuple[str | None, list[dict[str, Any]]]:
    systems: set[str | None] = set()
    rows: list[dict[str, Any]] = []
    for number, row in enumerate(_rows(file, param), start=1):
        where = f"row {number} of {file.filename}"
        system, problem = _conversation(row, where, param)
        systems.add(system)
        if len(systems) > 1:
            raise SpecError(param, f"{where}: messages.0.content: the system message must be the same in every row")
        if answer_column not in row or row[answer_column] is None:
            raise SpecError(param, f"{where} has no {answer_column!r}, which the grader compares with")
        answer = row[answer_column]
        item = {key: value for key, value in row.items() if key not in {"messages", "problem", "answer"}}
        rows.append({**item, "problem": problem, "answer": answer if isinstance(answer, str) else json.dumps(answer)})
    return systems.pop() if systems else None, rows


def _rows(file: File, param: str) -> Iterator[dict[str, Any]]:
    return iter_rows(Dataset(path=str(uploads.location(file))), param)


def _conversation(row: dict[str, Any], where: str, param: str) -> tuple[str | None, str]:
    """(system message, user message) of a row."""
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        raise SpecError(param, f"{where}: messages must be a list of messages; got {messages!r:.80}")
    texts = [_text(message, f"{where}: messages.{place}", param) for place, message in enumerate(messages)]
    roles = [role for role, _ in texts]
    if roles not in (["user"], ["system", "user"], ["developer", "user"]):
        told = ", ".join(roles)
        raise SpecError(param, f"{where}: messages must be one user message, a system message before it or not; got {told}")
    return (texts[0][1] if len(texts) == 2 else None), texts[-1][1]


def _text(message: Any, where: str, param: str) -> tuple[str, str]:
    if not isinstance(message, dict):
        raise SpecError(param, f"{where} is no message: {message!r:.80}")
    role, content = message.get("role"), message.get("content")
    if isinstance(content, list) and all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str) or not content.strip():
        raise SpecError(param, f"{where}.content must be text; got {content!r:.80}")
    return str(role), content
