"""Which groups of states a country belongs to. These are facts, so a manifest cannot claim them, only extend them.

Source: the Treaty on European Union (27 member states since 2020-02-01), the EEA Agreement (adds IS, LI, NO).
"""

from typing import Final

EU: Final = frozenset(
    (
        *("AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU"),
        *("IE", "IT", "LT", "LU", "LV", "MT", "NL", "PL", "PT", "RO", "SE", "SI", "SK"),
    )
)
EEA: Final = EU | {"IS", "LI", "NO"}

GROUPS: Final[dict[str, frozenset[str]]] = {"EEA": EEA, "EU": EU}


def groups_of(country: str) -> tuple[str, ...]:
    """The groups that ``country`` (ISO 3166-1 alpha-2) belongs to by treaty, sorted."""
    return tuple(sorted(name for name, members in GROUPS.items() if country in members))
