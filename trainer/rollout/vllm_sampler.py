"""Rollouts by vLLM: one child process with an in-process engine, weights pushed through a file in shared memory."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from socket import socketpair
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from trainer.config import Model, Resources
from trainer.process import end_with_parent
from trainer.remote_code import is_trusted
from trainer.rollout.sampler import Finished, SampleRequest, SamplingSettings, WeightSyncError
from trainer.rollout.vision import can_see, vision_path
from trainer.rollout.vllm_child import RawCompletion
from trainer.rollout.vllm_plugin import ENGINE_VARIABLE
from trainer.types import Completion

CLOSE_SECONDS = 10
PULSE_SECONDS = 5.0  # between two signs of life of an engine at work
SHARED_MEMORY = Path("/dev/shm")


class EngineError(RuntimeError):
    """The rollout engine did not start, died or failed."""


class VllmSampler:
    """Speaks to the engine process; every answer is waited for. A dead engine is noticed at once by its closed pipe, one that
    hangs by its silence (`resources.engine_timeout`)."""

    def __init__(
        self,
        model: Model,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_model_len: int,
        concurrency: int,
        device: torch.device,
        resources: Resources,
        images: int = 0,
    ) -> None:
        """`images`: in one prompt, at most."""
        if find_spec("vllm") is None:
            raise EngineError("rollout.engine is 'vllm', and vLLM is not installed; install it or ask for 'transformers'")
        if images and not can_see():
            raise EngineError("rows with images need torchvision, and it is not installed: docs/evaluation.md says how")
        self._tokenizer = tokenizer
        self._timeout = resources.engine_timeout
        self._folder = tempfile.TemporaryDirectory(
            prefix="mhpo-weights-", dir=SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
        )
        ours, theirs = socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "trainer.rollout.vllm_child", str(theirs.fileno())],
                env=engine_environment(device, images),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                preexec_fn=end_with_parent(),
            )
        self._generating = False  # between start and finish the engine's next answer is theirs
        self._pipe = Connection(ours.detach())
        options = engine_options(
            model,
            max_model_len=max_model_len,
            concurrency=concurrency,
            device=device,
            resources=resources,
            images=images,
        )
        self._pipe.send((options, PULSE_SECONDS))
        self._answer("start")

    def generate(self, requests: Sequence[SampleRequest], settings: SamplingSettings) -> list[tuple[Completion, ...]]:
        self.start(requests, settings)
        return self.finish()

    def start(self, requests: Sequence[SampleRequest], settings: SamplingSettings) -> None:
        """Returns at once; the engine process generates while this one does something else."""
        self._send("generate", [(list(r.prompt_token_ids), list(r.seeds)) for r in requests], sampling_arguments(settings))
        self._generating = True

    def finish(self) -> list[tuple[Completion, ...]]:
        assert self._generating
        self._generating = False
        raw: list[list[RawCompletion]] = self._answer("generate")
        return [tuple(self._completion(*one) for one in group) for group in raw]

    def stream(self, requests: Sequence[tuple[SampleRequest, SamplingSettings]]) -> Iterator[list[Finished]]:
        """The engine generates on while the caller looks at what is finished."""
        asked = [
            (list(request.prompt_token_ids), list(request.seeds), list(request.images), sampling_arguments(settings))
            for request, settings in requests
        ]
        self._ask("enqueue", asked)
        left = sum(len(request.seeds) for request, _ in requests)
        if left:
            self._send("poll")
        while left:
            finished: list[tuple[int, int, RawCompletion]] = self._answer("poll")
            left -= len(finished)
            if left:
                self._send("poll")
            if finished:
                yield [(number, i, self._completion(*raw)) for number, i, raw in finished]

    def push_weights(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        path = Path(self._folder.name) / "weights.safetensors"
        save_file({name: weight.contiguous() for name, weight in weights}, path)
        try:
            self._ask("push_weights", str(path), str(version))
        except EngineError as error:
            raise WeightSyncError(f"the engine did not take the weights: {error}") from error
        finally:
            path.unlink()

    def token_logprobs(self, sequences: Sequence[tuple[int, ...]]) -> list[list[float]]:
        rows: list[list[float]] = self._ask("token_logprobs", [list(s) for s in sequences])
        return rows

    def rest(self) -> None:
        self._ask("rest")

    def close(self) -> None:
        self._pipe.close()
        try:
            self._process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()

    def _completion(self, tokens: list[int], logprobs: list[float], finish_reason: str) -> Completion:
        return Completion(
            token_ids=tuple(tokens),
            text=self._tokenizer.decode(tokens, skip_special_tokens=True),
            sampler_logprobs=tuple(logprobs),
            finish_reason="stop" if finish_reason == "stop" else "length",
        )

    def _ask(self, verb: str, *arguments: Any) -> Any:
        self._send(verb, *arguments)
        return self._answer(verb)

    def _send(self, verb: str, *arguments: Any) -> None:
        assert not self._generating, f"{verb!r} asked between start and finish"
        with suppress(OSError):  # a dead engine: the answer says so
            self._pipe.send((verb, arguments))

    def _answer(self, verb: str) -> Any:
        status, value = self._receive(verb)
        while status == "working":
            status, value = self._receive(verb)
        if status == "error":
            raise EngineError(f"{verb!r} failed in the engine:\n{value}")
        return value

    def _receive(self, verb: str) -> tuple[str, Any]:
        """The next message; raises EngineError for an engine that is dead or has hung."""
        try:
            if not self._pipe.poll(self._timeout):
                raise EngineError(f"the engine process hangs in {verb!r}: nothing heard of it for {self._timeout:g} s")
            message: tuple[str, Any] = self._pipe.recv()
        except (EOFError, OSError) as error:
            code = self._process.wait()
            raise EngineError(
                f"the engine process died in {verb!r} (exit code {code}); its output is above in the log"
            ) from error
        return message


def sampling_arguments(settings: SamplingSettings) -> dict[str, Any]:
    """Arguments of vLLM's `SamplingParams`."""
    arguments: dict[str, Any] = {
        "max_tokens": settings.max_new_tokens,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
    }
    return arguments | {"stop": list(settings.stop)} if settings.stop else arguments


