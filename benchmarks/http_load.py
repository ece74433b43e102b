"""Asks one URL as fast as it answers, by a few connections that stay open; prints what came of it as JSON.

``python benchmarks/http_load.py URL SECONDS CONNECTIONS``. A process of its own, so that it shares no interpreter with
what it measures; on plain sockets, so that it takes little of the processor.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from urllib.parse import urlsplit


class Connection(asyncio.Protocol):
    """Sends a request, waits for the whole answer, and sends the next."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._received = b""
        self._sent_at = 0.0
        self._transport: asyncio.Transport | None = None
        self.latencies_s: list[float] = []
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def _send(self) -> None:
        assert self._transport is not None
        self._sent_at = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found or len(body) < _length(head):
            return
        self.latencies_s.append(time.perf_counter() - self._sent_at)
        if not head.startswith(b"HTTP/1.1 200 "):
            raise SystemExit(f"refused: {self._received!r}")
        self._received = b""
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True

    def close(self) -> None:
        """Stop asking."""
        if self._transport is not None and not self.lost:
            self._transport.abort()


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise ValueError(f"an answer without a length: {head!r}")


async def load(url: str, seconds: float, connections: int) -> dict[str, float]:
    """Ask for so long; return how it went."""
    parts = urlsplit(url)
    request = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: */*\r\n\r\n".encode()
    loop = asyncio.get_running_loop()
    made = [
        (await loop.create_connection(lambda: Connection(request), str(parts.hostname), int(parts.port or 80)))[1]
        for _ in range(connections)
    ]
    started = time.perf_counter()
    await asyncio.sleep(seconds)
    took_s = time.perf_counter() - started
    latencies_s = sorted(latency for connection in made for latency in connection.latencies_s)
    figures = {
        "requests_per_s": len(latencies_s) / took_s,
        "p50_ms": 1000 * latencies_s[len(latencies_s) // 2],
        "p99_ms": 1000 * latencies_s[int(0.99 * (len(latencies_s) - 1))],
        "lost": sum(connection.lost for connection in made),
        "cpu_share": time.process_time() / took_s,
    }
    for connection in made:
        connection.close()
    return figures


if __name__ == "__main__":
    print(json.dumps(asyncio.run(load(sys.argv[1], float(sys.argv[2]), int(sys.argv[3])))))
