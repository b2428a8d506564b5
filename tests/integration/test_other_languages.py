"""Clients of some twenty lines in other languages, written from docs/protocol.md alone, use each operation."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.real_store import open_store
from trio_kv.wire.operations import OPERATIONS

CLIENTS = Path(__file__).parents[1] / "clients"
INTERPRETERS = {"client.sh": "bash", "client.mjs": "node", "client.pl": "perl"}


def told(op: str, reply: dict[str, Any]) -> Any:
    """Return what a reply says, without what differs from run to run."""
    match op:
        case "session":
            return type(reply["session"]), reply["timeout"], reply["status"]
        case "scan":
            return [(item["key"], item["value"]) for item in reply["items"]], reply["more"]
        case "txn":
            return reply["succeeded"], [result["value"] for result in reply["results"]]
        case "watch" | "unwatch":
            return reply["id"], reply["status"]
        case "status":
            return [node["state"] for node in reply["nodes"]], reply["status"]
        case _:
            return reply.get("key"), reply.get("value"), reply["status"]


SHOWN = [
    ("ping", (None, None, "ok")),
    ("session", (str, 1000, "ok")),
    ("session", (str, 1000, "ok")),
    ("set", ("snack", "chips", "ok")),
    ("get", ("snack", "chips", "ok")),
    ("cas", ("snack", "nuts", "ok")),
    ("incr", ("visits", 2, "ok")),
    ("ttl", ("crumbs", 1, "ok")),
    ("scan", ([("snack", "nuts")], False)),
    ("txn", (True, [3, 3])),
    ("watch", ("w", "ok")),
    ("delete", ("snack", "nuts", "ok")),
    ("unwatch", ("w", "ok")),
    ("status", (["up", "up", "up"], "ok")),
]


@pytest.mark.parametrize("name", INTERPRETERS)
async def test_a_client_in_another_language_uses_each_operation(name: str, tmp_path: Path) -> None:
    """It loses a connection with a write under way as well, and asks again under the same seq: one effect."""
    interpreter = shutil.which(INTERPRETERS[name])
    if interpreter is None:
        pytest.skip(f"there is no {INTERPRETERS[name]}")
    async with open_store(tmp_path) as (_, port):
        with trio.fail_after(60):
            done = await trio.run_process(
                [interpreter, str(CLIENTS / name), "127.0.0.1", str(port)],
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
    assert (done.returncode, done.stderr.decode()) == (0, "")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    events = [line for line in lines if "watch" in line]
    replies = [line for line in lines if "watch" not in line]
    assert [(op, told(op, reply)) for (op, _), reply in zip(SHOWN, replies, strict=True)] == SHOWN
    (event,) = events
    assert (event["watch"], event["events"]) == ("w", [{"event": "delete", "key": "snack"}])


def test_each_operation_is_used() -> None:
    """Whatever can be asked for without a token."""
    assert {op for op, _ in SHOWN} >= set(OPERATIONS) - {"auth"}
