"""What is to be seen of nodes in other processes: each process tells of its own when it is asked, in bytes."""

from typing import Any

import attrs
import msgspec

from trio_kv.cluster.statistics import LinkStatistics, MemberStatistics
from trio_kv.meter.histogram import Histogram
from trio_kv.wire.node_status import NodeStatus


@attrs.frozen
class Look:
    """What one process shows of its nodes."""

    statuses: list[NodeStatus]
    nodes: list[dict[str, Any]]
    """As `looks.look_at_node` has them."""
    members: tuple[MemberStatistics, ...]
    links: tuple[LinkStatistics, ...]
    messages_lost: int


def encode_look(look: Look) -> bytes:
    """Return the bytes of a look."""
    return _encode(look)


def decode_look(data: bytes) -> Look:
    """Return the look in these bytes. Raises ValueError: they are none."""
    return _decode(data)


def _from_histogram(value: Any) -> Any:
    if isinstance(value, Histogram):
        return (value.counts, value.total)
    raise NotImplementedError(type(value))


def _to_histogram(kind: type[Any], value: Any) -> Any:
    if kind is not Histogram:
        raise NotImplementedError(kind)
    histogram = Histogram()
    counts, histogram.total = value
    if len(counts) != len(histogram.counts):
        raise ValueError(f"a histogram of {len(counts)} buckets: right would be {len(histogram.counts)}")
    histogram.counts = list(counts)
    return histogram


_encode = msgspec.msgpack.Encoder(enc_hook=_from_histogram).encode
_decode = msgspec.msgpack.Decoder(Look, dec_hook=_to_histogram).decode
