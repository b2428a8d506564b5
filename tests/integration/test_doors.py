"""How the doors are opened and found: what is said when they can't be, and what is left behind."""

import errno
import os
import socket
from contextlib import closing
from functools import partial
from pathlib import Path
from threading import Thread

import attrs
import pytest
import trio

from tests.doubles import MemoryStore
from trio_kv.cli import house as house_module
from trio_kv.cli.errors import UsageError
from trio_kv.cli.failures import leaves
from trio_kv.cli.house import StartError, open_house
from trio_kv.cli.main import main
from trio_kv.cli.options import ServeOptions
from trio_kv.cli.serve import banner
from trio_kv.client import control as client_control
from trio_kv.client.client import Client
from trio_kv.client.control import Door, NoDoorError, command, find_door
from trio_kv.client.errors import BadRequestError
from trio_kv.control import server as control_module
from trio_kv.control.config import ControlConfig
from trio_kv.control.connection import ControlConnection
from trio_kv.control.server import ControlDoor
from trio_kv.proxy import sockets as sockets_module
from trio_kv.proxy.config import ProxyConfig
from trio_kv.proxy.server import Proxy
from trio_kv.proxy.sockets import bind_host, open_listeners
from trio_kv.trace.trace import Trace
from trio_kv.trace.vocabulary import ServerStarted

OPTIONS = ServeOptions(port=0, control_port=0, nodes=1)
NOBODYS_ADDRESS = "2001:db8::1"
"""For documents; no machine has it."""


async def refusal(options: ServeOptions) -> str:
    """Return what a server says that does not start."""
    with pytest.raises((StartError, ExceptionGroup)) as refused:
        async with open_house(options, Trace()):
            pass
    (error,) = leaves(refused.value)
    assert isinstance(error, StartError)
    return str(error)


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize("flag", ["port", "control_port"])
async def test_a_taken_port_leaves_no_directory_behind(flag: str, tmp_path: Path) -> None:
    """It is told with its option, before anything is made; a directory that was there stays as it was."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        options = attrs.evolve(OPTIONS, data_dir=tmp_path / "new", **{flag: port})
        told = await refusal(options)
        assert f"127.0.0.1:{port}: address already in use" in told
        assert f"--{flag.replace('_', '-')} 0 picks a free port" in told
        assert names(tmp_path) == []
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "mine").touch()
        await refusal(options)
        assert names(tmp_path / "new") == ["mine"]


async def test_a_second_server_on_the_port_hears_who_has_it(tmp_path: Path) -> None:
    """The directory tells which process it is."""
    options = attrs.evolve(OPTIONS, data_dir=tmp_path / "data")
    async with open_house(options, Trace()) as house:
        told = await refusal(attrs.evolve(options, port=house.port))
        assert f"process {os.getpid()} is a server that runs already" in told


@pytest.mark.parametrize(
    ("number", "port", "advice"),
    [
        (errno.EADDRINUSE, 3001, "--port 0 picks a free port"),
        (errno.EACCES, 80, "ports below 1024 are root's: name another with --port"),
        (errno.EACCES, 3001, "--host and --port name another place"),
        (errno.EADDRNOTAVAIL, 3001, "no address of this machine"),
        (errno.EAFNOSUPPORT, 3001, "no address of this machine"),
        (errno.EMFILE, 3001, "ulimit -n"),
    ],
)
async def test_each_cause_has_an_advice_of_its_own(
    number: int, port: int, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a port that is in use is mended by another one."""

    async def refuse(host: str, port: int) -> list[socket.socket]:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(house_module, "bind_host", refuse)
    told = await refusal(attrs.evolve(OPTIONS, port=port, data_dir=tmp_path / "data"))
    assert told.startswith(f"can't listen on 127.0.0.1:{port}: {os.strerror(number).lower()}; ")
    assert advice in told
    assert ("picks a free port" in told) == (number == errno.EADDRINUSE)


async def test_a_host_that_there_is_not_is_told(tmp_path: Path) -> None:
    """Neither a name that nobody has nor an address of another machine is a matter of ports."""
    for host in ("no-such-host.invalid", NOBODYS_ADDRESS):
        told = await refusal(attrs.evolve(OPTIONS, host=host, is_insecure=True, data_dir=tmp_path / "data"))
        assert "name" in told
        assert "--host" in told
        assert "free port" not in told


