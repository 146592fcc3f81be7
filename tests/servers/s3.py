"""An S3 server for tests: moto, in an environment of its own that ``make test`` makes."""

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

PROGRAM = Path(__file__).parents[2] / "build" / "s3" / "bin" / "moto_server"
REGION = "us-east-1"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": REGION}


class S3:
    """One server on loopback."""

    def __init__(self, port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"
        self.environment = {**CREDENTIALS, "AWS_ENDPOINT_URL": self.endpoint, "AWS_ALLOW_HTTP": "true"}

    def bucket(self, name: str) -> str:
        """A new bucket; its URL."""
        httpx.put(f"{self.endpoint}/{name}", headers=self._who()).raise_for_status()
        return f"s3://{name}"

    def uploads(self, name: str) -> str:
        """What the server says of uploads in parts that were not ended."""
        return httpx.get(f"{self.endpoint}/{name}?uploads", headers=self._who()).text

    def _who(self) -> dict[str, str]:
        scope = f"test/20261120/{REGION}/s3/aws4_request"
        return {"authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"}


@contextlib.contextmanager
def s3_server() -> Iterator[S3]:
    """A running server; gone afterwards."""
    if not PROGRAM.exists():
        pytest.skip(f"no S3 server at {PROGRAM}: `make test` installs it; the tests on S3 are left out")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    process = subprocess.Popen(
        [str(PROGRAM), "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(httpx.HTTPError):
                httpx.get(f"http://127.0.0.1:{port}/moto-api/", timeout=5)
                break
            assert process.poll() is None
            assert time.monotonic() < deadline, "the S3 server did not come up"
            time.sleep(0.1)
        yield S3(port)
    finally:
        process.terminate()
        process.wait(30)
