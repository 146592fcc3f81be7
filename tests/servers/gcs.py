"""A Google Cloud Storage for tests, in this process: what its XML API says of buckets, objects, versions and parts.

Written after Google's reference of that API, since no emulator that can be installed speaks as much of it as obstore
needs: fake-gcs-server 1.54 answers its PUT with 400 ("invalid uploadType"), gcp-storage-emulator 2026.7.19 its HEAD and
its listings with 501. Requests must be signed by the service account's key. What the real one does beyond that
reference is not tested.
"""

import base64
import contextlib
import hashlib
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from xml.sax.saxutils import escape

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

PAGE = 7
"""Entries of a listing's page; the real one's are up to a thousand, and it may always give fewer."""


@dataclass(frozen=True)
class Held:
    """One version of an object."""

    data: bytes
    etag: str
    generation: int
    parts: int = 1


@dataclass
class Store:
    """Buckets, and uploads in parts that have not ended. Every call below holds the lock."""

    buckets: dict[str, dict[str, Held]] = field(default_factory=dict)
    uploads: dict[str, tuple[str, str, dict[int, bytes]]] = field(default_factory=dict)
    generation: int = 1_700_000_000_000_000
    lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, bucket: str, path: str, data: bytes, parts: int = 1) -> Held:
        self.generation += 1
        digest = hashlib.md5(data).hexdigest()  # noqa: S324 - as the real one does
        held = Held(data, f'"{digest}"' if parts == 1 else f'"{digest}-{parts}"', self.generation, parts)
        self.buckets[bucket][path] = held
        return held


class Refused(Exception):
    """An answer with an error document."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(code)
        self.status, self.code, self.message = status, code, message


class GCS:
    """One server on loopback, and the service account that it knows."""

    scheme = "gs"
    endpoint_variable = "GOOGLE_BASE_URL"

    def __init__(self, folder: Path) -> None:
        self.store = Store()
        self._key = rsa.generate_private_key(65537, 2048)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self.store, self._key.public_key()))
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self.environment = {
            "GOOGLE_APPLICATION_CREDENTIALS": str(account_file(folder / "account.json", self._key)),
            "GOOGLE_BASE_URL": self.endpoint,
        }

    def run(self) -> None:
        """Serve until :meth:`close`."""
        self._server.serve_forever(poll_interval=0.05)

    def close(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()

    def bucket(self, name: str) -> str:
        """A new bucket; its URL."""
        with self.store.lock:
            self.store.buckets[name] = {}
        return f"gs://{name}"

    def parts(self, name: str, path: str) -> int:
        """In how many parts an object came."""
        with self.store.lock:
            return self.store.buckets[name][path].parts

    def has_uploads(self, name: str) -> bool:
        """Whether the server holds uploads in parts that were not ended."""
        with self.store.lock:
            return any(bucket == name for bucket, _, _ in self.store.uploads.values())


def account_file(file: Path, key: rsa.RSAPrivateKey) -> Path:
    """The credentials of a service account, as Google's console gives them."""
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    document = {
        "type": "service_account",
        "client_email": "tester@project.example",
        "client_id": "1",
        "private_key_id": "k1",
        "private_key": pem,
        "token_uri": "http://127.0.0.1:1/token",
    }
    file.write_text(json.dumps(document))
    return file


@contextlib.contextmanager
def gcs_server(folder: Path) -> Iterator[GCS]:
    """A running server; gone afterwards. ``folder`` takes its credentials."""
    server = GCS(folder)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join(10)


def _handler(store: Store, key: rsa.RSAPublicKey) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        pass

    Handler.store, Handler.key = store, key
    return Handler