def engine_environment(device: torch.device, images: int = 0) -> dict[str, str]:
    """Variables of the engine process: an in-process engine, and on a CPU no compilation and no spinning threads."""
    variables = {
        ENGINE_VARIABLE: "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
    }
    if device.type == "cpu":
        variables |= {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE", "TORCHDYNAMO_DISABLE": "1"}
    if images:
        variables |= {"PYTHONPATH": vision_path()}
    return os.environ | variables


def engine_options(
    model: Model, *, max_model_len: int, concurrency: int, device: torch.device, resources: Resources, images: int = 0
) -> dict[str, Any]:
    """Arguments of vLLM's `LLM`. Log-probabilities are those of the distribution really sampled from."""
    options: dict[str, Any] = {
        "model": model.path,
        "revision": model.revision,
        "dtype": model.dtype,
        "load_format": "safetensors",  # "auto" would fall back to pickles
        "trust_remote_code": is_trusted(),
        "max_model_len": max_model_len,
        "max_num_seqs": concurrency,
        "seed": 0,  # every request carries its own
        "logprobs_mode": "processed_logprobs",
        "weight_transfer_config": {"backend": "shm"},
    }
    if images:
        options |= {"limit_mm_per_prompt": {"image": images, "video": 0}}
    if device.type == "cpu":
        return options | {"enforce_eager": True, "kv_cache_memory_bytes": resources.kv_cache_mb * 2**20}
    return options | {
        "gpu_memory_utilization": resources.engine_memory_fraction,
        "enable_sleep_mode": resources.engine_sleeps,
    }
