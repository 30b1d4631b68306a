"""The service over HTTP, as the commands use it; every failure becomes one sentence that says what to do."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx

from cli.credentials import key_for, source_of_key
from cli.errors import CliError, ExitCode

Json = dict[str, Any]
Params = Mapping[str, str | int | float | bool | list[str]]

TIMEOUT_SECONDS = 30.0
_PAGE = 100  # items of a listing that one request asks for
_CODES = {
    HTTPStatus.UNAUTHORIZED: ExitCode.DENIED,
    HTTPStatus.FORBIDDEN: ExitCode.DENIED,
    HTTPStatus.NOT_FOUND: ExitCode.NOT_FOUND,
    HTTPStatus.CONFLICT: ExitCode.CONFLICT,
    HTTPStatus.TOO_MANY_REQUESTS: ExitCode.UNREACHABLE,
}
# What to do about a refusal, by how the service's sentence begins.
_HINTS = {
    "no job ": "`mhpo jobs` lists them",
    "no file ": "`mhpo files list` lists them",
    "no benchmark ": "`mhpo benchmarks list` lists them",
}


class Client:
    """One service. Raises CliError where it cannot be reached or refuses."""

    def __init__(self, url: str, key: str | None = None, timeout: float = TIMEOUT_SECONDS) -> None:
        """`key` is for a service whose key no command would find (see `cli.credentials`)."""
        self.url = url.rstrip("/")
        # A proxy of the environment is for other machines.
        self.local = self.url.startswith(("http://127.", "http://localhost", "http://[::1]"))
        self.key = key or key_for(self.url)
        headers = {"authorization": f"Bearer {self.key}"} if self.key else {}
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout, trust_env=not self.local)

    def get(self, path: str, **params: str | float | bool) -> Json:
        return self._send("GET", path, params=params)

    def post(self, path: str, body: Json | None = None) -> Json:
        return self._send("POST", path, body=body)

    def delete(self, path: str) -> Json:
        return self._send("DELETE", path)

    def rows(self, path: str, limit: int | None = None, **params: str | float | bool) -> Iterator[Json]:
        """The items of a listing, page by page, at most `limit` of them."""
        left = float("inf") if limit is None else limit
        more, asked = True, dict(params)
        while more and left > 0:
            page = self.get(path, limit=int(min(left, _PAGE)), **asked)
            yield from page["data"]
            left -= len(page["data"])
            more = page["has_more"]
            asked["after"] = page["data"][-1]["id"] if more else ""

    def text(self, path: str, **params: str | float | bool) -> str:
        """What is no JSON, as text."""
        return self._answer("GET", path, params=params).text

    def download(self, path: str, **params: str | float | bool) -> bytes:
        """What is no JSON."""
        return self._answer("GET", path, params=params).content

    def upload(self, file: Path, purpose: str = "fine-tune") -> Json:
        with file.open("rb") as content:
            sent = {"files": {"file": (file.name, content)}, "data": {"purpose": purpose}, "timeout": None}
            return _document(self._answer("POST", "/v1/files", **sent), self.url)

    @contextmanager
    def opened(self, path: str, params: Params, headers: Mapping[str, str], silence: float) -> Iterator[httpx.Response]:
        """An answer that is read as it comes; one that is silent for `silence` seconds is given up as unreachable."""
        timeout = httpx.Timeout(TIMEOUT_SECONDS, read=silence)
        with (
            self._failures_told(),
            self._http.stream("GET", path, params=dict(params), headers=dict(headers), timeout=timeout) as response,
        ):
            if not response.is_success:
                response.read()
                raise self._refusal(response)
            yield response

    def _send(self, method: str, path: str, params: Params | None = None, body: Json | None = None) -> Json:
        return _document(self._answer(method, path, params=params, json=body), self.url)

    def _answer(self, method: str, path: str, **request: Any) -> httpx.Response:
        with self._failures_told():
            response = self._http.request(method, path, **request)
        if not response.is_success:
            raise self._refusal(response)
        return response

    @contextmanager
    def _failures_told(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError as error:
            message = f"no service at {self.url}; start it with `mhpo up`, or name another with --url"
            raise CliError(message, ExitCode.UNREACHABLE) from error
        except httpx.HTTPError as error:
            raise CliError(f"{self.url} does not answer: {type(error).__name__} {error}", ExitCode.UNREACHABLE) from error
        except httpx.InvalidURL as error:
            raise CliError(f"{self.url} is no URL: {error}", ExitCode.UNREACHABLE) from error

    def _refusal(self, response: httpx.Response) -> CliError:
        """`optimizer.lr: must be greater than 0; got -1.0`; what came back where it is not the service's envelope."""
        try:
            envelope = response.json()
            message, param = envelope["error"]["message"], envelope["error"]["param"]
        except (ValueError, KeyError, TypeError):
            status = f"{response.status_code} {response.reason_phrase}".strip()
            return CliError(f"{response.url} answered {status}: {response.text[:200]}", ExitCode.UNREACHABLE)
        broken = response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
        code = ExitCode.UNREACHABLE if broken else _CODES.get(HTTPStatus(response.status_code), ExitCode.REFUSED)
        hint = self._hint(response.status_code, message)
        sentence = f"{param}: {message}" if param else str(message)
        return CliError(f"{sentence}; {hint}" if hint else sentence, code, envelope)

    def _hint(self, status: int, message: str) -> str:
        if status == HTTPStatus.UNAUTHORIZED:
            sent = source_of_key(self.url)
            what = f"the one that was sent is from {sent}" if sent else "none was sent"
            return f"{what}; `mhpo keys create NAME` on the service's machine makes one, MHPO_API_KEY gives it to the commands"
        return next((hint for start, hint in _HINTS.items() if message.startswith(start)), "")


def _document(response: httpx.Response, url: str) -> Json:
    try:
        document: Json = response.json()
    except ValueError as error:
        raise CliError(f"what answers at {url} is no mhpo service", ExitCode.UNREACHABLE) from error
    return document
