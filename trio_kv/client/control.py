"""The way to the control door: where it is, and one command at a time over its WebSocket.

A server writes its door's address, token and process id into `control.json` in its data directory, or, if it
keeps nothing on disk, into the user's run-time directory. Only that user can read the file; the token in it
is what opens the door, and it goes into the first message and nowhere else.
"""

import os
import socket
import tempfile
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import attrs
import msgspec
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.utilities import ProtocolError

from trio_kv.client.errors import is_of_tls

if TYPE_CHECKING:
    from trio_kv.client.tls import Tls

DEFAULT_CONTROL_PORT = 3002
WAIT_S_MAX = 1e6
"""Twelve days: what is longer is not for every system a time that a socket can wait."""
MESSAGE_BYTES_MAX = 16 << 20
"""A longer answer is not ours: the connection is given up."""


class NoDoorError(ConnectionError):
    """There is no control door to be found, or it does not let us in."""


class UnansweredError(NoDoorError):
    """A command went out and no answer came: it may or may not take effect."""


@attrs.frozen
class Door:
    """What a door file says."""

    address: str
    """host:port"""
    token: str = attrs.field(repr=False)
    pid: Annotated[int, msgspec.Meta(gt=0)]
    certificate: str | None = None
    """That of the server, in PEM, if the door speaks TLS."""

    def endpoint(self) -> tuple[str, int]:
        """Return host and port.

        Raises:
            ValueError: the address has no port.

        """
        address = self.address.split("://")[-1].rstrip("/")
        host, _, port = address.rpartition(":")
        return host.strip("[]"), int(port)


def data_door_path(data_dir: Path) -> Path:
    """Return where a server with a data directory leaves its door file."""
    return data_dir / "control.json"


