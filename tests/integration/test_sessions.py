"""Exactly once, as a client of any language has it: over reconnects, and restarts of server and client."""

import json
import socket
import subprocess
import sys
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.integration.test_process import READY_S, Connection, Server, serving
from trio_kv.client.client import Client


def ask(connection: Connection, **request: Any) -> dict[str, Any]:
    """Send a request; return the reply."""
    (line,) = connection.ask(json.dumps(request).encode())
    reply: dict[str, Any] = json.loads(line)
    return reply


def send_and_vanish(server: Server, **request: Any) -> None:
    """Send a request, and close the connection without a look at the answer."""
    with socket.create_connection(("127.0.0.1", server.ready["port"]), timeout=READY_S) as sock:
        sock.sendall(json.dumps(request).encode() + b"\n")


def test_C1_a_write_whose_answer_was_lost_takes_effect_once(tmp_path: Path) -> None:
    """The client asks again under the same seq, over another connection, at once: one effect, the first answer."""
    with serving(tmp_path) as server:
        connection = server.connect()
        session = ask(connection, op="session")["session"]
        for seq in range(1, 31):
            request = {"op": "incr", "key": "n", "by": 1, "session": session, "seq": seq}
            send_and_vanish(server, **request)
            other = server.connect()
            assert ask(other, **request) == {"key": "n", "value": seq, "status": "ok"}
            other.close()
        assert ask(connection, key="n")["value"] == 30
        connection.close()


def test_C1_a_session_outlives_its_server(tmp_path: Path) -> None:
    """What was answered before a kill -9, and what was not, is answered as the first time by the next process."""
    with serving(tmp_path) as server:
        connection = server.connect()
        session = ask(connection, op="session")["session"]
        old = [ask(connection, op="incr", key="n", session=session, seq=seq, meta=True) for seq in (1, 2)]
        removed = ask(connection, op="delete", key="n", session=session, seq=3)
        txn = {"op": "txn", "if": [{"key": "t", "exists": True}], "else": [{"op": "incr", "key": "t"}]}
        moved = ask(connection, **txn, session=session, seq=5)
        send_and_vanish(server, op="incr", key="m", session=session, seq=4)
        connection.close()
        server.kill()
    with serving(tmp_path) as server:
        connection = server.connect()
        for seq in (1, 2):
            again = ask(connection, op="incr", key="n", session=session, seq=seq, meta=True)
            names = ("key", "value", "status", "revision")
            assert [again[name] for name in names] == [old[seq - 1][name] for name in names]
        assert ask(connection, op="delete", key="n", session=session, seq=3) == removed
        assert ask(connection, op="incr", key="m", session=session, seq=4)["value"] == 1
        assert ask(connection, op="incr", key="m", session=session, seq=4)["value"] == 1
        assert ask(connection, **txn, session=session, seq=5) == moved
        assert ask(connection, key="t")["value"] == 1
        assert ask(connection, key="n", value=5, session=session, seq=1)["error"] == "bad_request"
        assert ask(connection, op="session", session=session) == {
            "session": session,
            "timeout": 1000,
            "status": "ok",
        }
        connection.close()


def test_the_end_of_a_session_is_told(tmp_path: Path) -> None:
    """One that nobody uses is forgotten after its time-out; a repetition, and what is refused, does not keep it."""
    with serving(tmp_path, "--session-timeout", "0.5") as server:
        connection = server.connect()
        opened = ask(connection, op="session")
        assert opened["timeout"] == 0.5
        session = opened["session"]
        assert ask(connection, op="incr", key="n", session=session, seq=1)["value"] == 1
        reply: dict[str, Any] = {"error": "bad_request"}
        while reply["error"] == "bad_request":
            reply = ask(connection, op="incr", key="n", by=2, session=session, seq=1)
        assert reply["error"] == "session_expired"
        assert "no write and no renewal of it was applied for as long as its time-out" in reply["message"]
        assert ask(connection, op="session", session=session)["error"] == "session_expired"
        assert ask(connection, key="n")["value"] == 1
        connection.close()


