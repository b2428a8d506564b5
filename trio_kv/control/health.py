"""Whether a server lives, and whether it is ready for clients: named checks, each with what it saw.

`/livez` asks about this process alone. A cluster without a leader is no reason to start it anew, and neither is a disk
that hangs: a start would wait for it, too. `/readyz` asks whether a client that comes now would be served. What can't
be told is *unknown*, which is not ready either, and is shown as such.
"""

import enum
from collections.abc import Callable, Iterable, Mapping

import attrs
import trio

from trio_kv.cluster.hangs import HUNG_S
from trio_kv.cluster.statistics import ClusterStatistics, MemberStatistics
from trio_kv.control.http import Request
from trio_kv.control.response import Response
from trio_kv.control.views import Server
from trio_kv.wire.node_status import State


class Health(enum.Enum):
    """What came of a check. The value is how it is shown."""

    OK = "+"
    FAILED = "-"
    UNKNOWN = "?"


@attrs.frozen
class Finding:
    """What a check found."""

    health: Health
    detail: str
    """For a person."""

    def line(self, name: str) -> str:
        """Return how it is shown."""
        word = {Health.OK: "ok", Health.FAILED: "failed", Health.UNKNOWN: "unknown"}[self.health]
        return f"[{self.health.value}]{name} {word}: {self.detail}"


Check = Callable[[Server], Finding]


def _ok(detail: str) -> Finding:
    return Finding(Health.OK, detail)


def _failed(detail: str) -> Finding:
    return Finding(Health.FAILED, detail)


def _unknown(detail: str) -> Finding:
    return Finding(Health.UNKNOWN, detail)


def check_loop(server: Server) -> Finding:
    """That this answers shows that the loop turns; the detail tells how well."""
    worst_s = server.lag.worst_s
    if worst_s is None:
        return _ok("it turns")
    return _ok(f"it turns, lately {worst_s * 1000:.0f} ms late at most")


def check_door(server: Server) -> Finding:
    """Whether clients are taken."""
    if server.door.is_stopping:
        return _failed("the server stops, and takes no new clients")
    return _ok(f"{server.door.connection_count} connections are open")


def check_leader(server: Server) -> Finding:
    """Whether somebody leads, and is sure of all that was acknowledged before."""
    cluster = server.look_at_cluster()
    member = cluster.leader
    if member is None or member.running is None:
        paused = [each.node for each in cluster.members if each.state is State.PAUSED]
        return _failed("no node leads" + (f"; paused: {_names(paused)}" if paused else ""))
    running = member.running
    who = f"node {member.node} leads term {running.term}"
    if running.write_waits_s >= HUNG_S:
        return _unknown(f"{who}, and its disk has not answered for {running.write_waits_s:.1f} s")
    if not running.has_term_committed:
        return _unknown(f"{who}, and nothing of that term is committed yet")
    return _ok(who)


def check_quorum(server: Server) -> Finding:
    """Whether so many nodes run that something can be decided."""
    cluster = server.look_at_cluster()
    return _count(cluster, "runs", _runs)


def check_disks(server: Server) -> Finding:
    """Whether so many disks take writes that something can be stored."""
    cluster = server.look_at_cluster()
    return _count(cluster, "takes writes", _takes_writes)


LIVE: Mapping[str, Check] = {"loop": check_loop}
READY: Mapping[str, Check] = {
    "door": check_door,
    "leader": check_leader,
    "quorum": check_quorum,
    "disk": check_disks,
}


def _runs(member: MemberStatistics) -> tuple[Health, str]:
    if member.is_loading:
        return Health.UNKNOWN, "is being started"
    if member.state is not State.UP or member.running is None:
        return Health.FAILED, f"is {member.state}"
    if member.running.is_rebuilding:
        return Health.FAILED, "is being rebuilt"
    return Health.OK, ""


def _takes_writes(member: MemberStatistics) -> tuple[Health, str]:
    health, why = _runs(member)
    running = member.running
    if running is None or health is not Health.OK:
        return health, why
    if running.write_waits_s >= HUNG_S:
        return Health.UNKNOWN, f"has been waiting for its disk for {running.write_waits_s:.1f} s"
    if running.is_disk_full:
        return Health.FAILED, "has a full disk"
    return Health.OK, ""


def _count(
    cluster: ClusterStatistics, what: str, judge: Callable[[MemberStatistics], tuple[Health, str]]
) -> Finding:
    """Return whether a majority is found well; unknown if that is up to nodes of which it is not known."""
    found = {member.node: judge(member) for member in cluster.members}
    good = [node for node, (health, _) in found.items() if health is Health.OK]
    maybe = [node for node, (health, _) in found.items() if health is not Health.FAILED]
    detail = f"of {len(found)} nodes, {len(good)} {what if len(good) == 1 else _plural(what)}"
    others = "; ".join(f"node {node} {why}" for node, (_, why) in found.items() if why)
    if others:
        detail = f"{detail} ({others})"
    if cluster.voters.has_majority(good):
        return _ok(detail)
    return _unknown(detail) if cluster.voters.has_majority(maybe) else _failed(detail)


def _plural(what: str) -> str:
    verb, _, rest = what.partition(" ")
    return f"{verb.removesuffix('s')} {rest}".strip()


def _names(nodes: Iterable[int]) -> str:
    return ", ".join(f"node {node}" for node in nodes)


async def answer(checks: Mapping[str, Check], server: Server, request: Request) -> Response:
    """Return what a probe gets: 200 if all is well, else 503 and what is not.

    `?verbose` names each check; `?exclude=NAME` leaves one out, and may stand there several times.
    """
    await trio.lowlevel.checkpoint()
    await server.refresh()
    excluded = set(request.query.get("exclude", ()))
    findings = {name: check(server) for name, check in checks.items() if name not in excluded}
    is_well = all(finding.health is Health.OK for finding in findings.values())
    lines = [
        finding.line(name)
        for name, finding in findings.items()
        if "verbose" in request.query or finding.health is not Health.OK
    ]
    lines += [f"[ ]{name} excluded" for name in sorted(excluded & checks.keys())]
    lines += [
        f"there is no check {name!r}: there are {', '.join(checks)}"
        for name in sorted(excluded - checks.keys())
    ]
    lines.append("ok" if is_well else "not ok")
    return Response(200 if is_well else 503, "".join(f"{line}\n" for line in lines).encode())
