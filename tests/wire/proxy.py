"""A small forward proxy: plain requests and tunnels, all to one place; it keeps what it was asked for."""

import base64
import contextlib
import selectors
import socket
import threading
from types import TracebackType

HEAD_END = b"\r\n\r\n"


class ForwardProxy:
    """Takes each connection's first request, notes it, and connects the caller to `target`, whatever it asked for."""

    def __init__(self, target: tuple[str, int], auth: str | None = None) -> None:
        self.asked: list[str] = []
        self._target = target
        self._auth = auth
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://{'' if auth is None else auth + '@'}127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> "ForwardProxy":
        self._threads[0].start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(caller,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, caller: socket.socket) -> None:
        with caller:
            head = b""
            while HEAD_END not in head:
                piece = caller.recv(4096)
                if not piece:
                    return
                head += piece
            line = head.split(b"\r\n", 1)[0].decode()
            self.asked.append(line)
            if not self._allowed(head):
                caller.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
            with socket.create_connection(self._target) as server:
                if line.startswith("CONNECT "):
                    caller.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                else:
                    server.sendall(head)
                with contextlib.suppress(ConnectionError):  # a caller that distrusts the server hangs up
                    _join(caller, server)

    def _allowed(self, head: bytes) -> bool:
        if self._auth is None:
            return True
        return b"basic " + base64.b64encode(self._auth.encode()).lower() in head.lower()


def _join(left: socket.socket, right: socket.socket) -> None:
    with selectors.DefaultSelector() as waiting:
        waiting.register(left, selectors.EVENT_READ, right)
        waiting.register(right, selectors.EVENT_READ, left)
        while True:
            for key, _ in waiting.select():
                assert isinstance(key.fileobj, socket.socket)
                piece = key.fileobj.recv(1 << 16)
                if not piece:
                    return
                key.data.sendall(piece)
