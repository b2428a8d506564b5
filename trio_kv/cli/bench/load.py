"""The load: one thread, sockets that never wait, batches that are ready-made.

It is as light as Python can make it, since what it takes of the machine a server on the same machine lacks.

- **Closed loop** (no rate): each connection sends its next batch when the one before is answered.
- **Open loop** (a rate): batch n is due n times a fixed interval after the beginning, whatever became of those before.
  The first connection that is free sends it, late if none was. Latencies count from when it was due, so that a server
  that stands still is charged for all who would have come meanwhile (no coordinated omission).
- A connection that is lost is connected again after a rest. Its batch counts as errors.
- At the end what is under way is waited for, so that the slowest answers are not the ones that are left out.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from trio_kv.cli.bench.answers import CLOSED, MISSING, OK, SAMPLED_EVERY, WRONG, Answers
from trio_kv.cli.bench.connection import RECEIVE_BYTES, Connection, ConnectionLostError, code_of
from trio_kv.cli.bench.figures import Figures
from trio_kv.cli.bench.histogram import EXACT_BITS, SUB_BUCKETS_BITS
from trio_kv.cli.bench.ready import COARSE_NS, READABLE, WRITABLE, open_readiness
from trio_kv.cli.bench.workload import Batch
from trio_kv.client.errors import NotConnectedError

RETRY_NS = 100_000_000
"""A lost connection rests so long."""
DRAIN_NS = 5_000_000_000
"""After the end, what is under way is waited for so long: the server's own time-out for a request."""
WAIT_NS = COARSE_NS
"""The longest wait: a signal and the end are noticed within it."""
CONNECT_NS = 5_000_000_000
"""In the beginning, connections may take so long."""
TOLD_EVERY_NS = 250_000_000
_SAMPLED_MASK = SAMPLED_EVERY - 1
LAST_WORDS = (WRONG, CLOSED)
"""What comes after one of these on a connection may belong to anything."""
LINE_END = ord("\n")

Clock = Callable[[], int]
OnProgress = Callable[[float, int], None]
"""Is told the seconds since the beginning, and how many requests were answered since then."""


