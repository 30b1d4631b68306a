"""The jobs of a chaos run: made through the API, read back through it."""

import threading
import time
from pathlib import Path
from typing import Any

import httpx

from trainer.metrics import is_wall_clock

Spec = dict[str, Any]
STEPS = 24
EVERY = 4  # steps between two checkpoints
ENDED = {"succeeded", "failed", "cancelled"}


def make_spec(folder: Path) -> Spec:
    """A model of random weights and a file of sums, and the job that trains the one on the other for some seconds."""
    from trainer.first_run import character_tokenizer, small_qwen3
    from trainer.tasks import sums

    tokenizer = character_tokenizer()
    small_qwen3(tokenizer, seed=0).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    sums.write_problems(folder / "train.jsonl", 64, seed=1)
    return {
        "steps": STEPS,
        "seed": 7,
        "model": {"path": str(folder / "base")},
        "dataset": {"path": str(folder / "train.jsonl")},
        "rollout": {"engine": "transformers", "prompts_per_step": 2, "group_size": 4, "max_new_tokens": 8},
        "optimizer": {"lr": 1e-4},
        "rewards": [{"type": "regex", "pattern": "[0-9]"}],
        "checkpoints": {"every": EVERY},
        "resources": {"device": "cpu", "threads": 1},
    }


class Submitter(threading.Thread):
    """Makes jobs evenly over some time; sends each again under its key until it is answered, whatever the API goes through."""

    def __init__(self, url: str, spec: Spec, name: str, jobs: int, seconds: float) -> None:
        super().__init__(name="submitter", daemon=True)
        self._url = url
        self._spec = spec
        self._name = name  # of each job, with its number
        self._jobs = jobs
        self._wait = seconds / jobs
        self.ids: list[str] = []
        self.sent = 0  # requests
        self.refused = ""

    def run(self) -> None:
        for number in range(self._jobs):
            self.ids.append(self._submit(number))
            time.sleep(self._wait)

    def _submit(self, number: int) -> str:
        name = f"{self._name}-{number}"
        body, key = {**self._spec, "name": name}, {"idempotency-key": name}
        while True:
            self.sent += 1
            try:
                answer = httpx.post(f"{self._url}/v1/jobs", json=body, headers=key, timeout=3.0, trust_env=False)
                if answer.status_code == httpx.codes.CREATED:
                    return str(answer.json()["id"])
                answer.raise_for_status()
            except httpx.TransportError:
                pass
            except httpx.HTTPStatusError as error:
                if not error.response.is_server_error:
                    self.refused = error.response.text
                    raise
            time.sleep(0.2)


class Reader:
    """What the API tells of jobs."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=f"{url}/v1", timeout=30.0, trust_env=False)

    def get(self, path: str) -> Any:
        return self._client.get(path).raise_for_status().json()

    def job(self, job_id: str) -> Any:
        return self.get(f"/jobs/{job_id}")

    def listed(self) -> list[str]:
        """The ids of all jobs, newest first."""
        ids: list[str] = []
        page: Any = {"has_more": True}
        while page["has_more"]:
            page = self.get("/jobs?limit=100" + (f"&after={ids[-1]}" if ids else ""))
            ids += [job["id"] for job in page["data"]]
        return ids

    def events(self, job_id: str) -> list[Any]:
        events: list[Any] = []
        while page := self.get(f"/jobs/{job_id}/events?limit=1000&after={events[-1]['id'] if events else 0}")["data"]:
            events += page
        return events

    def curves(self, job_id: str) -> dict[str, tuple[list[int], list[float]]]:
        """name -> (steps, values), without the metrics that measure the machine."""
        series = self.get(f"/jobs/{job_id}/metrics")["series"]
        return {name: (curve["step"], curve["value"]) for name, curve in series.items() if not is_wall_clock(name)}

    def samples(self, job_id: str, step: int) -> list[Any]:
        """Prompts with their completions; which attempt sampled them does not count."""
        rows = self.get(f"/jobs/{job_id}/samples?step={step}")["data"]
        return [{key: value for key, value in row.items() if key != "attempt"} for row in rows]
