"""The service over HTTP, as the commands use it; every failure becomes one sentence."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from cli.credentials import key_for
from cli.errors import CliError, ExitCode

Json = dict[str, Any]
Params = Mapping[str, str | int]

TIMEOUT_SECONDS = 30.0


class Client:
    """One service. Raises CliError where it cannot be reached or refuses."""

    def __init__(self, url: str, key: str | None = None) -> None:
        """`key` is for a service whose key no command would find (see `cli.credentials`)."""
        self.url = url.rstrip("/")
        # A proxy of the environment is for other machines.
        self.local = self.url.startswith(("http://127.", "http://localhost", "http://[::1]"))
        key = key or key_for(self.url)
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=TIMEOUT_SECONDS, trust_env=not self.local)

    def get(self, path: str, **params: str | int) -> Json:
        return self._send("GET", path, params=params)

    def post(self, path: str, body: Json | None = None) -> Json:
        return self._send("POST", path, body=body)

    def download(self, path: str, **params: str | int) -> bytes:
        """What is no JSON."""
        return self._answer("GET", path, params=params).content

    def upload(self, file: Path) -> Json:
        with file.open("rb") as content:
            return _document(self._answer("POST", "/v1/files", files={"file": (file.name, content)}), self.url)

    def _send(self, method: str, path: str, params: Params | None = None, body: Json | None = None) -> Json:
        return _document(self._answer(method, path, params=params, json=body), self.url)

    def _answer(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **request)
        except httpx.ConnectError as error:
            message = f"no service at {self.url}; start it with `mhpo up`, or name another with --url"
            raise CliError(message, ExitCode.UNREACHABLE) from error
        except httpx.HTTPError as error:
            raise CliError(f"{self.url} does not answer: {type(error).__name__} {error}", ExitCode.UNREACHABLE) from error
        except httpx.InvalidURL as error:
            raise CliError(f"{self.url} is no URL: {error}", ExitCode.UNREACHABLE) from error
        if not response.is_success:
            raise CliError(_refusal(response), ExitCode.REFUSED)
        return response


def _document(response: httpx.Response, url: str) -> Json:
    try:
        document: Json = response.json()
    except ValueError as error:
        raise CliError(f"what answers at {url} is no mhpo service", ExitCode.UNREACHABLE) from error
    return document


def _refusal(response: httpx.Response) -> str:
    """`optimizer.lr: must be greater than 0; got -1.0`; what came back where it is not the service's envelope."""
    try:
        error = response.json()["error"]
        message, param = error["message"], error["param"]
    except (ValueError, KeyError, TypeError):
        status = f"{response.status_code} {response.reason_phrase}".strip()
        return f"{response.url} answered {status}: {response.text[:200]}"
    return f"{param}: {message}" if param else str(message)
