"""A request for embeddings in the lane: one row for each of its inputs, one answer when the last of them is there.

Decides in which order the rows wait, and what is answered when one of them fails. What a request says is decided in
:mod:`~nearcast.engine.openai`, what its token ids are in :mod:`~nearcast.engine.text`.
"""

from dataclasses import replace

from nearcast.engine.datatypes import Array
from nearcast.engine.exchange import Exchange, timed
from nearcast.engine.lane import Lane
from nearcast.engine.layout import Part
from nearcast.engine.openai import EmbeddingRequest, encode_embeddings, parse_embeddings, shortened
from nearcast.engine.refusal import Refusal
from nearcast.engine.text import Embedder
from nearcast.engine.work import Timing, Work

Texts = tuple[EmbeddingRequest, list[list[int]]]
"""A request without its texts, and the token ids of each input."""


def tokenized(embedder: Embedder, body: bytes, model: str) -> Texts:
    """The request in ``body``, and its token ids.

    Raises:
        Refusal: status 400: not a request for embeddings of ``model``, or not one that it can answer.
    """
    request = parse_embeddings(body, model)
    embedder.check_dimensions(request.dimensions)
    return replace(request, texts=[], tokens=[]), embedder.rows(request)


class Embedding:
    """One request for embeddings: as many rows in the lane as it has inputs, each free to join any batch.

    Args:
        exchange: the request, as it came.
        request: the request, as it was read.
        embedder: makes rows of token ids.
        lane: of the model.
        head: of an answer that went well.
        model: name of the model, as the answer says it.
        arrived_s: when it came.
    """

    def __init__(
        self,
        exchange: Exchange,
        request: EmbeddingRequest,
        embedder: Embedder,
        lane: Lane,
        *,
        head: bytes,
        model: str,
        arrived_s: float,
    ) -> None:
        self._exchange = exchange
        self._request = request
        self._embedder = embedder
        self._lane = lane
        self._head = head
        self._model = model
        self._arrived_s = arrived_s
        self._rows: list[Array | None] = []
        self._left = 0
        self._tokens = 0
        self._timing: Timing | None = None
        self._works: list[_Row] = []
        self._over = False

    def begin(self, rows: list[list[int]]) -> None:
        """Let the token ids of each input wait in the lane."""
        self._exchange.on_lost = self.lost
        self._tokens = sum(map(len, rows))
        self._left = len(rows)
        self._rows = [None] * len(rows)
        # the longest first: batches of one request then hold rows of similar length
        order = sorted(range(len(rows)), key=lambda index: len(rows[index]), reverse=True)
        self._works = [_Row(self, index, self._embedder.feeds(rows[index]), self._arrived_s) for index in order]
        for work in self._works:
            if not self._over:
                self._lane.submit(work)

    def lost(self) -> None:
        """Nobody waits any more."""
        self._over = True
        works, self._works = self._works, []  # they lead back here
        self._lane.cancel(works)

    def row_finished(self, index: int, results: Part, timing: Timing) -> None:
        """Take one embedding; answer with all of them when it is the last."""
        self._rows[index] = results[self._embedder.output][0]
        first = self._timing
        self._timing = timing if first is None else Timing(first.started_s, timing.finished_s, timing.pieces)
        self._left -= 1
        if self._left == 0 and not self._over:
            self._answer(self._timing)

    def row_failed(self, refusal: Refusal) -> None:
        """Refuse the whole request, once."""
        if not self._over:
            self.lost()
            self._exchange.refuse(refusal)

    def _answer(self, timing: Timing) -> None:
        self._over = True
        self._works = []
        rows = [row for row in self._rows if row is not None]
        wanted = self._request.dimensions
        if wanted is not None and wanted != self._embedder.dimensions:
            rows = [shortened(row, wanted) for row in rows]
        body = encode_embeddings(self._model, rows, self._tokens, as_base64=self._request.as_base64)
        self._lane.gauges.answered += 1
        head = timed(self._head, timing.started_s - self._arrived_s, timing.finished_s - timing.started_s)
        self._exchange.reply(head, body)


class _Row(Work):
    """One input of a request for embeddings."""

    __slots__ = ("_index", "_whole")

    def __init__(self, whole: Embedding, index: int, feeds: list[Array], arrived_s: float) -> None:
        super().__init__(feeds, 1, arrived_s)
        self._whole = whole
        self._index = index

    def finished(self, results: Part, timing: Timing) -> None:
        self._whole.row_finished(self._index, results, timing)

    def failed(self, refusal: Refusal) -> None:
        self._whole.row_failed(refusal)
