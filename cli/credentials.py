"""The key that a command sends: MHPO_API_KEY, or the one that `mhpo up` keeps in its data folder for the user who runs it."""

import json
import os
from pathlib import Path
from urllib.parse import urlsplit

FILE = "key.json"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def key_for(url: str) -> str | None:
    """The key for the service at `url`; None where there is none. A kept key goes to no service but its own."""
    if given := os.environ.get("MHPO_API_KEY"):
        return given
    try:
        kept = json.loads(key_file(Path(os.environ.get("MHPO_DATA_DIR", ".mhpo"))).read_text())
    except (OSError, ValueError):  # not there, or another user's
        return None
    return str(kept["key"]) if _address(url) == _address(kept["url"]) else None


def source_of_key(url: str) -> str | None:
    """Where `key_for` has found its key, for people."""
    if os.environ.get("MHPO_API_KEY"):
        return "MHPO_API_KEY"
    return None if key_for(url) is None else str(key_file(Path(os.environ.get("MHPO_DATA_DIR", ".mhpo"))))


def key_file(data_dir: Path) -> Path:
    return data_dir / FILE


def kept_key(data_dir: Path) -> str | None:
    """The key in the data folder; None where none was kept yet."""
    try:
        return str(json.loads(key_file(data_dir).read_text())["key"])
    except FileNotFoundError:
        return None


def keep(data_dir: Path, url: str, key: str) -> None:
    """Write the key and the address of its service where only their owner can read them."""
    partial = key_file(data_dir).with_suffix(".partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump({"url": url, "key": key}, file)
    partial.rename(key_file(data_dir))


def _address(url: str) -> tuple[str, str | None, int | None]:
    try:
        parts = urlsplit(url)
        host = "loopback" if parts.hostname in _LOOPBACK else parts.hostname
        return parts.scheme, host, parts.port
    except ValueError:
        return "", url, None