class Load:
    """Connections, and what is under way on them.

    Call `run` for each phase (filling, warming up, measuring); the connections stay.
    """

    def __init__(
        self,
        family: int,
        peer: Sequence[Any],
        connections: int,
        answers: Answers,
        clock_ns: Clock = time.perf_counter_ns,
        *,
        make: Callable[[int, Sequence[Any]], Connection] | None = None,
    ) -> None:
        """Connect nothing yet.

        Args:
            family: of the address.
            peer: address of the server, as the system has it.
            connections: how many.
            answers: judges the answers.
            clock_ns: the time.
            make: makes a connection of family and peer; None for plain ones.

        """
        self.answers = answers
        self.figures = Figures()
        self._clock_ns = clock_ns
        self._readiness = open_readiness()
        self._connections = [(make or Connection)(family, peer) for _ in range(connections)]
        self._by_number: dict[int, Connection] = {}
        self._idle = deque[Connection]()
        self._resting = deque((0, connection) for connection in self._connections)
        self._batches: Iterator[Batch] = iter(())
        self._interval_ns = 0
        self._due_ns = 0
        self._end_ns = 0
        self._answered_ns = 0
        self._ticks = -1  # the first batch is number 0, and is read
        self._is_sending = False
        self._is_stopped = False

    @property
    def is_stopped(self) -> bool:
        """Whether it was told to stop."""
        return self._is_stopped

    def stop(self) -> None:
        """End at once, with the figures so far; safe to call from a signal handler."""
        self._is_stopped = True
        self._end_ns = 0

    def close(self) -> None:
        """Close all connections."""
        for connection in self._connections:
            connection.end()
        self._readiness.close()

    def connect(self) -> None:
        """Open all connections.

        Raises:
            NotConnectedError: some could not be opened; the message says why.

        """
        now = self._clock_ns()
        until = now + CONNECT_NS
        while not all(each.is_open for each in self._connections) and not self._is_stopped:
            self._step(now)
            now = self._clock_ns()
            if self.figures.lost or now > until:
                opened = sum(each.is_open for each in self._connections)
                why = next(iter(self.figures.lost), "no answer in time")
                raise NotConnectedError(
                    f"{opened} of {len(self._connections)} connections could be opened: {why}"
                )

    def run(
        self,
        batches: Iterator[Batch],
        *,
        seconds: float,
        rate: float = 0.0,
        on_progress: OnProgress = lambda _seconds, _answered: None,
    ) -> Figures:
        """Send batches until the time is over, or there are none left; return what came of it.

        Args:
            batches: what to send; all of one size if there is a rate.
            seconds: how long.
            rate: batches a second; 0: as many as are answered.
            on_progress: is told now and then how far it is.

        """
        self.figures = Figures()
        self._batches = batches
        self._interval_ns = round(1e9 / rate) if rate else 0
        begin_ns, cpu_begin = self._clock_ns(), time.thread_time()
        self._answered_ns = self._due_ns = begin_ns
        self._end_ns = 0 if self._is_stopped else begin_ns + round(seconds * 1e9)
        self._is_sending = True
        self._idle.clear()
        for connection in self._connections:
            try:
                if connection.is_open:
                    self._next(connection, begin_ns)
            except OSError as error:
                self._lose(connection, error, begin_ns)
        told_ns = begin_ns
        while (now := self._clock_ns()) < self._end_ns and (self._is_sending or self._has_batches()):
            if now - told_ns >= TOLD_EVERY_NS:
                told_ns = now
                on_progress((now - begin_ns) / 1e9, self.figures.answered)
            self._step(now)
        self._is_sending = False
        self.figures.freeze((now - begin_ns) / 1e9, time.thread_time() - cpu_begin)
        self.figures.longest_gap_ns = max(self.figures.longest_gap_ns, now - self._answered_ns)
        if self._interval_ns:
            self.figures.not_sent = max(0, now - self._due_ns) // self._interval_ns
        self._drain(now)
        return self.figures

    def _has_batches(self) -> bool:
        """Return whether anything is under way."""
        return any(each.batch is not None for each in self._connections)

    def _drain(self, now: int) -> None:
        """Wait for what is under way, and count as errors what is not answered even then."""
        until = now + DRAIN_NS
        while not self._is_stopped and now < until and self._has_batches():
            self._step(now)
            now = self._clock_ns()
        for connection in self._connections:
            if connection.batch is not None and not self._is_stopped:
                self._lose(connection, "no answer", now)

    def _step(self, now: int) -> None:
        """Do what is due, wait, and take what came."""
        if self._resting and self._resting[0][0] <= now:
            self._reconnect(now)
        wait_ns = WAIT_NS
        if self._interval_ns and self._is_sending:
            wait_ns = self._send_due(now)
        if self._resting:
            wait_ns = min(wait_ns, max(0, self._resting[0][0] - now))
        self._serve(self._readiness.wait(wait_ns))

    def _serve(self, ready: Sequence[tuple[int, int]]) -> None:
        """Take what came, and send what is next.

        Nearly all answers come whole and as they should be. That way is written out, without a call of ours on it:
        calls would cost as much as the rest.
        """
        sets_buckets, gets_buckets = self.figures.sets.latencies.buckets, self.figures.gets.latencies.buckets
        by_number, clock_ns, mark, ticks, now = (
            self._by_number,
            self._clock_ns,
            self.answers.ok_mark,
            self._ticks,
            0,
        )
        for number, events in ready:
            connection = by_number[number]
            try:
                if events != READABLE and (events & WRITABLE or not connection.is_open):
                    self._write(connection)
                    continue
                text = connection.recv(RECEIVE_BYTES)
                batch = connection.batch
                if batch is None or connection.chunks or text.count(b"\n") != batch.size:
                    whole = connection.add(text)
                    if whole is None or batch is None:
                        continue
                    text = whole
                now = clock_ns()
                latency = now - connection.due_ns
                connection.batch = None
                ticks += 1
                if text.count(mark) != batch.size or text[-1] != LINE_END or not ticks & _SAMPLED_MASK:
                    self._judge(batch, text, latency)
                else:
                    # As `Histogram.record` has it.
                    shift = latency.bit_length() - EXACT_BITS
                    bucket = latency if shift <= 0 else (shift << SUB_BUCKETS_BITS) + (latency >> shift)
                    sets_buckets[bucket] += batch.sets
                    gets_buckets[bucket] += batch.gets
                if self._is_sending:
                    self._next(connection, now)
            except BlockingIOError:
                continue
            except OSError as error:
                self._lose(connection, error, clock_ns())
        self._ticks = ticks
        if now and self._is_sending:
            self.figures.longest_gap_ns = max(self.figures.longest_gap_ns, now - self._answered_ns)
            self._answered_ns = now

    def _next(self, connection: Connection, now: int) -> None:
        """Give a connection that is free what there is to do."""
        if self._interval_ns:
            self._idle.append(connection)
            return
        batch = next(self._batches, None)
        if batch is None:
            self._is_sending = False
            return
        connection.batch = batch
        connection.due_ns = now
        try:
            sent = connection.send_some(batch.data)
        except BlockingIOError:
            sent = 0
        if sent != len(batch.data):
            connection.keep_rest(sent)
            self._readiness.change(connection.fileno(), READABLE | WRITABLE)

    def _write(self, connection: Connection) -> None:
        """Go on with a connection that can be written."""
        if connection.is_open:
            if connection.send_rest():
                self._readiness.change(connection.fileno(), READABLE)
            return
        connection.finish_start()
        self._readiness.change(connection.fileno(), READABLE)
        if self._is_sending:
            self._next(connection, self._clock_ns())

    def _judge(self, batch: Batch, text: bytes, latency: int) -> None:
        """Count a batch by what its answers say.

        Raises:
            ConnectionLostError: it can't be used any more: what comes next on it may belong to this batch.

        """
        lost = ""
        for is_set, code in self.answers.judge(batch, text):
            tally = self.figures.sets if is_set else self.figures.gets
            if code in {OK, MISSING}:
                tally.latencies.record(latency)
                tally.missing += code == MISSING
            else:
                tally.errors[code] += 1
                if code in LAST_WORDS:
                    lost = code
        if lost:
            raise ConnectionLostError(lost)

    def _send_due(self, now: int) -> int:
        """Send what is due, as far as connections are free; return how long nothing more will be, in ns."""
        while self._idle and self._due_ns <= now:
            connection = self._idle.popleft()
            if connection.is_open and connection.batch is None:
                due_ns = self._due_ns
                self._due_ns += self._interval_ns
                try:
                    if not connection.send(next(self._batches), due_ns):
                        self._readiness.change(connection.fileno(), READABLE | WRITABLE)
                except OSError as error:
                    self._lose(connection, error, now)
        return min(WAIT_NS, self._due_ns - now) if self._idle else WAIT_NS

    def _lose(self, connection: Connection, why: OSError | str, now: int) -> None:
        """Count what was under way as errors, and let the connection rest."""
        code = why if isinstance(why, str) else code_of(why)
        figures, batch = self.figures, connection.batch
        figures.lost[code] += 1
        if batch is not None and batch.sets:
            figures.sets.errors[code] += batch.sets
        if batch is not None and batch.gets:
            figures.gets.errors[code] += batch.gets
        del self._by_number[connection.fileno()]
        self._readiness.forget(connection.fileno())
        connection.close()
        self._resting.append((now + RETRY_NS, connection))

    def _reconnect(self, now: int) -> None:
        """Begin to connect those that have rested."""
        while self._resting and self._resting[0][0] <= now:
            _, connection = self._resting.popleft()
            self._by_number[connection.fileno()] = connection
            self._readiness.watch(connection.fileno(), WRITABLE)
            try:
                connection.start()
            except OSError as error:
                self._lose(connection, error, now)
