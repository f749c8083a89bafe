"""schemathesis over the whole API: no 5xx, and every answer as the OpenAPI document says.

LINKBEAT_SCHEMATHESIS_EXAMPLES asks for more examples of each operation (make fuzz-api).
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx

from tests.e2e.conftest import ServiceProcess, serving
from tests.helpers.support import KEY, heartbeat

CONFIG = Path(__file__).with_name("schemathesis.toml")
EXAMPLES = int(os.environ.get("LINKBEAT_SCHEMATHESIS_EXAMPLES", "5"))


def test_every_answer_is_as_documented_whatever_is_asked(database_url: str, tmp_path: Path) -> None:
    # Every route is asked with wrong tokens, too: more of them than one address may send.
    with serving(database_url, tmp_path, FAILED_TOKENS_PER_MINUTE="1000000") as service:
        ask(service, tmp_path)


def ask(service: ServiceProcess, tmp_path: Path) -> None:
    """Asks for everything, and fails on what is not as documented."""
    beat = heartbeat("mediaserver", eth0=(1, 1)) | {"filesystems": [{"mount_point": "/", "total_bytes": 9}]}
    headers = {"Authorization": f"Bearer {KEY}"}
    httpx.post(
        f"{service.url}/api/v1/agents/heartbeat", content=json.dumps(beat), trust_env=False, timeout=60,
        headers=headers | {"Content-Type": "application/json"},
    ).raise_for_status()  # fmt: skip

    run = subprocess.run(
        [
            sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG),
            "run", f"{service.url}/schema/openapi.json",
            "--header", f"Authorization: Bearer {KEY}",
            "--phases", "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES), "--seed", "20260129",
            "--workers", "1", "--request-timeout", "10", "--no-color",
        ],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60 * EXAMPLES,
    )  # fmt: skip

    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr[-5_000:]
    assert "ERROR" not in service.log, service.log
