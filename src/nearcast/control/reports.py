"""What nodes told one replica, written down for the others: in batches, a row per node that has news.

Rows carry a beat that rises with every batch, so that each replica reads only what it has not read. Of two words of one
moment, told to two replicas, the one that is written later counts: the database puts them in one order for everybody.
"""

from collections.abc import Mapping
from typing import Final

from sqlalchemy import func, select

from nearcast.control.database import Database, bump
from nearcast.control.tables import Node, Report

REPORTS: Final = "reports"
NodeKey = tuple[str, str]


class Reports:
    """The last word of every node, shared by replicas. Safe for several threads and processes."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.is_shared = database.is_shared
        """Whether there may be other replicas that have to be told."""

    def write(self, words: Mapping[NodeKey, tuple[str, str | None]]) -> None:
        """Write down (seen at, status document or None for the one that is there) of nodes; older words are dropped."""
        with self._database.write() as session:
            beat = bump(session, REPORTS)
            for (site, node), (seen_at, document) in words.items():
                row = session.get(Report, (site, node))
                if row is None:
                    session.add(Report(site=site, node=node, beat=beat, seen_at=seen_at, document=document))
                elif row.seen_at <= seen_at:
                    row.beat, row.seen_at = beat, seen_at
                    row.document = row.document if document is None else document

    def since(self, beat: int) -> tuple[int, dict[NodeKey, tuple[str, str | None]]]:
        """The newest beat, and the words of members that came after ``beat``."""
        query = (
            select(Report)
            .join(Node, (Node.site == Report.site) & (Node.node == Report.node))
            .where(Report.beat > beat, Node.revoked_at.is_(None))
        )
        with self._database.read() as session:
            newest = session.scalar(select(func.max(Report.beat))) or 0
            rows = session.scalars(query).all()
        return newest, {(row.site, row.node): (row.seen_at, row.document) for row in rows}
