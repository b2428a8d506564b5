"""Fixtures for pytest, which finds them wherever trio_kv is installed. They cost nothing where they are not used.

`trio_kv_cluster` is for tests on Trio (pytest-trio), `trio_kv_server` for tests that wait, and `trio_kv_shared` is one
server for all tests of a run, where each has a prefix of its own. `@pytest.mark.trio_kv(nodes=5)` gives the first two
options: those of `trio_kv.testing.open_cluster`.
"""

import inspect
import itertools
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from trio_kv.testing.background import Server
    from trio_kv.testing.cluster import Cluster

_numbers = itertools.count(1)


class Shared(NamedTuple):
    """A server that many tests use, and what is this test's own there."""

    server: "Server"
    prefix: str
    """Keys of this test begin with it; no other test has it."""


def pytest_configure(config: pytest.Config) -> None:
    """Let pytest know the marker."""
    config.addinivalue_line(
        "markers", "trio_kv(**options): options of the cluster that a fixture of trio_kv opens, as nodes=5"
    )


@pytest.fixture
def _trio_kv_is_asynchronous(request: pytest.FixtureRequest) -> None:
    """Refuse what pytest would refuse with less of a word. It is asked for first, so that it is made first."""
    markers = (request.node.get_closest_marker(name) for name in ("trio", "anyio"))
    if not any(markers) and not inspect.iscoroutinefunction(request.function):
        pytest.fail(
            "trio_kv_cluster is for tests on Trio: `async def` tests that pytest-trio runs."
            " A test that waits takes trio_kv_server.",
            pytrace=False,
        )


@pytest.fixture
async def trio_kv_cluster(
    _trio_kv_is_asynchronous: None, request: pytest.FixtureRequest
) -> "AsyncIterator[Cluster]":
    """A cluster of this test alone, in its Trio and in memory. See `trio_kv.testing.open_cluster`."""
    from trio_kv.testing.cluster import open_cluster  # noqa: PLC0415 - for who uses it

    async with open_cluster(**_options(request)) as cluster:
        yield cluster


@pytest.fixture
def trio_kv_server(request: pytest.FixtureRequest) -> "Iterator[Server]":
    """A cluster of this test alone, in a thread and with a real port. See `trio_kv.testing.open_server`."""
    from trio_kv.testing.background import open_server  # noqa: PLC0415 - for who uses it

    with open_server(**_options(request)) as server:
        yield server


@pytest.fixture(scope="session")
def _trio_kv_shared_server() -> "Iterator[Server]":
    from trio_kv.testing.background import open_server  # noqa: PLC0415 - for who uses it

    with open_server() as server:
        yield server


@pytest.fixture
def trio_kv_shared(request: pytest.FixtureRequest, _trio_kv_shared_server: "Server") -> Shared:
    """One server for all tests of this run, and a prefix for this one. What breaks it breaks it for all."""
    return Shared(_trio_kv_shared_server, f"{next(_numbers)}-{request.node.name}/")


def _options(request: pytest.FixtureRequest) -> dict[str, Any]:
    marker = request.node.get_closest_marker("trio_kv")
    return {} if marker is None else dict(marker.kwargs)
