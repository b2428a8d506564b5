"""Waits until sockets can be read or written, with as little between the load and the system as there can be.

`selectors` says the same on every system, and costs half a microsecond more for each answer.
"""

import math
import select
import sys
from typing import Protocol

READABLE = select.POLLIN
"""The same number for epoll."""
WRITABLE = select.POLLOUT
COARSE_NS = 100_000_000
"""A wait of this length, or a longer one, may be a millisecond off."""


class Readiness(Protocol):
    """Which sockets are ready."""

    def watch(self, number: int, events: int) -> None:
        """Watch a descriptor for these events from now on."""
        ...

    def change(self, number: int, events: int) -> None:
        """Watch it for other events."""
        ...

    def forget(self, number: int) -> None:
        """Watch it no more; to be called before it is closed."""
        ...

    def wait(self, wait_ns: int) -> list[tuple[int, int]]:
        """Wait until something is ready, at most so long; return descriptors with their events."""
        ...

    def close(self) -> None:
        """Give up what the system lent."""
        ...


class _Poll:
    """Any system: a short wait may be a millisecond too long."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self.watch = self._poll.register
        self.change = self._poll.modify
        self.forget = self._poll.unregister

    def wait(self, wait_ns: int) -> list[tuple[int, int]]:
        return self._poll.poll(math.ceil(wait_ns / 1e6))

    def close(self) -> None:
        """Do nothing: it holds nothing."""


def open_readiness() -> Readiness:
    """Return what this system has."""
    if sys.platform != "linux":
        return _Poll()
    return _Epoll()


if sys.platform == "linux":

    class _Epoll:
        """Linux: however many sockets there are, only the ready ones cost; waits are exact to 50 µs."""

        def __init__(self) -> None:
            self._epoll = select.epoll()
            self.watch = self._epoll.register
            self.change = self._epoll.modify
            self.forget = self._epoll.unregister

        def wait(self, wait_ns: int) -> list[tuple[int, int]]:
            if 0 < wait_ns < COARSE_NS:
                # epoll counts in milliseconds; select, which can wait for it as for any descriptor, does not.
                select.select([self._epoll], [], [], wait_ns / 1e9)
                wait_ns = 0
            return self._epoll.poll(wait_ns / 1e9)

        def close(self) -> None:
            self._epoll.close()
