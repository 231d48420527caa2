"""A web server on this machine that misbehaves as its script says; the fixture ``web_server`` starts it."""

import hashlib
import threading
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Answer:
    """How the server answers one request; without arguments, as a good server does."""

    status: int = 200
    headers: dict = field(default_factory=dict)
    content: bytes = None  # instead of the file's
    announced: int = None  # Content-Length, where it is not the true one
    cut_after: int = None  # bytes of the body, then the connection ends
    stall_after: int = None  # bytes of the body, then nothing more comes
    gate: threading.Event = None  # the second kilobyte comes only when it is set
    honours_range: bool = True
    honours_if_range: bool = True
    version: str = "etag"  # "etag", "date" or None


class WebServer(ThreadingHTTPServer):
    """Serves ``files`` {path: content}; ``script`` {path: [Answer, ...]} says how, request by request.

    Where no script is left, ``always`` {path: Answer} says how, else a good server answers.
    ``requests`` lists [path, Range header or None, status, bytes sent] of every request.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.script, self.always, self.requests = {}, {}, {}, []
        self.closing = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def next_answer(self, path):
        script = self.script.get(path)
        return script.pop(0) if script else self.always.get(path, Answer())

    def of(self, path):
        """The requests for one path, without the path."""
        return [request[1:] for request in self.requests if request[0] == path]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, answer, wanted = self.server, self.server.next_answer(self.path), self.headers.get("Range")
        record = [self.path, wanted, answer.status, 0]
        server.requests.append(record)
        content = server.files.get(self.path) if answer.content is None else answer.content
        if answer.status == 200 and content is None:
            record[2] = 404
            return self.send_error(404)
        content, headers = content or b"", dict(answer.headers)
        version = {
            "etag": {"ETag": f'"{hashlib.sha256(content).hexdigest()[:16]}"'},
            "date": {"Last-Modified": formatdate(1e9, usegmt=True)},
            None: {},
        }[answer.version]
        status, body = answer.status, content
        if status == 200 and wanted and answer.honours_range:
            if not answer.honours_if_range or self.headers["If-Range"] in version.values():
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
                if start >= len(content):
                    status, body = 416, b""
                else:
                    status, body = 206, content[start:]
                    headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        record[2] = status
        self.send_response(status)
        announced = len(body) if answer.announced is None else answer.announced
        for name, value in {"Content-Length": announced, **version, **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        ends = [n for n in (answer.cut_after, answer.stall_after) if n is not None]
        body = body[: min(ends)] if ends else body
        for start in range(0, len(body), 1024):
            if answer.gate and start:
                answer.gate.wait(60)
            record[3] += len(body[start : start + 1024])  # first: who has all of it may look at once
            try:
                self.wfile.write(body[start : start + 1024])
            except OSError:  # the other side is gone
                return
        if answer.stall_after is not None:
            server.closing.wait(20)

    def log_message(self, *args):
        pass
