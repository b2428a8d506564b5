"""Data directories of earlier versions: read as they are, or refused with the way over."""

import base64
import io
import tarfile
from pathlib import Path
from random import Random

import msgspec
import pytest

from trio_kv.kv.commands import Write
from trio_kv.kv.operations import Set
from trio_kv.kv.restorer import Restorer
from trio_kv.raft.entry import make_entry
from trio_kv.raft.ready import HardState, Ticket
from trio_kv.raft.ready import Write as DiskWrite
from trio_kv.storage.data_directory import DataDirectory, open_data_directory
from trio_kv.storage.errors import NodesDifferError

FORMAT_2 = (
    "/Td6WFoAAATm1rRGAgAhARwAAAAQz1jM4Rf/A5JdABcLvBx9AZXAKRTgxrSS237a8v4soJbYCSwMnxZsGE16IiPTRdf43rTiocff"
    "tMwZVpsK3OxzQDPu4hAYWpP8E1rrAm2GtB/8WwqD2grsQnpAPmAgFaNL4vwXnYwrrFbnBGZ/zGmGw84PfcotXa1c1k4FKY+f1/4b"
    "xmXYcLRrnNQr0dn4H8QtC3XhTGH8W2kxyLJiVO6a8kT2aDVmELayLNPwZwg33C/DnCQCwAMxC/KPdQBfqNy+FsbRNaVusHhO084l"
    "bsDLg1IwXXOhI1JFy6MmKr/myAVzaIJozKzt0sfPxaU0I1nBhpmgdSHhmVvE9NSO7BW3kNian9JYwbOyngxoJL7ObgSAuWtB7Aux"
    "gMp6q9Z28c4OExXP8vNT6BXMRpR7n3O53uEOlJbyep0ZTI0iT2AlrOhOcl6Qku2JqtzdeSs/tRHlr0IEbdUrqzcn+smoRycv1ONk"
    "9OarTGmGKLlL0FXucZqLXACCCoTrMbUXgrcqErrgoiOa2zZYVJ/qOj1HQ1oIBWJoXS9PVGdZH1d8iLjZkEclJ31+s0dyG1Efydhy"
    "uiHFsI+54WbmRK2YQxfMJX/fh0awF4UVqTBN4NuIkHe3A645Pft/bllq7atFt/bIQu449hHM2wnOqK1ze4rLudGiBwV2knbB3mWg"
    "HY/IeQogp0QpWCdHzsAIBtFpHhlI4ZW8LbhVDVst2el9OyYCq1NnEMPLIfLDJaBxdyC35lTymshL22OWo3W1eVORFjJNWyyP1wvO"
    "xF1+1T8xn0MVGCTUwjNVvR31dS6+5IvpWNGVtO66DP511scnlnoGsFmnQ3JfdJjHok/knhKrpgXex8Tx4TmHHgWz/7cze0FaAWN5"
    "/lzCFOhRrAWjkeh9NQAAK1dRWBIq9qs/8aIV1BfoRpgfIiJC1HMnp0lqA0h7wRFRUtaCFiTsa0EKjcs3SiCgd/HmhFW4cgFe/hE9"
    "/aYu32j6spdKJGq10SHet8IMRoNFel6e0uLSMCsfzqdZQ5xdEcU7cRZdLRML6ww1Llldnx74nvhebCkJcpzw4anoeIkx1xnuo43D"
    "5sIoHiQtFfXg+KLsb/YYT+7AYwuHRViJtJC8zrpETKwpWIkuekw8nVq02OEuMO/PZDGu90ilF27/dpnDnEJYkJi/T2DT2cCh+52K"
    "JDlRMUU3UuMwn6tksm+BGXvn+8yyONuWjR+vNITYyAcBfrrB8g/aQTJzhQAAAAAAiAZC+GC3IFAAAa4HgLAEAHz1CB6xxGf7AgAA"
    "AAAEWVo="
)
"""A directory, as an xz tar in base64, of the version that wrote format 2. A server with one node was asked to set `a`
to 1.10, by `cas` to "two", took a snapshot, set `b` to null, and was killed."""
FORMAT_3 = (
    "/Td6WFoAAATm1rRGAgAhARwAAAAQz1jM4Cf/AdBdADYbyI3Gs1mvAe5yIG8evS6E0kBZabbk7DmBA0Ytm8kRJG9wS445O1YQkRo1+JjH"
    "Uv+0wEQ9O0Nr2DcdF6sMSwuEIuUSJtKesVFjLMNMiPMcgWT8NnaV0xj9cGo9Icg9p8MrgOJOQDwfjINauWK3VT50heM0uxQO0axgrmzZ"
    "jR+5c/sNooHeLFKBBuzY5d1zoMaJ68cR7H4zGiN7lBDAiI+fhYrWPu68z8aAW/Phwt2/fRKiASWeaaOLeq1q9Trt6uO0CbdcdiNMxiRn"
    "NV2wdAfQfaKP9cB8yzVqnIGx47uRozRuR6whGI6Yz2ZP7bku5x3iuUWv7wZTgxlR0Vip/qDwtJxMusm7gSWXSsYRQIBHGOlIEri8BsBf"
    "XkOCL9hyi6Xe/RrdDqr7oAFbS2pSVBd/FIbNoexhmo8MwyTWCB2q5j/YfcV8LfPrzgCJPOPbC/o35BICHqBkGbQ27BBm9I/I6nqERLt+"
    "2M5HKss9jj0QOSdbDyssA5qWMXadgtTrBA7xzX8dk0bHHo7GsidaDrhVdJTU2g3nII7r78ytF7SQ8NviNK5Lt96J6tcWvLfoODVyM7t5"
    "HKxrWGyEbNLL4RBJCLCIl20nsBFWvsysL8gAAGDWLQBL9uG/AAHsA4BQAAB/7ZZkscRn+wIAAAAABFla"
)
"""The same of the version that wrote format 3: one node, in term 2, with a no-op and a write of `a`."""


