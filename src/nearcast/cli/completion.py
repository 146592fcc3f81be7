"""What the shell offers while somebody types: kinds, names of the fleet's resources, decisions, policies of the twin.

Decides which words fit. The fleet's are asked of its control plane, once and briefly. Whatever goes wrong, nothing is
offered: between two keys nobody wants to wait or to read an error.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NoReturn

import typer

from nearcast.cli.session import Given, session_of
from nearcast.errors import Unavailable

if TYPE_CHECKING:
    from nearcast.client import ControlClient

TIMEOUT_S: Final = 1.0
"""For the one call to the control plane, connecting included."""
DECISIONS: Final = 20
KINDS: Final = ("site", "node", "model", "deployment", "policy")
_PLURALS: Final = {"site": "sites", "model": "models", "deployment": "deployments", "policy": "policies"}
Words = list[str] | list[tuple[str, str]]


def kinds(context: typer.Context, incomplete: str) -> Words:
    """KIND or KIND/NAME."""
    kind, slash, _ = incomplete.partition("/")
    if not slash:
        plurals = (_PLURALS.get(each, f"{each}s") for each in KINDS)
        return _fitting((*KINDS, *plurals), incomplete)
    found = _asked(context, lambda client: _names(client, kind))
    return _fitting((f"{kind}/{name}" for name in found), incomplete)


def names(context: typer.Context, incomplete: str) -> Words:
    """The name of a resource whose kind stands before it."""
    kind = str(context.params.get("what") or "")
    return [] if "/" in kind else _fitting(_asked(context, lambda client: _names(client, kind)), incomplete)


def sites(context: typer.Context, incomplete: str) -> Words:
    """The name of a site."""
    return _fitting(_asked(context, lambda client: _names(client, "site")), incomplete)


def nodes(context: typer.Context, incomplete: str) -> Words:
    """SITE/NODE."""
    return _fitting(_asked(context, lambda client: _names(client, "node")), incomplete)


def models(context: typer.Context, incomplete: str) -> Words:
    """The name of a model."""
    return _fitting(_asked(context, lambda client: _names(client, "model")), incomplete)


def deployments(context: typer.Context, incomplete: str) -> Words:
    """The name of a deployment, or of a model."""
    both = _asked(context, lambda client: [*_names(client, "deployment"), *_names(client, "model")])
    return _fitting(both, incomplete)


def decisions(context: typer.Context, incomplete: str) -> Words:
    """The number of one of the last decisions, with what changed."""
    found = _asked(
        context, lambda client: [(str(item.id), "; ".join(item.reason)) for item in client.decisions(DECISIONS)]
    )
    return [(number, reason) for number, reason in found if number.startswith(incomplete)]


def policies(incomplete: str) -> Words:
    """The name of a policy of the twin."""
    from nearcast.twin.names import NAMES

    return _fitting(NAMES, incomplete)


def _fitting(words: Iterable[str], incomplete: str) -> list[str]:
    return sorted({word for word in words if word.startswith(incomplete)})


def _names(client: "ControlClient", kind: str) -> Sequence[str]:
    """The names of all resources of ``kind``, which may be written in any of its ways."""
    from nearcast.resources.kinds import PLURALS, kind_named

    if kind.lower() in {"node", "nodes"}:
        return [f"{node['site']}/{node['name']}" for node in client.nodes()]
    known = kind_named(kind)
    return [str(item["metadata"]["name"]) for item in client.resources(PLURALS[known])] if known else []


def _asked(context: typer.Context, ask: "Callable[[ControlClient], Sequence[Any]]") -> Sequence[Any]:
    """What ``ask`` gets from the control plane that the command line means; nothing where that fails."""
    from nearcast.cli.connect import target_of, transport_of
    from nearcast.client import ControlClient

    try:
        target = replace(target_of(session_of(_given(context), os.environ)), timeout_s=TIMEOUT_S)
        with ControlClient(target, transport=transport_of(target), sleep=_not_again) as client:
            return ask(client)
    except Exception:  # noqa: BLE001 - the border of the process: the shell shows what is offered, and nothing else
        return ()


def _given(context: typer.Context) -> Given:
    """The options that say which fleet, before and after the command's name."""

    def of(params: dict[str, Any]) -> Given:
        return Given(**{name: params.get(name) for name in ("data_dir", "control", "token", "ca_file")})

    return of(context.params).over(of(context.find_root().params))


def _not_again(_pause_s: float) -> NoReturn:
    raise Unavailable("asked once")
