"""A real HTTP service that grades: what it answers is in the path. Used by test_http.py."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Service(ThreadingHTTPServer):
    """Remembers what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[list[Any]] = []
        self.lock = threading.Lock()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{path}"


class Handler(BaseHTTPRequestHandler):
    server: Service

    def do_POST(self) -> None:
        samples = json.loads(self.rfile.read(int(self.headers["content-length"])))["samples"]
        with self.server.lock:
            self.server.asked.append(samples)
            times = len(self.server.asked)
        match self.path:
            case "/length":
                self.answer({"scores": [len(one["sample"]["output_text"]) / 10 for one in samples]})
            case "/second_time":
                self.answer({"scores": [1.0] * len(samples)} if times > 1 else {}, status=200 if times > 1 else 503)
            case "/slow":
                time.sleep(30)  # it is given up long before
            case "/drip":
                self.drip()
            case "/refuses":
                self.answer({"error": "no such model"}, status=422)
            case "/too_few":
                self.answer({"scores": [1.0]})
            case "/some_null":
                self.answer({"scores": [None if number else 1.0 for number, _ in enumerate(samples)]})
            case _:
                self.answer("not what was agreed")

    def answer(self, document: object, status: int = 200) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def drip(self) -> None:
        """A byte every now and then, each well within the limit."""
        self.send_response(200)
        self.send_header("content-length", "1000")
        self.end_headers()
        try:
            for _ in range(1000):
                self.wfile.write(b" ")
                self.wfile.flush()
                time.sleep(0.05)
        except OSError:
            return

    def log_message(self, *_: object) -> None:
        """Nothing to the test's output."""


@contextmanager
def service() -> Iterator[Service]:
    with Service() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
