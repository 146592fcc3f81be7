"""From the words of a command line to kinds and names, with the nearest right one where a word is wrong."""

from collections.abc import Iterable
from dataclasses import dataclass

from nearcast.client import ControlClient, Document
from nearcast.errors import InvalidInput, NotFound
from nearcast.resources.kinds import KINDS, PLURALS, kind_named
from nearcast.resources.problems import did_you_mean


@dataclass(frozen=True, slots=True)
class Reference:
    """A kind, and the name of one resource of it or None for all."""

    kind: str
    name: str | None = None

    @property
    def plural(self) -> str:
        """The kind as it stands in URLs."""
        return PLURALS[self.kind]

    def __str__(self) -> str:
        return f"{self.kind.lower()}/{self.name}" if self.name else self.plural


def kind_of(word: str) -> str:
    """The kind that ``word`` means, in any case, singular or plural.

    Raises:
        InvalidInput: there is none; the message names the nearest.
    """
    kind = kind_named(word)
    if kind is None:
        raise InvalidInput(
            f"expected a kind, got {word!r}",
            hint=did_you_mean(word.lower(), [*(name.lower() for name in KINDS), *PLURALS.values()])
            or f"the kinds are {', '.join(PLURALS.values())}; one resource is KIND/NAME, such as deployment/{word}",
        )
    return kind


def reference_of(what: str, name: str | None) -> Reference:
    """What ``KIND``, ``KIND NAME`` or ``KIND/NAME`` means.

    Raises:
        InvalidInput: no such kind, or two names.
    """
    kind, slash, inline = what.partition("/")
    if slash and name:
        raise InvalidInput(f"expected one name, got {inline!r} and {name!r}", hint="write KIND/NAME or KIND NAME")
    if slash and not inline:
        raise InvalidInput(f"expected a name after the slash in {what!r}", hint="write KIND/NAME or KIND NAME")
    return Reference(kind_of(kind), inline or name)


def named(what: str, name: str | None) -> tuple[Reference, str]:
    """The same for commands that are about one resource.

    Raises:
        InvalidInput: there is no name, too.
    """
    reference = reference_of(what, name)
    if reference.name is None:
        raise InvalidInput(f"expected the name of a {reference.kind}", hint=f"such as {reference.kind.lower()}/NAME")
    return reference, reference.name


def unknown(client: ControlClient, reference: Reference) -> NotFound:
    """The error for a resource that is not there, with the names that are nearest to what was asked for."""
    names = [name_in(document) for document in client.resources(reference.plural)]
    return unknown_among(reference.kind.lower(), reference.name or "", names)


def unknown_among(noun: str, name: str, names: Iterable[str]) -> NotFound:
    """The error for a ``noun`` that is not called ``name``, when there are ``names``."""
    known = sorted(set(names))
    listed = ", ".join(known[:10]) + (", …" if len(known) > 10 else "")
    return NotFound(
        f"there is no {noun} {name!r}",
        hint=did_you_mean(name, known) or (f"there are: {listed}" if known else f"there is no {noun} at all yet"),
    )


def name_in(document: Document) -> str:
    """``metadata.name``."""
    return str(document["metadata"]["name"])
