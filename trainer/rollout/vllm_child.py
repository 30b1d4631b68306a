"""The engine process: an in-process vLLM engine, driven over a pipe. Run by trainer/rollout/vllm_sampler.py.

Messages are (verb, arguments); each is answered by ("ok", value) or ("error", text). Before the answer, ("working", None) says
every few seconds of a long rollout that the engine has gone a step further. The process ends when the pipe closes.
"""

import signal
import sys
from collections.abc import Callable
from io import BytesIO
from multiprocessing.connection import Connection
from time import monotonic
from traceback import format_exc
from typing import Any

RawCompletion = tuple[list[int], list[float], str]  # token ids, their log-probabilities, finish reason
POLL_SECONDS = 0.5  # of generation between two answers of `poll`


class Engine:
    """vLLM's `LLM` behind the verbs that the sampler sends. `pulse` is called every `pulse_seconds` while it gets on."""

    def __init__(self, options: dict[str, Any], pulse: Callable[[], None], pulse_seconds: float) -> None:
        from vllm import LLM

        self._pulse = pulse
        self._pulse_seconds = pulse_seconds

        self._llm = LLM(**options)
        self._llm.init_weight_transfer_engine({"init_info": {}})
        self._asleep = False
        self._places: dict[str, tuple[int, int]] = {}  # vLLM's request id -> place of the request, and of the seed in it

    def generate(self, requests: list[tuple[list[int], list[int]]], sampling: dict[str, Any]) -> list[list[RawCompletion]]:
        """One completion for each (prompt, seed), all in flight together; a prompt's completions share its prefix."""
        self._wake()
        prompts = [{"prompt_token_ids": prompt} for prompt, seeds in requests for _ in seeds]
        parameters = [_parameters(sampling, seed) for _, seeds in requests for seed in seeds]
        self._llm.enqueue(prompts, parameters, use_tqdm=False)
        outputs = iter(self._outputs())
        return [[_raw(next(outputs).outputs[0]) for _ in seeds] for _, seeds in requests]

    def enqueue(self, requests: list[tuple[list[int], list[int], list[bytes], dict[str, Any]]]) -> None:
        """Takes in (prompt, seeds, images, sampling) for `poll` to work on."""
        self._wake()
        prompts = [one for prompt, seeds, images, _ in requests for one in [_prompt(prompt, images)] * len(seeds)]
        parameters = [_parameters(sampling, seed) for _, seeds, _, sampling in requests for seed in seeds]
        places = [(number, i) for number, (_, seeds, _, _) in enumerate(requests) for i in range(len(seeds))]
        ids = self._llm.enqueue(prompts, parameters, use_tqdm=False)
        # vLLM makes the ids that it returns unique by a suffix, and leaves it out of its outputs.
        self._places = {one.partition("-")[0]: place for one, place in zip(ids, places, strict=True)}

    def poll(self) -> list[tuple[int, int, RawCompletion]]:
        """Generates for POLL_SECONDS, or until all is finished; what was finished."""
        finished: list[tuple[int, int, RawCompletion]] = []
        end = monotonic() + POLL_SECONDS
        while self._places and monotonic() < end:
            done = [output for output in self._llm.llm_engine.step() if output.finished]
            finished += [(*self._places.pop(output.request_id), _raw(output.outputs[0])) for output in done]
        return finished

    def push_weights(self, path: str, version: str) -> None:
        """Replaces all weights, and forgets every cache made with the old ones; one that sleeps makes its caches after that."""
        if self._asleep:
            self._llm.wake_up(["weights"])
        self._llm.start_weight_update()
        self._llm.update_weights({"update_info": {"path": path}})
        self._llm.finish_weight_update(version)
        self._wake(["kv_cache"])
        self._llm.reset_prefix_cache()

    def rest(self) -> None:
        """Weights go to the machine's memory, caches go, until the next verb. On a CPU vLLM gives nothing back."""
        if not self._asleep:
            self._llm.sleep(level=1)
            self._asleep = True

    def _wake(self, parts: list[str] | None = None) -> None:
        """`parts`: what still sleeps, by vLLM's names; None for all."""
        if self._asleep and not self._llm.wake_up(parts):
            raise RuntimeError(f"the engine sleeps on after it was to wake up ({parts or 'all of it'})")
        self._asleep = False

    def token_logprobs(self, sequences: list[list[int]]) -> list[list[float]]:
        """Log-probabilities at temperature 1 of tokens 1.. of each sequence."""
        from vllm import SamplingParams

        self._wake()
        parameters = SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)
        outputs = self._llm.generate([{"prompt_token_ids": s} for s in sequences], parameters, use_tqdm=False)
        return [
            [position[token].logprob for position, token in zip(output.prompt_logprobs[1:], ids[1:], strict=True)]
            for output, ids in zip(outputs, sequences, strict=True)
        ]

    def _outputs(self) -> list[Any]:
        """What was enqueued, once all of it is finished, in its order; what `LLM.wait_for_completion` does, with a pulse."""
        engine = self._llm.llm_engine
        finished: list[Any] = []
        pulsed = monotonic()
        while engine.has_unfinished_requests():
            finished += [output for output in engine.step() if output.finished]
            if monotonic() >= pulsed + self._pulse_seconds:
                self._pulse()
                pulsed = monotonic()
        return sorted(finished, key=lambda output: int(output.request_id))


def _prompt(token_ids: list[int], images: list[bytes]) -> dict[str, Any]:
    if not images:
        return {"prompt_token_ids": token_ids}
    from PIL import Image

    opened = [Image.open(BytesIO(image)).convert("RGB") for image in images]
    return {"prompt_token_ids": token_ids, "multi_modal_data": {"image": opened}}


def _parameters(sampling: dict[str, Any], seed: int) -> Any:
    from vllm import SamplingParams

    return SamplingParams(**sampling, seed=seed, logprobs=0, detokenize=bool(sampling.get("stop")))


def _raw(output: Any) -> RawCompletion:
    tokens = list(output.token_ids)
    logprobs = [position[token].logprob for position, token in zip(output.logprobs, tokens, strict=True)]
    return tokens, logprobs, output.finish_reason


def serve(pipe: Connection, engine: Engine) -> None:
    """Answers until the other end closes. An error is an answer too: the learner decides what follows."""
    verbs: dict[str, Callable[..., Any]] = {
        "generate": engine.generate,
        "enqueue": engine.enqueue,
        "poll": engine.poll,
        "push_weights": engine.push_weights,
        "token_logprobs": engine.token_logprobs,
        "rest": engine.rest,
    }
    while True:
        try:
            verb, arguments = pipe.recv()
        except EOFError:
            return
        try:
            answer = ("ok", verbs[verb](*arguments))
        except Exception:  # noqa: BLE001  # the border of the process: the whole traceback goes to the learner
            answer = ("error", format_exc())
        pipe.send(answer)


def main() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):  # they reach the whole process group; the learner decides when we end
        signal.signal(number, signal.SIG_IGN)
    pipe = Connection(int(sys.argv[1]))
    options, pulse_seconds = pipe.recv()
    try:
        engine = Engine(options, lambda: pipe.send(("working", None)), pulse_seconds)
    except Exception:  # noqa: BLE001  # as in serve
        pipe.send(("error", format_exc()))
        return
    pipe.send(("ok", None))
    serve(pipe, engine)


if __name__ == "__main__":
    main()
