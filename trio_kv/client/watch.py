"""A watch of the blocking client, as an iterator. What it asks and hands out is told in `following`."""

import time
from collections.abc import Callable, Iterator

from trio_kv.client.connection import LineConnection
from trio_kv.client.following import PASSING, RETRY_S, SILENCE_S, Following, Revision
from trio_kv.wire.operations import Watch


def follow(
    connect: Callable[[], LineConnection], operation: Watch, *, timeout_s: float
) -> Iterator[Revision]:
    """Yield what changes, without an end.

    Args:
        connect: opens a connection of its own.
        operation: what to watch, and from where on.
        timeout_s: for each connection, until the watch has begun.

    Raises:
        NotConnectedError: the server can't be reached any more.
        CompactedError: what comes next is gone; its reply tells the oldest revision to begin with.
        RefusedError: the server refuses for another reason.

    """
    following = Following(operation)
    while True:
        connection: LineConnection | None = None
        try:
            connection = connect()
            connection.send(following.request(timeout_s), timeout_s=timeout_s)
            following.begin(connection.receive_line(timeout_s=timeout_s + RETRY_S))
            while following.is_on:
                revision = following.take(connection.receive_line(timeout_s=SILENCE_S))
                if revision is not None and revision.events:
                    yield revision
        except PASSING as error:
            following.fail(error)
            time.sleep(RETRY_S)
        finally:
            if connection is not None:
                connection.close()
