"""Lets a CUDA build of torchvision be imported beside a CPU build of PyTorch: only its transforms, which are plain PyTorch.

vLLM's vision-language models import torchvision in the engine and in processes that it starts, so this folder is on their
PYTHONPATH (trainer/rollout/vllm_sampler.py). torchvision registers shapes for two of its own operators at import, and the
operators are missing where its compiled library cannot load: they are declared just before, and are never called.
"""

import importlib.abc
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

_OPERATORS = ("nms", "qnms")
_kept: list[object] = []


class DeclareOperators(importlib.abc.MetaPathFinder):
    """Acts once, when torchvision is looked for; the finders after it find it."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:  # noqa: ARG002
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            import torch

            if torch.version.cuda is None:
                library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
                for name in _OPERATORS:
                    schema = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                    library.define(schema)  # type: ignore[no-untyped-call]
                _kept.append(library)  # a library that is dropped takes its operators with it
        return None


sys.meta_path.insert(0, DeclareOperators())