class _Handler(BaseHTTPRequestHandler):
    store: Store
    key: rsa.RSAPublicKey
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the library
        """Quiet."""

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        path, _, query = self.path.partition("?")
        bucket, _, name = (urllib.parse.unquote(part) for part in path.removeprefix("/").partition("/"))
        asked = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        try:
            self._check()
            with self.store.lock:
                if not name:
                    self._list(self._bucket(bucket), asked)
                else:
                    self._object(bucket, name, asked, body)
        except Refused as refused:
            text = f"<Error><Code>{refused.code}</Code><Message>{refused.message}</Message></Error>"
            self._answer(refused.status, text.encode(), {"content-type": "application/xml"})

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815 - the names in the library

    def _check(self) -> None:
        """The token is signed by the account's key (RS256); what it says of times and audience is not looked at."""
        token = self.headers.get("authorization", "").removeprefix("Bearer ")
        signed, _, signature = token.rpartition(".")
        try:
            given = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
            self.key.verify(given, signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        except (InvalidSignature, ValueError):
            raise Refused(401, "AuthenticationRequired", "Authentication required.") from None

    def _bucket(self, name: str) -> dict[str, Held]:
        if name not in self.store.buckets:
            raise Refused(404, "NoSuchBucket", "The specified bucket does not exist.")
        return self.store.buckets[name]

    def _object(self, bucket: str, name: str, asked: dict[str, str], body: bytes) -> None:
        objects = self._bucket(bucket)
        if "uploads" in asked or "uploadId" in asked:
            self._parts(bucket, name, asked, body)
            return
        found = objects.get(name)
        if self.command == "PUT":
            wanted = self.headers.get("x-goog-if-generation-match")
            if wanted is not None and int(wanted) != (found.generation if found else 0):
                raise Refused(
                    412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold."
                )
            self._answer(200, b"", _tags(self.store.put(bucket, name, body)))
        elif found is None:
            raise Refused(404, "NoSuchKey", "The specified key does not exist.")
        elif self.command == "DELETE":
            del objects[name]
            self._answer(204, b"", {})
        else:
            self._read(found)

    def _read(self, found: Held) -> None:
        headers = {**_tags(found), "last-modified": formatdate(usegmt=True), "accept-ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
        if asked is None:
            self._answer(200, found.data, headers)
            return
        first, last = int(asked[1]), min(int(asked[2] or len(found.data)), len(found.data) - 1)
        if first > last:
            raise Refused(416, "InvalidRange", "The requested range cannot be satisfied.")
        headers["content-range"] = f"bytes {first}-{last}/{len(found.data)}"
        self._answer(206, found.data[first : last + 1], headers)

    def _parts(self, bucket: str, name: str, asked: dict[str, str], body: bytes) -> None:
        uploads = self.store.uploads
        if self.command == "POST" and "uploads" in asked:
            self.store.generation += 1
            number = str(self.store.generation)
            uploads[number] = (bucket, name, {})
            self._xml(
                f"<InitiateMultipartUploadResult><Bucket>{bucket}</Bucket><Key>{escape(name)}</Key>"
                f"<UploadId>{number}</UploadId></InitiateMultipartUploadResult>"
            )
            return
        if uploads.get(asked["uploadId"], ("", "", {}))[:2] != (bucket, name):
            raise Refused(404, "NoSuchUpload", "The specified upload does not exist.")
        parts = uploads[asked["uploadId"]][2]
        if self.command == "PUT":
            parts[int(asked["partNumber"])] = body
            self._answer(200, b"", {"etag": f'"{hashlib.md5(body).hexdigest()}"'})  # noqa: S324
        elif self.command == "DELETE":
            del uploads[asked["uploadId"]]
            self._answer(204, b"", {})
        else:
            wanted = [int(number) for number in re.findall(r"<PartNumber>(\d+)</PartNumber>", body.decode())]
            if not wanted or wanted != sorted(parts):
                raise Refused(400, "InvalidPart", "One or more of the specified parts could not be found.")
            del uploads[asked["uploadId"]]
            held = self.store.put(bucket, name, b"".join(parts[number] for number in wanted), len(wanted))
            self._xml(
                f"<CompleteMultipartUploadResult><Bucket>{bucket}</Bucket><Key>{escape(name)}</Key>"
                f"<ETag>{escape(held.etag)}</ETag></CompleteMultipartUploadResult>",
                _tags(held),
            )

    def _list(self, objects: dict[str, Held], asked: dict[str, str]) -> None:
        prefix, after = asked.get("prefix", ""), asked.get("continuation-token", "")
        names = sorted(name for name in objects if name.startswith(prefix) and name > after)
        shown = names[: min(PAGE, int(asked.get("max-keys", PAGE)))]
        is_cut = len(names) > len(shown)
        entries = "".join(
            f"<Contents><Key>{escape(name)}</Key><Generation>{objects[name].generation}</Generation>"
            f"<LastModified>2026-11-20T12:00:00.000Z</LastModified><ETag>{escape(objects[name].etag)}</ETag>"
            f"<Size>{len(objects[name].data)}</Size></Contents>"
            for name in shown
        )
        more = f"<NextContinuationToken>{escape(shown[-1])}</NextContinuationToken>" if is_cut else ""
        cut = f"<IsTruncated>{str(is_cut).lower()}</IsTruncated>"
        self._xml(f"<ListBucketResult><KeyCount>{len(shown)}</KeyCount>{cut}{more}{entries}</ListBucketResult>")

    def _xml(self, text: str, headers: dict[str, str] | None = None) -> None:
        self._answer(200, text.encode(), {"content-type": "application/xml", **(headers or {})})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _tags(held: Held) -> dict[str, str]:
    return {"etag": held.etag, "x-goog-generation": str(held.generation), "x-goog-metageneration": "1"}
