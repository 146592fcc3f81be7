"""How the control plane is called: whom to trust, what is tried again, and which error of the one tree an answer means.

Does not decide what is asked for (`calls`).

Invariants:
    * With ``ca_pem`` only that authority is trusted: a certificate of anybody else ends the call, never a downgrade.
    * A call is sent again only where a second one changes nothing (reads, uploads by digest), or where the
      first one certainly did not arrive. Pauses grow and carry jitter, so that many clients do not return in step.
"""

import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from nearcast import __version__
from nearcast.client.failures import Unreachable, certificate_problem, failure_in
from nearcast.errors import IntegrityError, InvalidInput, NearcastError, Unavailable

ATTEMPTS: Final = 4
FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 5.0
RETRIED_STATUSES: Final = frozenset({429, 502, 503, 504})
REPEATABLE: Final = frozenset({"GET", "HEAD"})
CONNECT_S: Final = 5.0
"""For the connection alone: what is there shakes hands sooner, also from the other side of the earth."""


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to call.

    Attributes:
        url: ``https://host:port`` of the control plane; of several replicas with commas between them.
        token: admin token; empty for the calls that need none.
        ca_pem: the only authority to trust, PEM; None for the machine's own trust store.
        timeout_s: for one exchange, connecting included; uploads have it per read and write.
    """

    url: str
    token: str = field(default="", repr=False)
    ca_pem: str | None = field(default=None, repr=False)
    timeout_s: float = 30.0

    @property
    def urls(self) -> tuple[str, ...]:
        """The replicas, one URL each."""
        return tuple(url.strip().rstrip("/") for url in self.url.split(",") if url.strip()) or (self.url,)


class Exchanges:
    """Exchanges with one control plane, whichever replica answers. Arguments and threads: see `calls.ControlClient`."""

    def __init__(
        self,
        target: Target,
        transport: httpx.BaseTransport | None,
        sleep: Callable[[float], None],
        jitter: Callable[[], float],
    ) -> None:
        self.target = target
        self._at = 0
        self._sleep = sleep
        self._jitter = jitter
        headers = {"user-agent": f"nearcast/{__version__}"}
        if target.token:
            headers["authorization"] = f"Bearer {target.token}"
        self._http = httpx.Client(
            base_url=target.urls[0],
            headers=headers,
            timeout=httpx.Timeout(target.timeout_s, connect=min(CONNECT_S, target.timeout_s)),
            transport=transport or httpx.HTTPTransport(verify=_tls(target.ca_pem)),
        )

    def close(self) -> None:
        """Give back the connections."""
        self._http.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json: Any = None,
        body: Callable[[], Iterator[bytes]] | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool = False,
    ) -> httpx.Response:
        """One exchange, with further attempts where they are safe; an answer that is no success is raised."""
        again = repeatable or method in REPEATABLE
        for attempt in range(1, ATTEMPTS + 1):
            last = attempt == ATTEMPTS
            request = self._http.build_request(
                method,
                self.target.urls[self._at] + path,
                params=params,
                json=json,
                content=body() if body else None,
                headers=headers,
            )
            try:
                answer = self._http.send(request)
            except httpx.TransportError as error:
                if last or self._is_final(error, attempt, again=again):
                    raise self._lost(error) from error
                asked_s = 0.0
            else:
                if answer.is_success:
                    return answer
                failure = failure_in(answer)
                if last or not again or answer.status_code not in RETRIED_STATUSES:
                    raise failure
                asked_s = failure.retry_after_s if isinstance(failure, Unavailable) else 0.0
            self._at = (self._at + 1) % len(self.target.urls)  # one that answers is asked first from then on
            self._sleep(min(LONGEST_PAUSE_S, max(asked_s, self._pause_s(attempt))))
        raise AssertionError("the last attempt returns or raises")

    def succeeds(self, path: str) -> bool:
        """Whether ``GET path`` is answered with 200, tried once; False where nobody answers."""
        try:
            return self._http.get(path).status_code == httpx.codes.OK
        except httpx.TransportError as error:
            if certificate_problem(error):
                raise self._lost(error) from error
            return False

    def _is_final(self, error: httpx.TransportError, attempt: int, *, again: bool) -> bool:
        """Whether another attempt would do no good, or might do twice what is to be done once."""
        not_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
        # One that has taken its time has been asked enough.
        others = attempt < len(self.target.urls)
        refused = not_sent and not others and (attempt > 1 or isinstance(error, httpx.ConnectTimeout))
        return refused or bool(certificate_problem(error)) or not (again or not_sent)

    def _pause_s(self, attempt: int) -> float:
        whole: float = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (attempt - 1))
        return whole * (0.5 + 0.5 * self._jitter())

    def _lost(self, error: httpx.TransportError) -> NearcastError:
        if problem := certificate_problem(error):
            return IntegrityError(
                f"the control plane at {self.target.url} shows a certificate that is not trusted: {problem}",
                hint="check the address, and that --ca-file holds the authority of this fleet (GET /v1/trust)",
            )
        if isinstance(error, httpx.TimeoutException):
            took_s = CONNECT_S if isinstance(error, httpx.ConnectTimeout) else self.target.timeout_s
            return Unreachable(
                f"the control plane at {self.target.url} did not answer in {min(took_s, self.target.timeout_s):g} s",
                hint="something listens there and is stopped, hung or overloaded; sites go on serving without it",
            )
        return Unreachable(f"nobody answers at {self.target.url}: {str(error) or type(error).__name__}")


def _tls(ca_pem: str | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cadata=ca_pem)
    except ssl.SSLError as error:
        raise InvalidInput(f"expected PEM certificates of the authority, got something else: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
