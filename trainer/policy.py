"""The model being trained: loading, and log-probabilities of completion tokens. Axes as in trainer/batch.py; V vocabulary."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_layers import GradientCheckpointingLayer

from trainer.attention import PACKED
from trainer.batch import Batch, TrainSequence, collate
from trainer.config import JobSpec, Model
from trainer.cpu.body import LONGEST, Body
from trainer.cpu.weights import fits
from trainer.head import head_logprobs
from trainer.objective_config import NoKl
from trainer.remote_code import is_trusted
from trainer.strict import SpecError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
PACKING_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.5}  # nats, of check_packing; rounding is at most a tenth of it


@dataclass(frozen=True, slots=True)
class TokenDistribution:
    """At each trained token; 0 where masked."""

    logprobs_BT: Tensor  # of the token that was sampled; nats, at the sampling temperature; differentiable
    entropy_BT: Tensor  # of the whole distribution there, nats; differentiable


class Policy:
    """A causal language model whose completion log-probabilities are computed from its hidden states in float32 at least."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, temperature: float) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.temperature = temperature
        self._body: nn.Module = model.base_model
        self._head: nn.Linear = model.get_output_embeddings()
        self._rows = Body(model) if fits(model) else None  # the same layers, faster
        model.set_attn_implementation(PACKED)
        check_packing(self)

    @classmethod
    def load(cls, spec: Model, device: torch.device, temperature: float) -> "Policy":
        """From a folder or the hub; raises SpecError where that fails."""
        return cls(load_model(spec, device), load_tokenizer(spec), temperature)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.model.device
        return device

    def checkpoint_activations(self) -> None:
        """From now on each layer's activations are made again in the backward pass: less memory, a third more arithmetic."""
        self._rows = None
        self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        for layer in self.model.modules():
            if isinstance(layer, GradientCheckpointingLayer):
                layer.training = True  # the switch that transformers looks at; dropout inside stays off

    def distribution(self, batch: Batch) -> TokenDistribution:
        """Log-probabilities and entropies of the batch's completion tokens; only those positions meet the head."""
        hidden_ND = self._hidden(batch.token_ids_N, batch.positions_N, batch.lengths)
        logprobs_M, entropy_M = head_logprobs(
            hidden_ND.index_select(0, batch.trained_M), self._head.weight, batch.targets_M, self.temperature
        )
        blank = torch.zeros(batch.mask_BT.shape, dtype=logprobs_M.dtype, device=hidden_ND.device)
        return TokenDistribution(
            logprobs_BT=blank.masked_scatter(batch.mask_BT, logprobs_M),
            entropy_BT=blank.masked_scatter(batch.mask_BT, entropy_M),
        )

    @torch.no_grad()
    def token_logprobs(self, sequences: Sequence[tuple[int, ...]]) -> list[list[float]]:
        """Log-probabilities at temperature 1 of tokens 1.. of sequences of one length: our side of the weight proof."""
        ids = torch.tensor(sequences, device=self.device)
        positions = torch.arange(ids.shape[1], device=self.device).repeat(len(ids))
        hidden = self._hidden(ids.flatten(), positions, [ids.shape[1]] * len(ids)).view(*ids.shape, -1)
        logits = self._head(hidden[:, :-1]).float()
        chosen: list[list[float]] = logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1).tolist()
        return chosen

    def _hidden(self, token_ids_N: Tensor, positions_N: Tensor, lengths: list[int]) -> Tensor:
        """Hidden states [N, D] behind the last norm, of packed sequences."""
        if self._rows is not None and max(lengths) <= LONGEST:
            return self._rows(token_ids_N, lengths)
        hidden_ND: Tensor = self._body(
            input_ids=token_ids_N[None], position_ids=positions_N[None], sequence_lengths=lengths, use_cache=False
        ).last_hidden_state[0]
        return hidden_ND

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """All weights by their Hugging Face names, a shared tensor once."""
        for name, parameter in self.model.named_parameters():
            yield name, parameter.detach()


def load_reference(spec: JobSpec, device: torch.device) -> Policy | None:
    """The base model, frozen, where the job keeps a KL from it; it is the spec's model, whatever a run was resumed from."""
    if isinstance(spec.kl, NoKl):
        return None
    reference = Policy.load(spec.model, device, spec.rollout.temperature)
    reference.model.requires_grad_(False)
    return reference


def load_model(spec: Model, device: torch.device) -> PreTrainedModel:
    """The model in the spec's dtype, in training-free mode (no dropout), on `device`."""
    try:
        model = AutoModelForCausalLM.from_pretrained(
            spec.path,
            revision=spec.revision,
            dtype=DTYPES[spec.dtype],
            attn_implementation="sdpa",
            use_safetensors=True,
            trust_remote_code=is_trusted(),
        )
    except (OSError, ValueError, KeyError) as error:
        raise SpecError("model.path", f"cannot load {spec.path!r}: {error}") from error
    broken = [name for name, weight in model.named_parameters() if not weight.isfinite().all()]
    if broken:
        raise SpecError("model.path", f"{spec.path!r} has weights that are NaN or infinite: {', '.join(broken[:5])}")
    loaded: PreTrainedModel = model.to(device).eval()
    return loaded


def load_tokenizer(spec: Model) -> PreTrainedTokenizerBase:
    """The model's tokenizer; it must have an end token."""
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            spec.path, revision=spec.revision, trust_remote_code=is_trusted()
        )
    except (OSError, ValueError, KeyError) as error:
        raise SpecError("model.path", f"cannot load the tokenizer of {spec.path!r}: {error}") from error
    if tokenizer.eos_token_id is None:
        raise SpecError("model.path", f"the tokenizer of {spec.path!r} has no end token")
    return tokenizer


@torch.no_grad()
def check_packing(policy: Policy) -> None:
    """Refuses a model whose packed log-probabilities are not those of its own forward pass, sequence by sequence.

    That catches soft caps and scales of the logits, a biased head, and layers through which packed neighbours meet.
    """
    model, vocabulary = policy.model, policy.model.config.get_text_config().vocab_size
    sequences = [[(7 * i + 3 * n) % vocabulary for i in range(n)] for n in (9, 5, 12)]
    sequences += [sequences[2][:7] + sequences[1], sequences[0][:6]]  # that begin as others do
    rows = [TrainSequence((ids[0],), tuple(ids[1:]), (0.0,) * (len(ids) - 1), 0.0) for ids in sequences]
    batch = collate(rows, policy.device)
    ours = policy.distribution(batch).logprobs_BT[batch.mask_BT]
    theirs = torch.cat([_plain_logprobs(model, ids, policy.temperature) for ids in sequences])
    dtype = "bfloat16" if model.dtype == torch.bfloat16 else "float32"
    if not torch.allclose(ours.float(), theirs, atol=PACKING_TOLERANCE[dtype]):
        raise SpecError(
            "model.path",
            f"the learner computes {type(model).__name__} otherwise than the model itself (log-probabilities differ by up to "
            f"{float((ours - theirs).abs().max()):.3g} nats): its logits are capped or scaled, or its layers mix sequences",
        )


def _plain_logprobs(model: PreTrainedModel, ids: list[int], temperature: float) -> Tensor:
    tokens = torch.tensor([ids], device=model.device)
    logits = model(input_ids=tokens, use_cache=False).logits[0, :-1].float() / temperature
    logprobs: Tensor = logits.log_softmax(-1).gather(-1, tokens[0, 1:, None]).squeeze(-1)
    return logprobs