async def test_a_control_file_that_can_not_be_written_is_no_matter_of_ports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The place is named, and what the file is for."""

    def refuse(path: Path, _: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(control_module, "write_control_file", refuse)
    told = await refusal(attrs.evolve(OPTIONS, data_dir=tmp_path / "data"))
    assert "`trio-kv ctl` finds the server" in told
    assert f"{tmp_path / 'data'}" in told
    assert "permission denied" in told
    assert "listen" not in told


async def test_without_a_place_for_temporary_files_ephemeral_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A read-only container, say."""

    def refuse(**_: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    told = await refusal(attrs.evolve(OPTIONS, is_ephemeral=True))
    assert "--ephemeral" in told
    assert "TMPDIR" in told


# --- addresses ----------------------------------------------------------------------------------------------


def found(*addresses: str) -> list[tuple[object, ...]]:
    """Return what the system's resolver gives for a name."""
    families = {address: socket.AF_INET6 if ":" in address else socket.AF_INET for address in addresses}
    return [
        (families[address], socket.SOCK_STREAM, 6, "", (address, 0, 0, 0) if ":" in address else (address, 0))
        for address in addresses
    ]


async def test_a_name_is_served_on_the_addresses_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """`localhost` may stand for ::1 where IPv6 is switched off; a name twice in the hosts file is one address."""

    async def resolve(*_: object, **__: object) -> list[tuple[object, ...]]:
        await trio.lowlevel.checkpoint()
        return found(NOBODYS_ADDRESS, "127.0.0.1", "127.0.0.1")

    monkeypatch.setattr(trio.socket, "getaddrinfo", resolve)
    (bound,) = await bind_host("localhost", 0)
    with closing(bound):
        assert bound.getsockname()[0] == "127.0.0.1"
    (listener,) = await open_listeners("localhost", 0)
    with closing(listener), socket.create_connection(("127.0.0.1", listener.port), 5):
        pass


async def test_a_name_without_any_address_of_this_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then there is nothing to listen on."""

    async def resolve(*_: object, **__: object) -> list[tuple[object, ...]]:
        await trio.lowlevel.checkpoint()
        return found(NOBODYS_ADDRESS)

    monkeypatch.setattr(trio.socket, "getaddrinfo", resolve)
    with pytest.raises(OSError, match="address") as refused:
        await bind_host("elsewhere", 0)
    assert refused.value.errno in sockets_module.ABSENT_ERRORS


async def test_nobody_connects_before_the_store_is_open() -> None:
    """A port that is bound and does not listen yet refuses, so that no client waits for a store that loads."""
    (bound,) = await bind_host("127.0.0.1", 0)
    with closing(bound), pytest.raises(ConnectionRefusedError):
        socket.create_connection(bound.getsockname(), 5)


def test_the_banner_names_commands_that_can_be_pasted() -> None:
    """Paths are quoted, and IPv6 addresses stand in brackets where a port follows."""
    started = ServerStarted("::1", 4001, 4002, 1, "my data", 1, 1)
    page = "http://[::1]:4002/"
    shown = banner(ServeOptions(host="::1", data_dir=Path("my data")), started, page)
    assert "  clients  [::1]:4001   try: python -m trio_kv client --host ::1 --port 4001\n" in shown
    assert "try: python -m trio_kv ctl status --data-dir 'my data'\n" in shown
    assert "  page     http://[::1]:4002/\n" in shown
    usual = banner(ServeOptions(), ServerStarted("127.0.0.1", 3001, 3002, 5, "trio_kv-data", 1, 1), page)
    assert "client\n" in usual
    assert "ctl status\n" in usual
    ephemeral = banner(
        ServeOptions(is_ephemeral=True), ServerStarted("127.0.0.1", 1, 4002, 5, "", 1, 1), page
    )
    assert "ctl status --control-port 4002\n" in ephemeral


def test_one_port_for_both_doors_is_refused() -> None:
    """They speak different protocols."""
    with pytest.raises(UsageError, match="give each a port of its own"):
        ServeOptions(port=4000, control_port=4000).check()


# --- the wrong door -----------------------------------------------------------------------------------------


class NoCluster:
    """Carries out nothing."""


async def test_a_client_at_the_control_door_hears_where_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At once, in its own protocol, and with a code that says that nothing was changed."""
    async with trio.open_nursery() as nursery:
        door = ControlDoor(NoCluster(), ControlConfig(port=0, data_dir=tmp_path), Trace())  # type: ignore[arg-type]
        port = await nursery.start(door.serve)

        def ask() -> None:
            with Client(port=port) as client:
                client.set("k", "v")

        with pytest.raises(BadRequestError, match="this is the control door"):
            await trio.to_thread.run_sync(ask)
        code = await trio.to_thread.run_sync(main, ["set", "k", "v", "--port", str(port)])
        assert code == 1
        assert "--port" in capsys.readouterr().err
        nursery.cancel_scope.cancel()


async def test_ctl_at_the_client_door_hears_what_is_wrong() -> None:
    """A door file that was left behind may name a port that a client door has now; no decoder speaks."""
    async with trio.open_nursery() as nursery:
        proxy = Proxy(MemoryStore(), ProxyConfig(port=0), Trace())
        port = await nursery.start(proxy.serve)
        ask = partial(command, Door(f"127.0.0.1:{port}", "secret", 1), "status", {}, timeout_s=5)
        with pytest.raises(NoDoorError, match="the port for clients"):
            await trio.to_thread.run_sync(ask)
        nursery.cancel_scope.cancel()


def test_a_server_of_another_kind_is_told_without_a_decoder(capsys: pytest.CaptureFixture[str]) -> None:
    """What it says is shown, and what to look at; after a write its outcome is not known."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            for _ in range(4):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(100)
                    connection.sendall(b"SSH-2.0-x\r\n")

        thread = Thread(target=greet, daemon=True)
        thread.start()
        port = str(listener.getsockname()[1])
        for words, code in ((["set", "k", "v"], 4), (["get", "k"], 3)):
            assert main([*words, "--port", port]) == code
            told = capsys.readouterr().err
            assert "'SSH-2.0-x' is not a reply of trio_kv; is that its port for clients?" in told
            assert "JSON" not in told
        thread.join(10)


@pytest.mark.parametrize(("words", "code"), [(["crash", "1"], 4), (["status"], 3)], ids=["crash", "status"])
async def test_a_command_without_an_answer_is_not_known_to_have_failed(
    words: list[str],
    code: int,
    run_time: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The door was open and the command went in: 4, and not "nothing was changed"; what only asks is 3."""
    async with trio.open_nursery() as nursery:
        door = ControlDoor(NoCluster(), ControlConfig(port=0, data_dir=run_time), Trace())  # type: ignore[arg-type]
        monkeypatch.setattr(ControlConnection, "serve", close_at_once)
        await nursery.start(door.serve)
        arguments = ["ctl", *words, "--data-dir", str(run_time)]
        assert await trio.to_thread.run_sync(main, arguments) == code
        assert ("may or may not take effect" in capsys.readouterr().err) == (code == 4)
        nursery.cancel_scope.cancel()


async def close_at_once(self: ControlConnection, deadline_s: float) -> None:
    await trio.lowlevel.checkpoint()


def test_a_command_that_takes_too_long_is_not_known_to_have_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server says `timeout`, and that it may still take effect: 4."""
    reply = {"id": 1, "status": "error", "error": "timeout", "message": "so it is"}
    monkeypatch.setattr(client_control, "find_door", lambda *_: Door("127.0.0.1:1", "secret", 1))
    monkeypatch.setattr(client_control, "command", lambda *_, **__: reply)
    assert main(["ctl", "crash", "1"]) == 4


def write_door(path: Path, port: int, pid: object) -> None:
    path.write_text(f'{{"address": "127.0.0.1:{port}", "token": "t", "pid": {pid}}}')


@pytest.fixture
def run_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run-time directory in which no server has left anything."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    return tmp_path


def test_the_client_port_for_the_control_port_is_told(run_time: Path) -> None:
    """The directory knows the right one."""
    write_door(run_time / "control.json", 3002, os.getpid())
    with pytest.raises(
        NoDoorError, match=r"of port 3001: .* the control port is 3002. Leave --control-port out"
    ):
        find_door(run_time, 3001)
    assert find_door(run_time, 3002).endpoint() == ("127.0.0.1", 3002)
    for left_to_chance in (None, 0):
        assert find_door(run_time, left_to_chance).pid == os.getpid()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"address": "here", "token": "t", "pid": 1}', "\\xff"]
)
def test_a_door_file_that_is_none_is_told_without_a_decoder(text: str, run_time: Path) -> None:
    """A person is told what to do, and not at which byte JSON ends."""
    (run_time / "control.json").write_text(text)
    with pytest.raises(NoDoorError, match="start the server again") as refused:
        find_door(run_time, None)
    assert "byte" not in str(refused.value)
    assert "JSON" not in str(refused.value)


@pytest.mark.parametrize("pid", [0, -1, 10**30, 1.5, "null"])
def test_a_door_file_of_no_process_is_no_door(pid: object, run_time: Path) -> None:
    """Signal 0 to such a number would ask something else, or nothing at all."""
    write_door(run_time / "control.json", 3002, pid)
    with pytest.raises(NoDoorError):
        find_door(run_time, None)
