"""The node's certificate, renewed long before it ends: when a third of its life is over (`identity.RENEW_AFTER`).

The new certificate is for the same key and is checked like the first one. The gateway takes it up for new connections
without a restart.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final

from nearcast.agent.backoff import Backoff
from nearcast.agent.identity import (
    Membership,
    check_certificate,
    load_or_make_key,
    read_identity,
    signing_request,
    validity_of,
)
from nearcast.agent.layout import Layout
from nearcast.agent.report import Troubles
from nearcast.agent.uplink import Uplink
from nearcast.durable import write_whole
from nearcast.errors import NearcastError
from nearcast.gateway.render import Identity
from nearcast.logs import line
from nearcast.resources.plan import server_name

LOOK_S: Final = 3600.0
LEAST_S: Final = 10.0
RETRY: Final = Backoff(base_s=10.0, factor=2.0, cap_s=LOOK_S)
CERTIFICATE: Final = "Certificate"

log = logging.getLogger(__name__)


class Renewer:
    """Renews one node's certificate.

    Args:
        uplink: asks the authority.
        layout, membership: of the node.
        install: makes the gateway show a new identity.
        troubles: where a failing renewal is noted.
        now: the time.
    """

    def __init__(
        self,
        uplink: Uplink,
        layout: Layout,
        membership: Membership,
        install: Callable[[Identity], Awaitable[None]],
        troubles: Troubles,
        now: Callable[[], datetime],
    ) -> None:
        self._uplink = uplink
        self._layout = layout
        self._membership = membership
        self._install = install
        self._troubles = troubles
        self._now = now

    async def run(self) -> None:
        """Look when it is time, and every hour, until cancelled."""
        failures = 0
        while True:
            try:
                await self.renew_if_due()
            except NearcastError as error:
                failures += 1
                self._troubles.set(CERTIFICATE, error)
            else:
                failures = 0
                self._troubles.clear(CERTIFICATE)
            await asyncio.sleep(await asyncio.to_thread(self._pause_s, failures))

    def _pause_s(self, failures: int) -> float:
        """How long to wait: until it is time, an hour at most; after failures as they ask, within what a
        short-lived certificate leaves. Never so short that a clock gone wrong makes it spin."""
        try:
            current = validity_of(self._layout.certificate.read_text())
        except (NearcastError, OSError):  # it is damaged, which the next look reports again
            return LOOK_S
        step_s = (current.ends - current.begins).total_seconds() / 20
        if failures:
            return min(RETRY.delay_s(failures, self._membership.spiffe_id), step_s)
        left_s = (current.renew_at() - self._now()).total_seconds()
        return min(LOOK_S, max(min(LEAST_S, step_s), left_s))

    async def renew_if_due(self) -> bool:
        """Renew the certificate if its time has come; whether it had.

        Raises:
            Unavailable, Unauthenticated, Forbidden: the authority cannot be asked, or refuses.
            IntegrityError: what came is not a certificate for this node; the old one stays.
        """
        current = validity_of(await asyncio.to_thread(self._layout.certificate.read_text))
        if not current.is_due(self._now()):
            return False
        member, key = self._membership, load_or_make_key(self._layout)
        pem = await self._uplink.renew(signing_request(key, f"{member.site}/{member.node}"))
        authority = await asyncio.to_thread(self._layout.authority.read_text)
        fresh = check_certificate(pem, authority, key, member.spiffe_id, server_name(member.fleet, member.site))
        await asyncio.to_thread(write_whole, self._layout.certificate, pem.encode())
        await self._install(await asyncio.to_thread(read_identity, self._layout, member))
        log.info(line("certificate renewed", ends=fresh.ends.isoformat()))
        return True
