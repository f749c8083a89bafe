"""Another server's agent and a reader, as a process of their own: what they see while somebody else misbehaves.

python -m tests.helpers.canary PORT KEY SERVER: posts and polls until its input ends, and then prints what it saw.
"""

import http.client
import json
import select
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.helpers.support import heartbeat

PAUSE_SECONDS = 0.05
TIMEOUT_SECONDS = 10


class Canary:
    """`with Canary(port, key) as canary: …`; afterwards `statuses`, and `milliseconds` of each request."""

    def __init__(self, port: int, key: str, server_id: str = "canary") -> None:
        self._command = [sys.executable, "-m", "tests.helpers.canary", str(port), key, server_id]
        self.statuses: dict[str, int] = {}
        self.milliseconds: dict[str, list[float]] = {}

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, cwd=Path(__file__).parents[2], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        output, _ = self._process.communicate(timeout=60)
        seen: dict[str, Any] = json.loads(output)
        self.statuses, self.milliseconds = seen["statuses"], seen["milliseconds"]

    def at(self, share: float) -> float:
        """So many of its requests were answered within these milliseconds."""
        every = sorted(took for each in self.milliseconds.values() for took in each)
        return every[min(int(len(every) * share), len(every) - 1)]

    def __str__(self) -> str:
        return (
            f"canary {self.statuses}, p50 {self.at(0.5):.0f} ms, p99 {self.at(0.99):.0f} ms, worst {self.at(1):.0f} ms"
        )


def _main(port: int, key: str, server_id: str) -> None:
    statuses: dict[str, int] = {}
    milliseconds: dict[str, list[float]] = {"post": [], "get": []}
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    count = 0
    while not select.select([sys.stdin], [], [], PAUSE_SECONDS)[0]:
        count += 1
        body = json.dumps(heartbeat(server_id, eth0=(count * 1_000, count * 10)))
        for method, path in (
            ("post", "/api/v1/agents/heartbeat"), ("get", f"/api/v1/metrics/sparkline/{server_id}/network"),
        ):  # fmt: skip
            started = time.perf_counter()
            try:
                connection.request(method.upper(), path, body if method == "post" else None, headers)
                answer = connection.getresponse()
                answer.read()
                status = str(answer.status)
            except (OSError, http.client.HTTPException) as raised:
                status = type(raised).__name__
                connection.close()
            milliseconds[method].append((time.perf_counter() - started) * 1_000)
            statuses[f"{method} {status}"] = statuses.get(f"{method} {status}", 0) + 1
            if count % 5 == 0:
                connection.close()  # as those do that come for one request
    print(json.dumps({"statuses": statuses, "milliseconds": milliseconds}))


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
