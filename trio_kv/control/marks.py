"""What stands out in the rewind: the moments at which term or leader became others, or something was told.

A page that was loaded anew draws ten minutes from them, where the frames themselves would be megabytes.
"""

from collections import deque
from collections.abc import Mapping
from typing import Any, Final

import attrs

MARKS_MAX: Final = 2000
"""Of more, the oldest are forgotten: they take 300 kB of JSON at most."""
NOT_MARKED: Final = ("client", "access", "control")
"""Events of these families are no marks: there are many, and a tape shows what happened to the cluster."""


@attrs.frozen
class Mark:
    """One moment."""

    number: int
    """Of its frame."""
    mono: float
    time: str
    term: int
    leader: int | None
    events: tuple[str, ...]
    """Names of what was told, each once, in their order."""


class Marks:
    """The marks of the frames of one run, the newest `MARKS_MAX`."""

    def __init__(self) -> None:
        """Have none yet."""
        self._marks: deque[Mark] = deque(maxlen=MARKS_MAX)
        self._seen: tuple[object, object] | None = None

    def take(self, frame: Mapping[str, Any]) -> None:
        """Note what stands out in a frame, if anything does."""
        names = dict.fromkeys(
            event["event"] for event in frame["events"] if not event["event"].startswith(NOT_MARKED)
        )
        seen = frame["term"], frame["leader"]
        if names or seen != self._seen:
            number, mono, time = frame["number"], frame["mono"], frame["time"]
            self._marks.append(Mark(number, mono, time, *seen, tuple(names)))
        self._seen = seen

    def since(self, number: int) -> list[dict[str, Any]]:
        """Return the marks of frames from a number on, as JSON tells them."""
        return [attrs.asdict(mark) for mark in self._marks if mark.number >= number]
