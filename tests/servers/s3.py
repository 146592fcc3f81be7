"""An S3 server for tests: moto, in an environment of its own that ``make test`` makes."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from servers.running import free_port, running

PROGRAM = Path(__file__).parents[2] / "build" / "s3" / "bin" / "moto_server"
REGION = "us-east-1"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": REGION}


class S3:
    """One server on loopback."""

    scheme = "s3"
    endpoint_variable = "AWS_ENDPOINT_URL"

    def __init__(self, port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"
        self.environment = {**CREDENTIALS, "AWS_ENDPOINT_URL": self.endpoint, "AWS_ALLOW_HTTP": "true"}

    def bucket(self, name: str) -> str:
        """A new bucket; its URL."""
        httpx.put(f"{self.endpoint}/{name}", headers=self._who()).raise_for_status()
        return f"s3://{name}"

    def parts(self, name: str, path: str) -> int:
        """In how many parts an object came: S3 counts them in the etag."""
        etag = httpx.head(f"{self.endpoint}/{name}/{path}", headers=self._who()).headers["etag"].strip('"')
        return int(etag.partition("-")[2] or 1)

    def has_uploads(self, name: str) -> bool:
        """Whether the server holds uploads in parts that were not ended."""
        return "<Upload>" in httpx.get(f"{self.endpoint}/{name}?uploads", headers=self._who()).text

    def _who(self) -> dict[str, str]:
        scope = f"test/20261120/{REGION}/s3/aws4_request"
        return {"authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"}


@contextlib.contextmanager
def s3_server() -> Iterator[S3]:
    """A running server; gone afterwards."""
    if not PROGRAM.exists():
        pytest.skip(f"no S3 server at {PROGRAM}: `make test` installs it; the tests on S3 are left out")
    port = free_port()
    with running([str(PROGRAM), "-H", "127.0.0.1", "-p", str(port)], f"http://127.0.0.1:{port}/moto-api/"):
        yield S3(port)
