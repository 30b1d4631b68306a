"""One optimizer step of the learner on a Qwen3 shape: tokens/s, peak memory, and the step beside its arithmetic floor.

    python -m benchmarks.learner [--shape small|4b] [--completions 32] [--median 120] [--prompt 16] [--compile layers|mlp]
    python -m benchmarks.learner --peer trl --peer-python /path/to/an/environment/with/trl/bin/python

The floor is 6 x parameters x tokens at the rate that matrix products of the model's own shapes reach, measured in the same run
before and after the steps. Completions have log-normal lengths (sigma 0.7), cut to 32..512 (small) or 64..4096 (4b).
Real tokens count: prompts and completions, no padding. MFU is against the measured rate, and against --peak-tflops.
With --peer trl, TRL's GRPOTrainer then does the same steps on the same sequences in an environment of its own.
"""

import argparse
import json
import resource
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median

import torch
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from trainer.algorithm_config import Mhpo
from trainer.batch import TrainSequence
from trainer.config import Optimizer
from trainer.first_run import character_tokenizer
from trainer.learner import Before, Learner, TokenRecord
from trainer.objective import Objective
from trainer.policy import Policy


@dataclass(frozen=True)
class Shape:
    """A model shape and the completions trained on."""

    config: Qwen3Config
    dtype: torch.dtype
    longest: int
    shortest: int
    micro_batch_tokens: int


def shapes() -> dict[str, Shape]:
    """small: 54.5M parameters, for a CPU. 4b: Qwen3-4B, for a GPU."""
    small = Qwen3Config(
        vocab_size=32_768, hidden_size=512, intermediate_size=1536, num_hidden_layers=12, num_attention_heads=8,
        num_key_value_heads=4, head_dim=64, tie_word_embeddings=True, max_position_embeddings=4096,
    )  # fmt: skip
    qwen3_4b = Qwen3Config(
        vocab_size=151_936, hidden_size=2560, intermediate_size=9728, num_hidden_layers=36, num_attention_heads=32,
        num_key_value_heads=8, head_dim=128, tie_word_embeddings=True, max_position_embeddings=40_960,
    )  # fmt: skip
    return {
        "small": Shape(small, torch.float32, longest=512, shortest=32, micro_batch_tokens=1536),
        "4b": Shape(qwen3_4b, torch.bfloat16, longest=4096, shortest=64, micro_batch_tokens=16_384),
    }


def completions(shape: Shape, count: int, typical: int, prompt: int, seed: int) -> list[TrainSequence]:
    """Random tokens with log-normal completion lengths."""
    random = Random(seed)
    vocabulary = shape.config.vocab_size
    rows = []
    for _ in range(count):
        length = min(shape.longest, max(shape.shortest, round(typical * random.lognormvariate(0, 0.7))))
        tokens = [random.randrange(vocabulary) for _ in range(prompt + length)]
        rows.append(TrainSequence(tuple(tokens[:prompt]), tuple(tokens[prompt:]), (-1.0,) * length, random.gauss(0, 1)))
    return rows


def matmul_rate(shape: Shape, rows: int, device: torch.device, seconds: float = 1.0) -> float:
    """FLOP a second over the products of one layer and the head, weighed as in the model."""
    c = shape.config
    heads, kv = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
    layer = [(c.hidden_size, heads + 2 * kv), (heads, c.hidden_size), (c.hidden_size, 2 * c.intermediate_size)]
    sizes = [*layer, (c.intermediate_size, c.hidden_size)] * c.num_hidden_layers + [(c.hidden_size, c.vocab_size)]
    made = {size: torch.randn(size, dtype=shape.dtype, device=device) for size in dict.fromkeys(sizes)}
    inputs = {inner: torch.randn(rows, inner, dtype=shape.dtype, device=device) for inner, _ in made}
    done, start = 0, 0.0
    for round_ in range(1000):
        if round_ == 1:  # the first round warms up
            synchronize(device)
            start = time.perf_counter()
        for size in sizes:
            inputs[size[0]] @ made[size]
        synchronize(device)
        done += 2 * rows * sum(inner * outer for inner, outer in sizes) * (round_ > 0)
        if round_ and time.perf_counter() - start > seconds:
            break
    return done / (time.perf_counter() - start)


