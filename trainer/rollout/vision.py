"""Where the engine finds torchvision, which vLLM's vision-language models import and no other part of this project needs.

Its only builds on the package index are for CUDA and break transformers beside a CPU build of PyTorch, so there it lives in a
folder of its own, seen by the engine alone: `pip install --no-deps --target FOLDER torchvision==0.28.0`.
"""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

VARIABLE = "MHPO_TORCHVISION"  # the folder, where it is not the default
DEFAULT = Path(sys.prefix) / "share" / "mhpo" / "torchvision"
DECLARES_OPERATORS = Path(__file__).parent / "torchvision_on_cpu"


def torchvision_folder() -> Path | None:
    """The folder of its own; None where there is none."""
    folder = Path(os.environ.get(VARIABLE) or DEFAULT)
    return folder if (folder / "torchvision").is_dir() else None


def can_see() -> bool:
    """Whether an engine on this machine can be given images."""
    return torchvision_folder() is not None or find_spec("torchvision") is not None


def vision_path() -> str:
    """PYTHONPATH of an engine that is given images."""
    places = [DECLARES_OPERATORS, torchvision_folder(), os.environ.get("PYTHONPATH")]
    return os.pathsep.join(str(place) for place in places if place)
