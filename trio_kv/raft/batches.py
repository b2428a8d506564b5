"""What one pass of a leader reads of its log for its followers."""

from collections.abc import Iterator

from trio_kv.raft.config import RaftConfig
from trio_kv.raft.entry import Entry
from trio_kv.raft.log import Log
from trio_kv.raft.log_space import WRITE_BYTES_EXTRA, fitting
from trio_kv.raft.progress import Progress


class Batches:
    """The entries of the appends that a leader sends in one pass. Followers that lack the same share a batch.

    Old entries are packed, and reading them takes long: a whole window of them for one follower took longer than the
    others wait for a heartbeat. So each follower gets one batch, and more only until the pass has read as many entries
    as a batch may have. A further pass goes on.

    Args:
        log: the leader's.
        config: how large a batch may be.

    """

    __slots__ = ("_config", "_entries_read", "_log", "_read", "has_more")

    def __init__(self, log: Log, config: RaftConfig) -> None:
        """Have read nothing yet; see the class."""
        self._log = log
        self._config = config
        self._read: dict[int, tuple[tuple[Entry, ...], int]] = {}
        self._entries_read = 0
        self.has_more = False
        """Whether a follower could be sent more than this pass had time for."""

    def of(self, progress: Progress) -> Iterator[tuple[tuple[Entry, ...], int]]:
        """Yield what a follower is sent now, and its bytes, batch by batch. Each is sent before the next is taken."""
        log, is_first = self._log, True
        while log.base_index < progress.next <= log.last_index and progress.is_window_open():
            if progress.free_log_bytes is not None:
                # A full disk takes one append at a time, as far as there is space. More would only be rejected, as fast
                # as it can be sent again.
                if progress.in_flight:
                    return
                entries = fitting(self._at(progress.next)[0], progress.free_log_bytes - WRITE_BYTES_EXTRA)
                if not entries:
                    return
                size_bytes = sum([len(entry.encoded) for entry in entries])
            elif is_first or self._entries_read < self._config.append_entries_max:
                entries, size_bytes = self._at(progress.next)
            else:
                self.has_more = True
                return
            is_first = False
            yield entries, size_bytes

    def _at(self, first: int) -> tuple[tuple[Entry, ...], int]:
        """Return the batch that begins there, and its bytes."""
        batch = self._read.get(first)
        if batch is None:
            config = self._config
            batch = self._log.batch(first, config.append_entries_max, config.append_bytes_max)
            self._read[first] = batch
            self._entries_read += len(batch[0])
        return batch