def synchronize(device: torch.device) -> None:
    """Waits for the GPU; nothing on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def make_policy(shape: Shape, tokenizer: PreTrainedTokenizerFast, device: torch.device) -> Policy:
    """Random weights."""
    torch.manual_seed(0)
    with torch.device(device):
        model = Qwen3ForCausalLM(shape.config).to(shape.dtype).eval()
    return Policy(model, tokenizer, temperature=1.0)


def compile_layers(policy: Policy, *, whole: bool) -> None:
    """For any length, by torch.compile; it is done in the first step."""
    for layer in policy.model.base_model.layers:
        for part in [layer] if whole else [layer.mlp, layer.input_layernorm, layer.post_attention_layernorm]:
            part.forward = torch.compile(part.forward, dynamic=True)


def peak_memory_gb(device: torch.device) -> float:
    """GB: allocated on the GPU, or this process's resident peak, weights, optimizer and libraries included."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def peer(python: Path, shape: Shape, sequences: Sequence[TrainSequence], steps: int, micro_batch: int) -> tuple[float, str]:
    """TRL's seconds a step (its first left out), and a line about it."""
    task = {
        "config": shape.config.to_diff_dict(),
        "sequences": [(s.prompt_token_ids, s.completion_token_ids) for s in sequences],
        "steps": steps + 1,
        "micro_batch": micro_batch,
    }
    command = [str(python), str(Path(__file__).with_name("trl_peer.py"))]
    output = subprocess.run(command, input=json.dumps(task), stdout=subprocess.PIPE, text=True, check=True).stdout
    told = json.loads(output.splitlines()[-1])
    seconds = median(told["seconds"][1:])
    return seconds, f"TRL {told['trl']}, micro-batches of {micro_batch} sequences, peak memory {told['peak_memory_gb']:.2f} GB"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learner", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", choices=["small", "4b"], default="small")
    parser.add_argument("--completions", type=int, default=32)
    parser.add_argument("--median", type=int, default=120)
    parser.add_argument("--prompt", type=int, default=16)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--micro-batch-tokens", type=int)
    parser.add_argument("--activation-checkpointing", action="store_true")
    parser.add_argument("--compile", choices=["layers", "mlp"], help="torch.compile each layer, or its MLP and norms alone")
    parser.add_argument("--peer", choices=["trl"], help="also time this trainer on the same sequences")
    parser.add_argument("--peer-python", type=Path, help="the Python of the environment that the peer is installed in")
    parser.add_argument("--peer-micro-batch", type=int, default=8, help="sequences in one of the peer's micro-batches")
    parser.add_argument("--peak-tflops", type=float, help="datasheet peak of the GPU, for a second MFU")
    arguments = parser.parse_args()
    if arguments.peer and not arguments.peer_python:
        parser.error("--peer needs --peer-python")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shape = shapes()[arguments.shape]
    sequences = completions(shape, arguments.completions, arguments.median, arguments.prompt, seed=0)
    tokens = sum(s.length for s in sequences)
    budget = arguments.micro_batch_tokens or shape.micro_batch_tokens
    policy = make_policy(shape, character_tokenizer(), device)
    if arguments.activation_checkpointing:
        policy.checkpoint_activations()
    if arguments.compile:
        compile_layers(policy, whole=arguments.compile == "layers")
    parameters = sum(p.numel() for p in policy.model.parameters())
    learner = Learner(policy, Optimizer(lr=1e-6), Objective(algorithm=Mhpo()), total_updates=100, micro_batch_tokens=budget)
    before = matmul_rate(shape, min(tokens, budget), device)
    seconds = []
    for _ in range(arguments.steps + 1):
        synchronize(device)
        start = time.perf_counter()
        learner.update(sequences, Before(), TokenRecord())
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    rate = (before + matmul_rate(shape, min(tokens, budget), device)) / 2
    step, floor = median(seconds[1:]), 6 * parameters * tokens / rate
    print(f"{parameters / 1e6:.1f}M parameters, {str(shape.dtype).removeprefix('torch.')}, {device.type}; {tokens} tokens in")
    print(f"{len(sequences)} sequences, micro-batches of at most {budget} tokens; {torch.get_num_threads()} CPU threads")
    print(f"step {step:.3f} s (first {seconds[0]:.3f} s): {tokens / step:,.0f} tokens/s")
    print(f"peak memory {peak_memory_gb(device):.2f} GB")
    print(
        f"floor {floor:.3f} s at {rate / 1e12:.3f} TFLOP/s: the step takes {step / floor:.2f} times it ({floor / step:.0%} MFU)"
    )
    if arguments.peak_tflops:
        mfu = 6 * parameters * tokens / step / arguments.peak_tflops / 1e12
        print(f"MFU against {arguments.peak_tflops:g} TFLOP/s: {mfu:.1%}")
    if arguments.peer:
        theirs, about = peer(arguments.peer_python, shape, sequences, arguments.steps, arguments.peer_micro_batch)
        print(f"{about}: step {theirs:.3f} s, {tokens / theirs:,.0f} tokens/s; ours takes {step / theirs:.2f} times that")


if __name__ == "__main__":
    main()
