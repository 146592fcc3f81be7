"""An Azure Blob server for tests: Azurite, by Microsoft, which ``make test`` installs where there is npm."""

import base64
import contextlib
import hashlib
import hmac
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import httpx
import pytest

from servers.running import free_port, running

PROGRAM = (
    Path(__file__).parents[2] / "build" / "azure" / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
)
ACCOUNT = "tester"
KEY = base64.b64encode(hashlib.sha512(b"a key for tests").digest()).decode()
VERSION = "2023-11-03"


class Azure:
    """One server on loopback, with one account."""

    scheme = "az"
    endpoint_variable = "AZURE_STORAGE_ENDPOINT"

    def __init__(self, port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
        self.environment = {
            "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": KEY,
            "AZURE_STORAGE_ENDPOINT": self.endpoint,
        }

    def bucket(self, name: str) -> str:
        """A new container; its URL."""
        self._call("PUT", name, restype="container")
        return f"az://{name}"

    def parts(self, name: str, path: str) -> int:
        """In how many blocks a blob came."""
        return len(self._blocks(name, path, "CommittedBlocks"))

    def has_uploads(self, name: str) -> bool:
        """Whether there are blobs with blocks that were sent and not committed."""
        listing = self._call("GET", name, restype="container", comp="list", include="uncommittedblobs").content
        blobs = [str(found.text) for found in ElementTree.fromstring(listing).iter("Name")]  # noqa: S314
        return any(self._blocks(name, blob, "UncommittedBlocks") for blob in blobs)

    def _blocks(self, name: str, path: str, kind: str) -> list[ElementTree.Element]:
        listing = self._call("GET", f"{name}/{path}", comp="blocklist", blocklisttype="all").content
        return list(ElementTree.fromstring(listing).findall(f"{kind}/Block"))  # noqa: S314 - our own server

    def _call(self, method: str, path: str, **query: str) -> httpx.Response:
        """Signed with the account's key, as "Authorize with Shared Key" of the REST reference has it."""
        date = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
        asked = "".join(f"\n{name}:{value}" for name, value in sorted(query.items()))
        headers = f"x-ms-date:{date}\nx-ms-version:{VERSION}"
        text = f"{method}{chr(10) * 12}{headers}\n/{ACCOUNT}/{ACCOUNT}/{path}{asked}"
        signature = base64.b64encode(hmac.digest(base64.b64decode(KEY), text.encode(), "sha256")).decode()
        answer = httpx.request(
            method,
            f"{self.endpoint}/{path}",
            params=query,
            headers={"x-ms-date": date, "x-ms-version": VERSION, "authorization": f"SharedKey {ACCOUNT}:{signature}"},
        )
        return answer.raise_for_status()


@contextlib.contextmanager
def azure_server() -> Iterator[Azure]:
    """A running server; gone afterwards."""
    node = shutil.which("node")
    if node is None or not PROGRAM.exists():
        pytest.skip(f"no Azure server at {PROGRAM}: `make test` installs it with npm; the tests on Azure are left out")
    port = free_port()
    options = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--inMemoryPersistence", "--disableTelemetry"]
    command = [node, str(PROGRAM), *options, "--silent", "--skipApiVersionCheck"]
    with running(command, f"http://127.0.0.1:{port}/", {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}"}):
        yield Azure(port)
