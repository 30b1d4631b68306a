"""`mhpo samples`: prompts of a step with what the model answered."""

from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from cli.client import Client, Json
from cli.say import say, say_json, wide_console


def samples(job_id: str, asked: dict[str, Any], limit: int, url: str, *, as_json: bool) -> None:
    """Print prompts of a step, each with its completions and their rewards; `asked`: the filters of the route."""
    chosen = {name: value for name, value in asked.items() if value is not None}
    found = Client(url).get(f"/v1/jobs/{job_id}/samples", **chosen)["data"]
    if as_json:
        for sample in found[:limit]:
            say_json(sample)
        return
    for sample in found[:limit]:
        wide_console().print(_shown(sample))
    if len(found) > limit:
        say(f"{len(found) - limit} more; --limit {len(found)} shows all")
    elif not found:
        say("no completion that the filters take" if chosen.keys() - {"step"} else "no sample of this step yet")


def _shown(sample: Json) -> Group:
    """Text of a model is no markup."""
    head = Text(f"step {sample['step']}  {sample['problem_id']}  answer {sample['answer']}", style="bold")
    blocks: list[RenderableType] = [head, Text(sample["prompt"].strip(), style="dim")]
    for one in sample["completions"]:
        facts = [f"reward {one['reward']:.3g}" if one["reward"] is not None else "not graded"]
        if one.get("advantage") is not None:
            facts.append(f"advantage {one['advantage']:+.3g}")
        facts += [f"{one['tokens']} tokens", str(one["finish_reason"])]
        blocks += [Text(f"{one['index']}  {'  '.join(facts)}", style="cyan"), Padding(Text(one["text"]), (0, 0, 0, 3))]
    return Group(*blocks, Text())
