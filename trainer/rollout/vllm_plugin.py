"""What vLLM loads into each of its processes (entry point `vllm.general_plugins`); acts only inside our own engine."""

import os
from typing import Any

ENGINE_VARIABLE = "MHPO_ENGINE"  # set by trainer/rollout/vllm_sampler.py for the engine process alone


def register() -> None:
    """Registers the weight-transfer backend `shm`, and on a CPU keeps linear weights as they are."""
    if ENGINE_VARIABLE not in os.environ:
        return
    from vllm.distributed.weight_transfer import WeightTransferEngineFactory
    from vllm.platforms import current_platform

    if "shm" not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine("shm", "trainer.rollout.vllm_transfer", "SharedMemoryTransfer")
    if current_platform.is_cpu():
        keep_linear_weights()


def keep_linear_weights() -> None:
    """On a CPU vLLM packs every linear weight and drops the original: a tied head then stays stale after an update,
    without an error. With the plain product the weight in use is the one that updates write to."""
    import torch
    import vllm.model_executor.layers.utils as layers

    def plain(layer: Any, remove_weight: bool) -> None:  # noqa: ARG001  # vLLM's signature
        layer.cpu_linear = torch.nn.functional.linear

    layers.dispatch_cpu_unquantized_gemm = plain
