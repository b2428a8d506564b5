"""The bytes of the write-ahead log: what goes in comes out, and nothing else is taken for it."""

import attrs
import msgspec
import pytest
from crc32c import crc32c

from trio_kv.kv.commands import Write, decode_command
from trio_kv.kv.operations import Set
from trio_kv.raft.entry import Entry, make_entry
from trio_kv.raft.ready import HardState
from trio_kv.wire.frames import (
    SECTOR_BYTES,
    ZERO_SECTOR,
    Base,
    FrameError,
    Identity,
    Kind,
    Record,
    Reset,
    SegmentHeader,
    Truncate,
    decode_records,
    decode_segment_header,
    encode_frame,
    encode_record,
    frame_bytes,
    read_frame,
)

HEADER = SegmentHeader(Identity("0123456789abcdef" * 2, 3, 2**53 - 1), 7, 16384)
HEARD = HardState(5, 3, ((1, 7), (2, (1 << 64) - 1)))
"""A hard state with incarnations."""


def entries(count: int, *, first: int = 1, value: str = "chips") -> list[Entry]:
    raw = msgspec.Raw(msgspec.json.encode(value))
    return [make_entry(first + n, 2, n, Write(1, n, n, Set(f"key{n}", raw))) for n in range(count)]


def payload_of(records: list[Record]) -> bytes:
    return b"".join(part for record in records for part in encode_record(record))


def test_segment_header_round_trip() -> None:
    """A header fills one sector and is read back as it was."""
    data = HEADER.encode()
    assert len(data) == SECTOR_BYTES
    assert decode_segment_header(data + bytes(SECTOR_BYTES)) == HEADER


def test_segment_header_notices_every_wrong_byte() -> None:
    """No byte of a header can be wrong, and none missing, without being noticed."""
    data = HEADER.encode()
    for offset in range(SECTOR_BYTES):
        wrong = bytearray(data)
        wrong[offset] ^= 0x10
        with pytest.raises(FrameError):
            decode_segment_header(bytes(wrong))
        with pytest.raises(FrameError, match=f"ends at byte {offset}"):
            decode_segment_header(data[:offset])


@pytest.mark.parametrize("version", [1, 5])
def test_segment_header_of_another_format_is_refused(version: int) -> None:
    """A log of an unknown format is not guessed at, and the message names both formats."""
    data = bytearray(HEADER.encode())
    data[8] = version
    data[-4:] = crc32c(bytes(data[:-4])).to_bytes(4, "little")
    with pytest.raises(FrameError, match=f"format {version}, this program reads format 4"):
        decode_segment_header(bytes(data))


@pytest.mark.parametrize("version", [2, 3])
def test_a_segment_of_a_format_before_keeps_its_checks(version: int) -> None:
    """Its header says another format, so its frames' checks start from another seed; both are taken as they stand."""
    old = attrs.evolve(HEADER, format=version)
    found = decode_segment_header(old.encode())
    assert found == old
    assert found.seed == old.seed != HEADER.seed


def test_seeds_of_segments_differ() -> None:
    """Another node, incarnation or number gives another seed: a frame is valid in one segment only."""
    identity = HEADER.identity
    seeds = {
        SegmentHeader(Identity(identity.cluster, node, incarnation), number, 16384).seed
        for node in (1, 2)
        for incarnation in (1, 2)
        for number in (1, 2)
    }
    assert len(seeds) == 8


@pytest.mark.parametrize("length", [0, 1, 497, 498, 499, 500, 511, 512, 1010, 1011, 1012, 5000])
def test_frame_round_trip(length: int) -> None:
    """A frame of whatever length fills whole sectors, none of them zero, and gives back its payload."""
    payload = bytes(range(1, 256)) * 20
    data = bytes(SECTOR_BYTES) + encode_frame(
        Kind.RECORDS, (payload[: length // 2], payload[length // 2 : length]), 99, SECTOR_BYTES
    )
    assert len(data) == SECTOR_BYTES + frame_bytes(length)
    frame = read_frame(data, 99, SECTOR_BYTES)
    assert frame is not None
    assert frame.is_whole(data)
    assert frame.end == len(data)
    assert frame.kind == Kind.RECORDS
    assert frame.payload(data) == payload[:length]
    assert all(
        data[place : place + SECTOR_BYTES] != ZERO_SECTOR
        for place in range(SECTOR_BYTES, len(data), SECTOR_BYTES)
    )


def test_frame_notices_every_wrong_byte() -> None:
    """No byte of a frame, header, payload or fill, can be wrong without being noticed."""
    data = encode_frame(Kind.RECORDS, (b"x" * 700,), 1, 0)
    for offset in range(len(data)):
        wrong = bytearray(data)
        wrong[offset] ^= 0xFF
        frame = read_frame(bytes(wrong), 1, 0)
        assert frame is None or not frame.is_whole(bytes(wrong)), offset


def test_no_wrong_byte_makes_a_sector_zero() -> None:
    """A frame's sectors have many bytes that aren't zero: no single wrong one makes them look unwritten."""
    no_ops = [make_entry(index, 1, 0, None) for index in range(1, 400)]
    for count in range(1, 400):
        data = encode_frame(Kind.RECORDS, encode_record(no_ops[:count]), 1, 0)
        for place in range(0, len(data), SECTOR_BYTES):
            assert SECTOR_BYTES - data[place : place + SECTOR_BYTES].count(0) >= 16


def test_frame_is_valid_at_its_place_only() -> None:
    """Bytes of a frame at another offset, or in another segment, are no frame."""
    data = encode_frame(Kind.RECORDS, (b"abc",), 5, 1024)
    assert read_frame(bytes(1024) + data, 5, 1024) is not None
    assert read_frame(bytes(512) + data, 5, 512) is None
    assert read_frame(bytes(1024) + data, 6, 1024) is None


def test_a_run_of_zeros_is_refused() -> None:
    """A payload with a sector's worth of zeros is refused: recovery could take it for a torn write."""
    with pytest.raises(AssertionError, match="run of 512 zero bytes"):
        encode_frame(Kind.RECORDS, (b"x" + ZERO_SECTOR,), 1, 0)


def test_records_round_trip() -> None:
    """All records come back in order; entries with the very bytes they were made with."""
    some = entries(5)
    records: list[Record] = [HardState(4, None), Base(9, 2), HEARD, Truncate(8), Reset(70, 4), some]
    assert list(decode_records(payload_of(records), decode_command)) == records


def test_records_cut_short_are_refused() -> None:
    """A payload that ends inside a record is refused, whatever byte it ends at."""
    payload = payload_of([HardState(5, 3), Truncate(8), Base(1, 1), Reset(2, 1), HEARD, entries(2)])
    whole = {0, 13, 22, 39, 56, 94}
    for length in set(range(len(payload))) - whole:
        with pytest.raises(ValueError, match="cut short"):
            list(decode_records(payload[:length], decode_command))


def test_unknown_record_is_refused() -> None:
    """A record of a kind that this program doesn't know is not skipped."""
    with pytest.raises(FrameError, match="unknown record 77"):
        list(decode_records(b"\x4d", decode_command))
