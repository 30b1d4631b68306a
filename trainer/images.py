"""The bytes of the images that rows name. Torch-free."""

import base64
import binascii
from pathlib import Path

from trainer.strict import SpecError
from trainer.types import Image, Problem

SECONDS = 30.0  # for an image behind a URL
LARGEST = 32 << 20  # bytes


def image_bytes(problem: Problem, param: str) -> tuple[bytes, ...]:
    """The problem's image files. Raises SpecError at `param` that names the row and the image that cannot be had."""
    return tuple(_read(image, param, f"row {problem.index + 1}") for image in problem.images)


def _read(image: Image, param: str, where: str) -> bytes:
    if isinstance(image, bytes):
        return image
    try:
        if image.startswith("data:"):
            return base64.b64decode(image.partition(",")[2], validate=True)
        return _fetch(image) if image.startswith(("http://", "https://")) else Path(image).read_bytes()
    except (OSError, binascii.Error, ValueError) as error:
        raise SpecError(param, f"{where}: the image {image:.120} cannot be read: {error}") from error


def _fetch(url: str) -> bytes:
    import httpx

    content = b""
    try:
        with httpx.stream("GET", url, timeout=SECONDS, follow_redirects=True) as response:
            response.raise_for_status()
            for piece in response.iter_bytes():
                content += piece
                if len(content) > LARGEST:
                    raise ValueError(f"it has more than {LARGEST} bytes")
    except httpx.HTTPError as error:
        raise ValueError(str(error)) from error
    return content
