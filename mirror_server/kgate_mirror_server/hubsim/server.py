"""A small HTTP/1.1 server on 127.0.0.1, in threads of this process, that sends `Answer`s.

One thread per connection and no limit on them: enough for the clients of a test or a
demonstration, not for more.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import socketserver
import sys
import threading
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Final

from kgate_mirror_server.hubsim.wire import Request, answer_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from kgate_mirror_server.hubsim.wire import Answer

    Connection = socket.socket | tuple[bytes, socket.socket]  # as socketserver has it

_HOST: Final = "127.0.0.1"
_MAX_BODY: Final = 1024**2  # bytes of a request
_IDLE: Final = 60  # seconds until a silent connection is closed
_POLL: Final = 0.02  # seconds between two looks at whether to stop
_log: Final = logging.getLogger(__name__)


class LoopbackServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Listens as soon as it exists; raises OSError if the port is taken."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, respond: Callable[[Request], Answer], port: int) -> None:
        self.respond = respond
        self.ending = threading.Event()
        self._open: set[socket.socket] = set()
        super().__init__((_HOST, port), _Handler)

    @property
    def url(self) -> str:
        """The base URL, without a trailing slash."""
        return f"http://{_HOST}:{self.server_address[1]}"

    def begin(self) -> None:
        """Serve from a thread of its own until `end`."""
        threading.Thread(
            target=self.serve_forever, args=(_POLL,), name="hubsim", daemon=True
        ).start()

    def end(self) -> None:
        """Stop listening and cut every connection."""
        self.ending.set()
        self.shutdown()
        self.server_close()
        for connection in tuple(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def process_request(self, request: Connection, client_address: object) -> None:
        """Remember the connection, to cut it at the end."""
        if isinstance(request, socket.socket):
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Connection) -> None:
        """Forget the connection that is over."""
        if isinstance(request, socket.socket):
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Connection, client_address: object) -> None:
        """Log instead of printing; a client that hangs up is no event."""
        del request
        level = logging.DEBUG if isinstance(sys.exception(), OSError) else logging.ERROR
        _log.log(level, "a connection from %s ended early", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "hubsim"
    timeout = _IDLE
    disable_nagle_algorithm = True  # head and body go out in two writes

    server: LoopbackServer

    def _serve(self) -> None:
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal() or int(length) > _MAX_BODY or "Transfer-Encoding" in self.headers:
            self.close_connection = True
            self._send(answer_error(413, "request body too large"))
            return
        request = Request(
            method=self.command,
            target=self.path,
            headers={name.lower(): value for name, value in self.headers.items()},
            body=self.rfile.read(int(length)),
            base=self.server.url,
        )
        self._send(self.server.respond(request))

    def _send(self, answer: Answer) -> None:
        if self._pause(answer):
            return
        if not answer.keep_alive:
            self.close_connection = True
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.length is not None:
            self.send_header("Content-Length", str(answer.length))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command == "HEAD":
            return
        for chunk in answer.chunks():
            if self._pause(answer):
                return
            self.wfile.write(chunk)

    def _pause(self, answer: Answer) -> bool:
        """Wait as long as the answer wants; True if the server ended meanwhile."""
        if answer.delay:
            self.server.ending.wait(answer.delay)
        if self.server.ending.is_set():
            self.close_connection = True
        return self.server.ending.is_set()

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815  # as the base class looks them up

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it
        _log.debug(format, *args)