def ephemeral_door_path(control_port: int) -> Path:
    """Return where a server without a data directory leaves its door file."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    directory = Path(base) / "trio_kv" if base else Path(tempfile.gettempdir()) / f"trio_kv-{os.getuid()}"
    return directory / f"control-{control_port}.json"


def find_door(data_dir: Path, control_port: int | None) -> Door:
    """Return the door of the server that runs on `data_dir`, or of the one that listens on `control_port`.

    Args:
        data_dir: the server's data directory.
        control_port: the port of its door. None or 0, a port that was left to chance: whatever the files say.

    Raises:
        NoDoorError: there is none, in words for a person.

    """
    paths = [data_door_path(data_dir), ephemeral_door_path(control_port or DEFAULT_CONTROL_PORT)]
    found = {path: door for path in paths if (door := _read_door(path)) is not None}
    if not found:
        raise NoDoorError(
            f"no server is found: neither {paths[0]} nor {paths[1]} is there; does a server run, with this --data-dir?"
        )
    living = {path: door for path, door in found.items() if _is_alive(door.pid)}
    if not living:
        path, door = next(iter(found.items()))
        raise NoDoorError(f"the server that left {path} (process {door.pid}) is gone: start it again")
    for door in living.values():
        if not control_port or door.endpoint()[1] == control_port:
            return door
    path, door = next(iter(living.items()))
    raise NoDoorError(
        f"nothing here tells of port {control_port}: in {path} the control port is {door.endpoint()[1]}. Leave"
        " --control-port out, or name the --data-dir of the server you mean; its port for clients is another one"
    )


def _read_door(path: Path) -> Door | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NoDoorError(f"{path} can't be read: {error.strerror}") from error
    try:
        door = msgspec.json.decode(data, type=Door)
        door.endpoint()
    except ValueError as error:
        raise NoDoorError(
            f"{path} is not a door file as a server writes it: start the server again"
        ) from error
    return door


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def command(
    door: Door, name: str, arguments: Mapping[str, Any], *, timeout_s: float, tls: "Tls | None" = None
) -> dict[str, Any]:
    """Send one command through the door and return the reply's members.

    Args:
        door: where to.
        name: of the command.
        arguments: its members.
        timeout_s: how long to wait for each word of the other side; infinity for as long as it takes.
        tls: how to know the server, and be known to it; None: by what the door file says.

    Raises:
        ValueError: the time-out is not above 0.
        NoDoorError: nobody opens, in words for a person.
        UnansweredError: somebody did, and the command went out, but no answer came.

    """
    exchange = _Exchange(door, {"id": 1, "command": name, **arguments})
    with closing(_exchange_messages(exchange, timeout_s, tls)) as messages:
        return next(messages)


def frames(door: Door, *, timeout_s: float, tls: "Tls | None" = None) -> Iterator[dict[str, Any]]:
    """Yield frames, each of which is all that is to be seen of the cluster at one moment, and always the newest.

    Args:
        door: where they come from.
        timeout_s: how long to wait for each word of the other side.
        tls: how to know the server, and be known to it; None: by what the door file says.

    Raises:
        ValueError: the time-out is not above 0.
        NoDoorError: nobody opens, or no further frame comes, in words for a person.

    """
    exchange = _Exchange(door, {"id": 1, "command": "frames"})
    with closing(_exchange_messages(exchange, timeout_s, tls)) as messages:
        reply = next(messages)
        if reply.get("status") != "ok":
            raise NoDoorError(f"the door at {door.address} gives no frames: {reply.get('message')}")
        for message in messages:
            if "frame" in message:
                yield message["frame"]


def _exchange_messages(
    exchange: "_Exchange", timeout_s: float, tls: "Tls | None"
) -> Generator[dict[str, Any], None, None]:
    """Send a command, and yield its reply and what comes behind it. Raises as `command`."""
    if not timeout_s > 0:
        raise ValueError(f"timeout_s is {timeout_s}: a time-out is more than 0 seconds")
    timeout_s = min(timeout_s, WAIT_S_MAX)
    door = exchange.door
    try:
        if tls is None and door.certificate is not None:
            from trio_kv.client.tls import Tls  # noqa: PLC0415 - `ssl` takes long to import

            tls = Tls.of_certificate(door.certificate)
        host, port = door.endpoint()
        plain = socket.create_connection((host, port), timeout_s)
        with plain if tls is None else tls.wrap(plain, host) as connection:
            connection.settimeout(timeout_s)
            yield from exchange.carry_out(connection)
    except NoDoorError:
        raise
    except TimeoutError as error:
        raise exchange.give_up(f"the door at {door.address} does not answer") from error
    except OSError as error:
        if is_of_tls(error):
            from trio_kv.client.tls import explain_tls  # noqa: PLC0415 - see `is_of_tls`

            why = explain_tls(error)
            raise exchange.give_up(f"the door at {door.address}: {why}") from error
        raise exchange.give_up(f"no door at {door.address}: {error.strerror or error}") from error
    except ProtocolError as error:
        raise exchange.give_up(_strange(door)) from error


@attrs.define
class _Exchange:
    """One command and its answer."""

    door: Door
    request: dict[str, Any]
    is_sent: bool = False
    """Whether the command may have arrived."""
    unread_bytes: int = 0
    """What came since the last message that was of use."""

    def give_up(self, words: str) -> NoDoorError:
        """Return what to raise when the connection is of no use any more."""
        return UnansweredError(words) if self.is_sent else NoDoorError(words)

    def carry_out(self, connection: socket.socket) -> Iterator[dict[str, Any]]:
        """Send the command, and yield the reply's members and what comes behind it, until that is enough.

        Raises:
            NoDoorError: there is no reply, in words for a person.
            OSError: the connection is broken, or too slow.
            ProtocolError: the other side speaks something else.

        """
        host, port = self.door.endpoint()
        websocket = WSConnection(ConnectionType.CLIENT)
        connection.sendall(websocket.send(Request(host=f"{host}:{port}", target="/ws")))
        try:
            yield from self._messages(connection, websocket)
        except GeneratorExit:
            # What was answered stays so, though the other side may be gone by now.
            with suppress(OSError, ProtocolError):
                connection.sendall(websocket.send(CloseConnection(code=1000)))
            raise
        raise self.give_up(f"the door at {self.door.address} closed without an answer")

    def _messages(self, connection: socket.socket, websocket: WSConnection) -> Iterator[dict[str, Any]]:
        """Yield the reply, and what comes behind it. Raises as `carry_out`."""
        address, is_answered = self.door.address, False
        text: list[str] = []
        for event in _events(connection, websocket, self):
            match event:
                case AcceptConnection():
                    connection.sendall(websocket.send(_encode({"auth": self.door.token})))
                    self.is_sent = True
                    connection.sendall(websocket.send(_encode(self.request)))
                case TextMessage():
                    text.append(event.data)
                    if event.message_finished:
                        message = _read_message("".join(text), self.door)
                        text.clear()
                        is_answered = is_answered or message.get("id") == self.request["id"]
                        if is_answered:
                            self.unread_bytes = 0
                            yield message
                case RejectConnection():
                    raise NoDoorError(f"the door at {address} refuses with HTTP status {event.status_code}")
                case Ping():
                    connection.sendall(websocket.send(event.response()))
                case CloseConnection():
                    raise self.give_up(f"the door at {address} closed: {event.reason or event.code}")
                case _:
                    pass  # pongs and the bodies of refusals say nothing new


def _encode(message: Mapping[str, Any]) -> TextMessage:
    return TextMessage(data=msgspec.json.encode(message).decode())


def _strange(door: Door) -> str:
    return (
        f"what answers at {door.address} is no control door: the server that left its door file has gone, and"
        " something else has its port now, or it is the port for clients. Start the server again"
    )


def _events(connection: socket.socket, websocket: WSConnection, exchange: _Exchange) -> Iterator[Event]:
    door, is_first = exchange.door, True
    while data := connection.recv(65_536):
        if is_first and data.startswith(b"{"):
            raise NoDoorError(_strange(door))
        is_first = False
        exchange.unread_bytes += len(data)
        if exchange.unread_bytes > MESSAGE_BYTES_MAX:
            raise NoDoorError(f"the door at {door.address} says more than {MESSAGE_BYTES_MAX} bytes")
        websocket.receive_data(data)
        yield from websocket.events()


def _read_message(text: str, door: Door) -> dict[str, Any]:
    """Return what a message says. A NoDoorError says that this is no door of ours, or that it refuses us."""
    try:
        message = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise NoDoorError(_strange(door)) from error
    if "id" not in message and message.get("error") == "unauthorized":
        raise NoDoorError(f"the door at {door.address} refuses the token")
    return message