def unpack(path: Path, directory: str = FORMAT_2) -> None:
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(directory)), mode="r:xz") as archive:
        archive.extractall(path, filter="data")


def open_directory(path: Path) -> DataDirectory:
    return open_data_directory(path, random=Random(1), is_synced=False)


def format_of(path: Path) -> int:
    found: int = msgspec.json.decode((path / "manifest.json").read_bytes())["format"]
    return found


def test_a_directory_of_format_2_is_opened_as_it_is(tmp_path: Path) -> None:
    """Its log and snapshot are read, and the log goes on in the segment that was begun; a later start reads both."""
    unpack(tmp_path)
    command = Write(2, 9, 0, Set("c", msgspec.Raw(b"3")))
    with open_directory(tmp_path) as directory:
        opened = directory.node(1).open()
        entries = opened.recovered.entries
        last = entries[-1]
        restorer = Restorer()
        newest = opened.snapshots.newest()
        assert newest is not None
        for chunk in opened.snapshots.chunks(newest):
            restorer.feed(chunk)
        machine = restorer.finish()
        machine.apply([entry for entry in entries if entry.index > machine.applied])
        assert {key: bytes(item.value) for key, item in machine.items.items()} == {
            "a": b'"two"',
            "b": b"null",
        }
        new = make_entry(last.index + 1, last.term, last.time_us, command)
        opened.wal.append([DiskWrite(Ticket(1, new.term, new.index), entries=(new,))])
        opened.close()
    with open_directory(tmp_path) as directory:
        again = directory.node(1).open()
        again.close()
        assert again.recovered.entries == [*entries, new]


def test_a_directory_of_format_3_is_opened_as_it_is(tmp_path: Path) -> None:
    """Its hard states name no incarnations; those that follow in the same segment may."""
    unpack(tmp_path, FORMAT_3)
    heard = HardState(2, 1, ((2, 77), (3, (1 << 64) - 1)))
    with open_directory(tmp_path) as directory:
        opened = directory.node(1).open()
        assert opened.recovered.hard_state == HardState(2, None)
        entries = opened.recovered.entries
        assert [str(entry) for entry in entries] == ["1@1", "2@1"]
        opened.wal.append([DiskWrite(Ticket(1, 1, 2), heard)])
        opened.close()
    with open_directory(tmp_path) as directory:
        again = directory.node(1).open()
        again.close()
        assert (again.recovered.hard_state, again.recovered.entries) == (heard, entries)


@pytest.mark.parametrize(("directory", "found"), [(FORMAT_2, 2), (FORMAT_3, 3)])
def test_its_manifest_is_raised_when_it_is_opened(tmp_path: Path, directory: str, found: int) -> None:
    """So an older program refuses it from then on; what the manifest says besides stays, and so does the identity."""
    unpack(tmp_path, directory)
    before = msgspec.json.decode((tmp_path / "manifest.json").read_bytes())
    identity = (tmp_path / "node-1" / "identity.json").read_bytes()
    assert before["format"] == found
    open_directory(tmp_path).close()
    assert msgspec.json.decode((tmp_path / "manifest.json").read_bytes()) == before | {"format": 4}
    assert (tmp_path / "node-1" / "identity.json").read_bytes() == identity


def test_a_refused_start_raises_nothing(tmp_path: Path) -> None:
    """Who asks for another number of nodes leaves a directory of format 2 to the version that wrote it."""
    unpack(tmp_path)
    with pytest.raises(NodesDifferError):
        open_data_directory(tmp_path, nodes=3, random=Random(1), is_synced=False)
    assert format_of(tmp_path) == 2
