"""A W&B or MLflow server on the loopback address: takes a run, keeps what it was sent, fails."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

Fault = Literal["500", "hang", "close"]

PROJECT = {"id": "p", "name": "tailfocus", "entity": {"id": "e", "name": "tests"}}
BUCKET = {
    "id": "b",
    "name": "run",
    "displayName": "run",
    "project": PROJECT,
    "files": {"edges": []},
}
ARTIFACT = {"id": "a", "state": "COMMITTED", "artifactSequence": {"id": "s"}}
ANSWERS = {
    "CreateArtifact": {"createArtifact": {"artifact": ARTIFACT}},
    "Viewer": {"viewer": {"id": "v", "entity": "tests", "username": "tests", "flags": "{}"}},
    "UpsertBucket": {"upsertBucket": {"bucket": BUCKET, "inserted": True}},
    "RunResumeStatus": {"model": {"id": "p", "name": "tailfocus", "bucket": None}},
}
MLFLOW_RUN = {"info": {"run_id": "r", "run_uuid": "r", "experiment_id": "1"}, "data": {}}
MLFLOW_ANSWERS: dict[str, dict[str, Any]] = {
    "experiments/get-by-name": {"experiment": {"experiment_id": "1", "name": "tailfocus"}},
    "runs/create": {"run": MLFLOW_RUN},
    "runs/update": {"run_info": MLFLOW_RUN["info"]},
}


@dataclass
class Server:
    """What a server does with a request, and what it was sent.

    Attributes:
        fault: ``500``, ``hang`` (until it is shut down), ``close`` the connection, or None.
        after: answer well until this operation has come; None is from the beginning.
        url: of the server.
        operations: names of the operations that were answered.
        lines: history lines that came.
        requests: every request as it came, headers and body.
    """

    fault: Fault | None = None
    after: str | None = None
    url: str = ""
    operations: list[str] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    def fault_now(self) -> Fault | None:
        """What is wrong at this moment."""
        return self.fault if self.after is None or self.after in self.operations else None

    def answer(self, path: str, body: bytes) -> dict[str, Any]:
        """The answer to one request."""
        if "file_stream" in path:
            content = json.loads(body)
            for name, part in (content.get("files") or {}).items():
                if name == "wandb-history.jsonl":
                    self.lines += [json.loads(line) for line in part["content"]]
            return {}
        if "/mlflow/" in path:
            operation = path.partition("/mlflow/")[2].partition("?")[0]
            self.operations.append(operation)
            return MLFLOW_ANSWERS.get(operation, {})
        if not path.endswith("/graphql"):
            return {}
        content = json.loads(body)
        operation = content["operationName"]
        self.operations.append(operation)
        if operation == "CreateRunFiles":
            names = content["variables"]["files"]
            files = [{"name": name, "uploadUrl": f"{self.url}/files/{name}"} for name in names]
            created = {"runID": "b", "uploadHeaders": [], "files": files}
            return {"data": {"createRunFiles": created}}
        return {"data": ANSWERS.get(operation, {})}


class _Handler(BaseHTTPRequestHandler):
    state: Server

    def _reply(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.state.requests.append(bytes(self.headers) + body)
        fault = self.state.fault_now()
        if fault == "hang":
            self.state.closing.wait()
        if fault in ("hang", "close"):
            self.close_connection = True
            return
        content = json.dumps({} if fault else self.state.answer(self.path, body)).encode()
        self.send_response(500 if fault else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = _reply  # noqa: N815 - the base class's names

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is no error of the server."""


@contextlib.contextmanager
def wandb_server(fault: Fault | None = None, *, after: str | None = None) -> Iterator[Server]:
    """Run a server of both kinds inside the block; its arguments are those of :class:`Server`."""
    state = Server(fault, after)
    handler = type("Handler", (_Handler,), {"state": state})
    with _Quiet(("127.0.0.1", 0), handler) as server:
        state.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield state
        finally:
            state.closing.set()
            server.shutdown()
            thread.join()
