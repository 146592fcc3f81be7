"""What went wrong, out of an answer or a broken connection: always an error of the one tree."""

import ssl

import httpx
import msgspec

from nearcast.errors import NearcastError, Unavailable, error_from
from nearcast.resources.unreadable import UNREADABLE


class Unreachable(Unavailable):
    """Nobody answers at the control plane's address."""


class _ErrorBody(msgspec.Struct, frozen=True):
    code: str = "error"
    message: str = ""
    hint: str = ""


class _ErrorAnswer(msgspec.Struct, frozen=True):
    error: _ErrorBody


def failure_in(answer: httpx.Response) -> NearcastError:
    """The error that ``answer`` means: by its code, or by its status where the body is not one of ours."""
    try:
        said = msgspec.json.decode(answer.content, type=_ErrorAnswer).error
    except UNREADABLE:
        said = _ErrorBody(code=_code_of_status(answer.status_code), message=_plain(answer))
    failure = error_from(said.code, said.message or _plain(answer), hint=said.hint)
    if isinstance(failure, Unavailable):
        failure.retry_after_s = _seconds(answer.headers.get("retry-after"))
    return failure


def certificate_problem(error: BaseException) -> str:
    """What TLS verification did not like, if that is what ``error`` is about; else the empty string."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return str(seen.verify_message or seen)
        seen = seen.__cause__ or seen.__context__
    return "certificate verify failed" if "CERTIFICATE_VERIFY_FAILED" in str(error) else ""


def _code_of_status(status: int) -> str:
    names = {400: "invalid_input", 401: "unauthenticated", 403: "forbidden", 404: "not_found", 409: "conflict"}
    names |= {412: "conflict", 422: "invalid_input", 502: "unavailable", 503: "unavailable", 504: "unavailable"}
    return names.get(status, "error")


def _plain(answer: httpx.Response) -> str:
    path = answer.request.url.path
    return f"{answer.request.method} {path} answered {answer.status_code}: {answer.text[:300].strip() or 'no body'}"


def _seconds(text: str | None) -> float:
    try:
        return max(0.0, float(text or ""))
    except ValueError:
        return 1.0
