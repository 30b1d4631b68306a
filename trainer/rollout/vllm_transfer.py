"""vLLM's side of a weight push: a weight-transfer backend that reads a safetensors file in shared memory."""

from dataclasses import dataclass

from safetensors import safe_open
from vllm.distributed.weight_transfer import WeightTransferEngine
from vllm.distributed.weight_transfer.base import WeightTransferInitInfo, WeightTransferUpdateInfo
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload


@dataclass
class SharedMemoryInit(WeightTransferInitInfo):  # type: ignore[misc]
    """Nothing to agree on beforehand."""


@dataclass
class SharedMemoryUpdate(WeightTransferUpdateInfo):  # type: ignore[misc]
    """One file that holds every weight under its Hugging Face name."""

    path: str


class SharedMemoryTransfer(WeightTransferEngine[SharedMemoryInit, SharedMemoryUpdate]):  # type: ignore[misc]
    """start, update with one file, finish. A weight that the file lacks is an error: vLLM alone would keep the old one."""

    init_info_cls = SharedMemoryInit
    update_info_cls = SharedMemoryUpdate

    def init_transfer_engine(self, init_info: SharedMemoryInit) -> None:
        """Nothing to connect."""

    def start_weight_update(self) -> None:
        self._wanted = {name for name, _ in self.model.named_parameters()}
        if self.device.type != "cpu":  # on a CPU the weights in use are the plain ones (vllm_plugin.keep_linear_weights)
            initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: SharedMemoryUpdate) -> None:
        with safe_open(update_info.path, "pt", device=str(self.device)) as file:
            names = list(file.keys())
            loaded = self.model.load_weights((name, file.get_tensor(name)) for name in names)
        if missing := self._wanted - loaded:
            raise ValueError(f"the weight file lacks {sorted(missing)[:5]}")

    def finish_weight_update(self) -> None:
        if self.device.type != "cpu":
            finalize_layerwise_reload(self.model, self.model_config)

    def shutdown(self) -> None:
        """Nothing is held."""