@pytest.mark.parametrize("place", [0, -1])
def test_an_id_can_not_be_guessed(tmp_path: Path, place: int) -> None:
    """Another index or another secret is no session, nor is one of the server's own; nothing is written."""
    with serving(tmp_path) as server:
        connection = server.connect()
        assert ask(connection, key="n", value=0)["status"] == "ok"
        first, second = (ask(connection, op="session")["session"] for _ in range(2))
        assert len({first, second, first.partition("-")[2], second.partition("-")[2]}) == 4
        changed = list(first)
        changed[place] = "1" if changed[place] != "1" else "3"
        for guess in ("".join(changed), first.partition("-")[0], "1", "2", "", f"2-{'0' * 16}"):
            assert ask(connection, key="n", value=1, session=guess, seq=1)["error"] == "session_expired"
        assert ask(connection, key="n")["value"] == 0
        connection.close()


def test_a_pipeline_mixes_sessions_and_none_in_its_order(tmp_path: Path) -> None:
    """Reads see what stands before them and nothing behind, also where a client repeats a write behind them."""
    with serving(tmp_path) as server:
        connection = server.connect()
        first, second = (ask(connection, op="session")["session"] for _ in range(2))
        ask(connection, key="k", value="old", session=first, seq=1)
        requests: list[dict[str, Any]] = [
            {"key": "k", "value": "a"},
            {"key": "k"},
            {"key": "k", "value": "b", "session": first, "seq": 2},
            {"key": "k"},
            {"key": "k", "value": "old", "session": first, "seq": 1},
            {"key": "k"},
            {"key": "k", "value": "c", "session": second, "seq": 1},
            {"op": "delete", "key": "k"},
            {"key": "k"},
        ]
        replies = [
            json.loads(line) for line in connection.ask(*[json.dumps(each).encode() for each in requests])
        ]
        assert [reply["value"] for reply in replies] == ["a", "a", "b", "b", "old", "b", "c", "c", None]
        connection.close()


def test_C1_the_python_client_repeats_what_has_no_answer(tmp_path: Path) -> None:
    """A write that comes when its server was killed waits for the next process; and each counts once."""
    with serving(tmp_path) as server:
        client = Client(port=server.ready["port"], timeout_s=30.0, repeats_writes=True)
        for number in range(1, 6):
            assert client.incr("n").data == number
        server.kill()
    sums: list[Any] = []
    writer = Thread(target=lambda: sums.append(client.incr("n").data))
    writer.start()
    with serving(tmp_path) as server:
        client._addresses = (("127.0.0.1", server.ready["port"]),)
        writer.join(READY_S)
        assert sums == [6]
        assert client.incr("n").data == 7
        assert client.get("n").data == 7
        client.close()


def test_the_shell_opens_and_renews_sessions(tmp_path: Path) -> None:
    """It prints the id, and says what is wrong with one that is none."""
    with serving(tmp_path) as server:
        command = [sys.executable, "-m", "trio_kv", "client", "--port", str(server.ready["port"])]

        def say(*lines: str) -> subprocess.CompletedProcess[str]:
            text = "".join(f"{line}\n" for line in lines)
            return subprocess.run(
                command, input=text, capture_output=True, text=True, check=False, timeout=READY_S
            )

        opened = say("session")
        assert (opened.returncode, opened.stderr) == (0, "")
        session = opened.stdout.strip()
        renewed = say(f"session {session}", f'{{"key":"a","value":1,"session":"{session}","seq":1}}')
        assert renewed.stdout.splitlines() == [session, '{"key": "a", "value": 1, "status": "ok"}']
        refused = say("session nobody-s")
        assert refused.returncode != 0
        assert "session_expired: this session is not known" in refused.stderr
