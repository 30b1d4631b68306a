"""`mhpo logs` and `mhpo events`: what a run has written, and what it writes."""

from collections.abc import Iterator
from typing import Any

from api.news import Position
from cli.client import Client, Json
from cli.errors import CliError, ExitCode
from cli.feed import Feed
from cli.run import Run
from cli.say import say, say_json
from cli.watch import WAIT_SECONDS
from cli.words import event_line, is_loud

TRAINER = "trainer"
MOST_LINES = 10_000  # that one request may ask for
_ENDED = ("succeeded", "failed", "cancelled")


def logs(job_id: str, component: str, tail: int, search: str | None, url: str, *, follow: bool, as_json: bool) -> None:
    """Print the end of a log; `follow`: and what comes, to the end of the job."""
    client, path = Client(url), f"/v1/jobs/{job_id}/logs"
    asked: dict[str, Any] = {"component": component, "tail": tail, **({"search": search} if search else {})}
    if not follow:
        page = client.get(path, **asked)
        if as_json:
            say_json(page)
        else:
            _say_lines(page["lines"])
        return
    if component != TRAINER or search:
        raise CliError(
            "only the trainer's log as a whole can be followed: leave out --component and --search", ExitCode.REFUSED
        )
    for line in _followed(client, job_id, asked):
        if as_json:
            say_json(line)
        else:
            say(line["text"])


def events(job_id: str, url: str, *, phases: bool, follow: bool, as_json: bool) -> None:
    """Print what has happened, oldest first; `follow`: and what happens, to the end of the job.

    A step's phases are left out where they are not asked for; JSON has all.
    """
    client = Client(url)
    for event in _events_followed(client, job_id) if follow else client.rows(f"/v1/jobs/{job_id}/events"):
        if as_json:
            say_json(event)
        elif phases or is_loud(event):
            say(event_line(event))


def _events_followed(client: Client, job_id: str) -> Iterator[Json]:
    with Run.opened(client, job_id, ()) as run:
        while run.ended is None:
            yield from (each for each in run.wait(WAIT_SECONDS) if each["object"] == "event")


def _followed(client: Client, job_id: str, asked: dict[str, Any]) -> Iterator[Json]:
    """Lines as `{"offset", "text"}`: those that were there when the stream began, then each once it is written."""
    path = f"/v1/jobs/{job_id}"
    client.get(path)
    cut: Json | None = None  # a line whose end comes by the stream
    place = -1  # the byte up to which the log has been read
    with Feed(client, f"{path}/stream", {"from": "now", "kinds": ["status", "log"]}) as feed:
        while True:
            for sent in feed.take(WAIT_SECONDS):
                here = Position.parse(sent.id).log
                if place < 0:
                    lines = client.get(f"{path}/logs", **asked, before=here)["lines"]
                    cut = lines.pop() if lines and _end(lines[-1]) > here else None
                    yield from lines
                if sent.kind == "log":
                    yield from _split(sent.data["text"], here, cut)
                    cut = None
                place = here
                if sent.kind == "status" and sent.data["status"] in _ENDED:
                    rest = client.get(f"{path}/logs", tail=MOST_LINES)["lines"]
                    yield from (line for line in rest if line["offset"] >= (cut["offset"] if cut else place))
                    return


def _split(text: str, end: int, cut: Json | None) -> list[Json]:
    """The lines of a piece of the log that ends at byte `end`; the first of them goes on with `cut`."""
    lines, start = [], end - len(text.encode())
    for line in text.removesuffix("\n").split("\n"):
        lines.append({"offset": start, "text": line})
        start = _end(lines[-1])
    if cut:
        lines[0] = {"offset": cut["offset"], "text": cut["text"] + lines[0]["text"]}
    return lines


def _end(line: Json) -> int:
    """The byte behind a line and its newline."""
    return int(line["offset"]) + len(line["text"].encode()) + 1


def _say_lines(lines: list[Json]) -> None:
    for line in lines:
        say(line["text"])
