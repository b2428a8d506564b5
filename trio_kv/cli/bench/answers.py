"""Whether answers are right: so that wrong work is never reported as speed.

Every batch is checked for its number of lines, and for as many of them that say `ok`: the load does that, at next to no
cost. All lines are read in the first batch, in every 128th after it, and in each that does not look as it should.
"""

from collections.abc import Sequence
from typing import Any

import attrs
import msgspec
from msgspec import UNSET

from trio_kv.cli.bench.workload import Batch, is_value_of

SAMPLED_EVERY = 128
"""A power of two."""
OK, MISSING, CLOSED, WRONG = "ok", "missing", "closed", "wrong"
EXAMPLES_MAX = 3
"""So many wrong answers are told in full."""
EXAMPLE_CHARACTERS_MAX = 200
CODE_CHARACTERS_MAX = 40
OK_MARKS = (b'"status": "ok"', b'"status":"ok"')
"""How servers write it. Which one this server uses is learnt from its first answer."""


class _Request(msgspec.Struct):
    key: str
    value: Any = UNSET


class _Reply(msgspec.Struct):
    key: Any = UNSET
    value: Any = UNSET
    status: Any = UNSET
    error: Any = UNSET
    close: Any = UNSET


_read_request = msgspec.json.Decoder(_Request).decode
_read_reply = msgspec.json.Decoder(_Reply).decode


class WrongAnswerError(Exception):
    """An answer that no server may give to this request; the message says why."""


@attrs.define
class Answers:
    """What is known about the answers of one server.

    Attributes:
        is_filled: whether every key has a value, so that an answer that finds none is wrong.
        wrong: how many batches had a wrong answer, since the beginning.
        examples: the first of them, in words.
        ok_mark: what each line has in it that says that all is well.

    """

    is_filled: bool = False
    wrong: int = 0
    examples: list[str] = attrs.field(factory=list)
    ok_mark: bytes = OK_MARKS[0]

    def judge(self, batch: Batch, text: bytes) -> list[tuple[bool, str]]:
        """Read all answers to a batch; return of each whether it is a SET's, and what became of it.

        That is `ok`, `missing` or a code. With a wrong one among them the whole batch is `wrong`: who answers out of
        order answers none.
        """
        requests = [_read_request(line) for line in batch.data.splitlines()]
        try:
            codes = self._codes(requests, text)
        except WrongAnswerError as error:
            self.wrong += 1
            if len(self.examples) < EXAMPLES_MAX:
                self.examples.append(str(error))
            codes = [WRONG] * len(requests)
        if self.ok_mark not in text:
            self._learn_mark(text)
        return [(request.value is not UNSET, code) for request, code in zip(requests, codes, strict=True)]

    def _codes(self, requests: Sequence[_Request], text: bytes) -> list[str]:
        lines = text.split(b"\n")
        if lines.pop() or len(lines) != len(requests):
            raise WrongAnswerError(f"to {len(requests)} requests came {len(lines)} lines: {_quote(text)}")
        return [self._code(request, line) for request, line in zip(requests, lines, strict=True)]

    def _code(self, request: _Request, line: bytes) -> str:
        """Return what a line says became of its request."""
        try:
            reply = _read_reply(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise WrongAnswerError(f"no reply in JSON to {request.key}: {_quote(line)}") from error
        if reply.close is not UNSET:
            return CLOSED
        if isinstance(reply.error, str) and reply.key in (request.key, None):
            return reply.error[:CODE_CHARACTERS_MAX]
        if reply.key != request.key:
            raise WrongAnswerError(f"this is no reply to {request.key}: {_quote(line)}")
        if request.value is not UNSET:
            if reply.status != "ok" or reply.value != request.value:
                raise WrongAnswerError(
                    f"a SET of {request.key} that does not say what was set: {_quote(line)}"
                )
            return OK
        if reply.status == "error" and reply.value is None:
            if self.is_filled:
                raise WrongAnswerError(f"{request.key} was written, and is not found")
            return MISSING
        if reply.status != "ok" or not is_value_of(request.key, reply.value):
            raise WrongAnswerError(f"a GET of {request.key} with a value that was never set: {_quote(line)}")
        return OK

    def _learn_mark(self, text: bytes) -> None:
        """Take the mark that the server uses, so that its next answers need not be read."""
        self.ok_mark = next((mark for mark in OK_MARKS if mark in text), self.ok_mark)


def _quote(text: bytes) -> str:
    return text[:EXAMPLE_CHARACTERS_MAX].decode(errors="replace")
