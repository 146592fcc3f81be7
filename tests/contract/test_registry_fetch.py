"""What the ways to get at a repository promise: one suite on HTTP over loopback and on a folder."""

import contextlib
import http.server
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from nearcast.errors import InvalidInput, Unavailable
from nearcast.registry.fetch import Fetch, FolderFetch, HttpFetch, Response
from nearcast.registry.objects import plain_path


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    folder: Path
    seen: list[http.server.BaseHTTPRequestHandler]
    script: list[Callable[[http.server.BaseHTTPRequestHandler], None]]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.server.seen.append(self)
        if self.server.script:
            self.server.script.pop(0)(self)
            return
        with FolderFetch(self.server.folder).get(
            self.path.removeprefix("/repository/").replace("%2B", "+"),
            etag=self.headers.get("if-none-match"),
            start=int(self.headers.get("range", "bytes=0-").removeprefix("bytes=").removesuffix("-")),
        ) as found:
            body = b"".join(found.body)
        self.send_response(found.status)
        if found.etag:
            self.send_header("etag", found.etag)
        if found.status == 206:
            whole = found.start + len(body)
            self.send_header("content-range", f"bytes {found.start}-{whole - 1}/{whole}")
        if found.status != 304:
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle(self) -> None:
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            super().handle()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "plans" / "fra").mkdir(parents=True)
    (tmp_path / "plans" / "fra" / "1+x.json").write_bytes(b"0123456789")
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        running.folder, running.seen, running.script = folder, [], []
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join(10)


@pytest.fixture
def http_fetch(server: Server) -> Iterator[HttpFetch]:
    fetch = HttpFetch(f"http://127.0.0.1:{server.server_port}/repository", credential="secret", pause=lambda _: None)
    yield fetch
    fetch.close()


@pytest.fixture(params=["http", "folder"])
def fetch(request: pytest.FixtureRequest, folder: Path) -> Fetch:
    if request.param == "http":
        found: HttpFetch = request.getfixturevalue("http_fetch")
        return found
    return FolderFetch(folder)


PATH = "plans/fra/1+x.json"


def body(response: Response) -> bytes:
    with response:
        return b"".join(response.body)


def test_the_whole(fetch: Fetch) -> None:
    with fetch.get(PATH) as response:
        assert (response.status, response.start) == (200, 0)
        assert b"".join(response.body) == b"0123456789"


def test_the_rest(fetch: Fetch) -> None:
    with fetch.get(PATH, start=7) as response:
        assert (response.status, response.start) == (206, 7)
        assert b"".join(response.body) == b"789"


def test_only_when_changed(fetch: Fetch, folder: Path) -> None:
    with fetch.get(PATH) as response:
        etag = response.etag
    assert etag is not None
    with fetch.get(PATH, etag=etag) as response:
        assert response.status == 304
    (folder / PATH).write_bytes(b"9876543210")
    with fetch.get(PATH, etag=etag) as response:
        assert response.status == 200


def test_what_is_not_there(fetch: Fetch) -> None:
    for path in ("plans/fra/absent.json", "plans/fra"):
        with fetch.get(path) as response:
            assert response.status == 404
    with pytest.raises(InvalidInput):
        fetch.get("../secret")


# --- HTTP alone ------------------------------------------------------------------------------------------------------


def answer(status: int, **headers: str) -> Callable[[http.server.BaseHTTPRequestHandler], None]:
    def write(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("content-length", "0")
        handler.end_headers()

    return write


def test_the_credential_is_sent(server: Server, http_fetch: HttpFetch) -> None:
    body(http_fetch.get(PATH))
    assert server.seen[0].headers["authorization"] == "Bearer secret"
    assert server.seen[0].headers["accept-encoding"] == "identity"


def test_busy_servers_are_asked_again(server: Server, http_fetch: HttpFetch) -> None:
    server.script = [answer(503), answer(429)]
    assert body(http_fetch.get(PATH)) == b"0123456789"
    assert len(server.seen) == 3


def test_but_not_for_ever(server: Server, http_fetch: HttpFetch) -> None:
    server.script = [answer(503)] * 9
    with pytest.raises(Unavailable, match="answered 503"):
        http_fetch.get(PATH)
    assert len(server.seen) == 3


@pytest.mark.parametrize("status", [401, 403, 416])
def test_refusals_are_answers(server: Server, http_fetch: HttpFetch, status: int) -> None:
    server.script = [answer(status)]
    with http_fetch.get(PATH) as response:
        assert response.status == status
    assert len(server.seen) == 1


@pytest.mark.parametrize("status", [204, 302, 307])
def test_neither_redirects_nor_empty_answers_are_believed(server: Server, http_fetch: HttpFetch, status: int) -> None:
    server.script = [answer(status, location="https://elsewhere.invalid/")]
    with pytest.raises(Unavailable, match="redirect or proxy page"):
        http_fetch.get(PATH)


def test_a_part_of_unknown_place_is_not_believed(server: Server, http_fetch: HttpFetch) -> None:
    server.script = [answer(206)]
    with pytest.raises(Unavailable, match="does not say which"):
        http_fetch.get(PATH, start=3)


def test_a_body_that_breaks_off(server: Server, http_fetch: HttpFetch) -> None:
    def half(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("content-length", "10")
        handler.end_headers()
        handler.wfile.write(b"01234")
        handler.close_connection = True

    server.script = [half]
    with http_fetch.get(PATH) as response, pytest.raises(Unavailable, match="broke off after"):
        list(response.body)


def write_authority(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that is its own authority: (certificate, key)."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (folder / f"{name}.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return folder / f"{name}.pem", folder / f"{name}.key"


def test_only_the_given_authority_is_believed(server: Server, folder: Path) -> None:
    certificate, key = write_authority(folder, "ours")
    foreign, _ = write_authority(folder, "foreign")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    url = f"https://127.0.0.1:{server.server_port}/repository/"
    ours = HttpFetch(url, ca_file=certificate, credential="secret")
    assert body(ours.get(PATH)) == b"0123456789"
    ours.close()
    for authority in (foreign, None):
        theirs = HttpFetch(url, ca_file=authority, credential="secret", attempts=1)
        with pytest.raises(Unavailable, match="certificate verify failed"):
            theirs.get(PATH)
        theirs.close()
    assert len(server.seen) == 1


def test_nobody_there() -> None:
    with Server(("127.0.0.1", 0), Handler) as closed:
        port = closed.server_port
    fetch = HttpFetch(f"http://127.0.0.1:{port}/", pause=lambda _: None)
    with pytest.raises(Unavailable, match="cannot reach"):
        fetch.get("a", timeout_s=5)
    fetch.close()


def test_a_server_that_says_nothing_is_given_up(server: Server, http_fetch: HttpFetch) -> None:
    release = threading.Event()

    def silent(handler: http.server.BaseHTTPRequestHandler) -> None:
        release.wait(20)
        handler.close_connection = True

    server.script = [silent] * 3
    with pytest.raises(Unavailable):
        http_fetch.get(PATH, timeout_s=0.05)
    release.set()


@pytest.mark.parametrize("url", ["ftp://a/", "nonsense", "http://", "http://control.example/"])
def test_urls_that_will_not_do(url: str) -> None:
    with pytest.raises(InvalidInput):
        HttpFetch(url, credential="secret")


def test_an_authority_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    for name in ("ca.pem", "absent.pem"):
        with pytest.raises(InvalidInput, match="authority"):
            HttpFetch("https://control.example/", ca_file=tmp_path / name)


def test_paths_are_those_of_the_store() -> None:
    assert plain_path(PATH) == PATH
