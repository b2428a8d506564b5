"""The commands of a golden script, and what they act on (see `sim.script`)."""

from collections.abc import Callable
from random import Random

import attrs

from trio_kv.raft.config import RaftConfig
from trio_kv.raft.errors import NotLeader, ReadOnly
from trio_kv.raft.events import ASKED_FOR, INFO, Event, Told
from trio_kv.raft.leader import Leader
from trio_kv.raft.messages import Message
from trio_kv.raft.ready import Ready
from trio_kv.sim.script_nodes import Judge, ScriptNode, Text
from trio_kv.sim.script_wire import Wire

STEPS_MAX = 20_000
"""Deliveries of one command at most. A scenario that needs more never comes to rest, and fails."""


class ScriptError(ValueError):
    """A line of a script asks for what does not exist."""


class World:
    """The nodes of a script and the wire between them. Each `do_<command>` is a command, dashes for underscores."""

    def __init__(self) -> None:
        """Be empty, until `cluster`."""
        self.now = 0.0
        self.nodes: dict[int, ScriptNode] = {}
        self.judge = Judge()
        self.wire = Wire()
        self._lines: list[str] = []
        self._is_quiet = False
        self._prints_sends = True

    def do(self, line: str) -> list[str]:
        """Carry out a command; return its output.

        Raises:
            ScriptError: there is no such command, or its arguments make no sense.

        """
        name, *arguments = line.split()
        command: Callable[..., None] | None = getattr(self, "do_" + name.replace("-", "_"), None)
        if command is None:
            raise ScriptError(f"no command {name!r} in {line!r}")
        self._lines, self._is_quiet, self._prints_sends = [], "quietly" in arguments, True
        try:
            command(*[argument for argument in arguments if argument != "quietly"])
        except (ValueError, TypeError, KeyError) as error:
            raise ScriptError(f"{line!r}: {error!r}") from error
        return self._lines

    # Setting up, and looking

    def do_cluster(self, *settings: str) -> None:
        """`cluster nodes=3 [seed=1] [window=16] [entries=4096] [commit_delay=0]`: start so many empty nodes."""
        self.nodes, self.judge, self.wire = {}, Judge(), Wire()
        given = dict(setting.split("=") for setting in settings)
        seed = given.get("seed", "1")
        config = RaftConfig(
            election_timeout_min_s=0.2,  # All of it is said here: a page must not change with the defaults.
            election_timeout_max_s=0.4,
            heartbeat_interval_s=0.05,
            write_stall_s=2.0,
            commit_delay_s=float(given.get("commit_delay", "0")),
            append_window=int(given.get("window", "16")),
            append_entries_max=int(given.get("entries", "4096")),
            append_window_entries=1 << 16,
            append_window_bytes=16 << 20,
        )
        numbers = range(1, int(given["nodes"]) + 1)
        for number in numbers:
            peers = tuple(other for other in numbers if other != number)
            self.nodes[number] = ScriptNode(number, peers, config, Random(f"{seed}/{number}"))
            self.nodes[number].start(self.now)

    def do_status(self) -> None:
        """`status`: a line a node."""
        self._lines += [node.describe() for node in self.nodes.values()]

    def do_log(self, node: str) -> None:
        """`log 1`: the node's entries."""
        log = self._node(node).raft.log
        entries = log.slice(log.base_index + 1, log.last_index)
        self._lines.append(
            " ".join(f"{entry}={entry.command}" if entry.command else str(entry) for entry in entries)
        )

    def do_progress(self, node: str) -> None:
        """`progress 1`: what a leader knows of its followers."""
        role = self._node(node).raft.role
        if not isinstance(role, Leader):
            raise ScriptError(f"node {node} is no leader")
        for peer, progress in role.progress.items():
            fields = f"match={progress.match} next={progress.next} in_flight={len(progress.in_flight)}"
            self._lines.append(f"n{peer} {progress.sending.value} {fields}")

    def do_time(self) -> None:
        """`time`: the script's time, and cluster time as far as each node that is up knows."""
        known = [(node.id, node.raft.role.time_us(self.now)) for node in self.nodes.values() if node.is_up]
        self._lines.append(f"{self.now:.2f}" + "".join([f" n{id}={us / 1e6:.2f}" for id, us in known]))

    def do_wire(self) -> None:
        """`wire`: the messages that are on their way."""
        self._lines += [str(message) for message in self.wire.messages]

    # Time

    def do_timeout(self, node: str) -> None:
        """`timeout 1`: move the clock to the node's deadline, and let its timer fire and no other."""
        one = self._node(node)
        self.now = max(self.now, one.raft.deadline)
        one.raft.timeout(self.now)
        self._settle(one)

    def do_tick(self, seconds: str) -> None:
        """`tick 0.1`: let time pass and timers fire; what they send stays on the wire."""
        self._pass_time(float(seconds), is_delivering=False)

    def do_run(self, seconds: str) -> None:
        """`run 0.5`: let time pass, timers fire and every message arrive at once; tell the events only."""
        self._is_quiet = True
        self._pass_time(float(seconds), is_delivering=True)

    def do_sleep(self, seconds: str) -> None:
        """`sleep 0.3`: let time pass with no timer firing, as when the process is stopped."""
        self.now += float(seconds)

    def do_wake(self, node: str) -> None:
        """`wake 1`: let the node's timer fire now, late or early as it may be."""
        one = self._node(node)
        one.raft.timeout(self.now)
        self._settle(one)

    # What a node is asked

    def do_campaign(self, node: str, kind: str = "prevote") -> None:
        """`campaign 1 [vote]`: stand for election now, whatever the timer says; with `vote` without a pre-vote."""
        one = self._node(node)
        one.raft.become_candidate(self.now, "the script", is_pre_vote=kind != "vote")
        self._settle(one)

    def do_gather(self, *nodes: str) -> None:
        """`gather 1`: let a node take all that comes, and act on it only at `act`, as with a full inbox."""
        for node in nodes:
            self._node(node).is_gathering = True

    def do_act(self, *nodes: str) -> None:
        """`act 1`: let a node act on all that it gathered."""
        for node in nodes:
            one = self._node(node)
            one.is_gathering = False
            self._settle(one)

    def do_elect(self, node: str) -> None:
        """`elect 1`: `campaign`, and deliver all that is on the wire; tell only who was elected."""
        self._is_quiet = True
        self.do_campaign(node)
        self._stabilize(())
        self._lines = [line for line in self._lines if " leader." in line]

    def do_propose(self, node: str, *texts: str) -> None:
        """`propose 1 a b`: ask a node to append commands. `x*100` stands for x1 to x100."""
        one = self._node(node)
        commands = [Text(text) for argument in texts for text in _expand(argument)]
        answer = one.raft.propose(self.now, commands)
        if isinstance(answer, NotLeader):
            self._lines.append(f"n{node} refuses: hint={answer.hint}")
        elif isinstance(answer, ReadOnly):
            self._lines.append(f"n{node} refuses: the disks are full")
        else:
            self._lines.append(f"n{node} takes {answer}..{answer.index + len(commands) - 1}@{answer.term}")
        self._settle(one)

    def do_read(self, node: str, *contexts: str) -> None:
        """`read 2 r1`: ask a node for an index to read at."""
        one = self._node(node)
        for context in contexts:
            self.judge.asks(one.id, context)
            one.raft.read(context)
        self._settle(one)

    def do_transfer(self, node: str, target: str) -> None:
        """`transfer 1 3`: ask the leader to hand over."""
        one = self._node(node)
        try:
            refusal = one.raft.transfer(self.now, int(target), reason=ASKED_FOR)
        except ValueError as error:
            self._lines.append(f"n{node} refuses: {error}")
            return
        if refusal is not None:
            self._lines.append(f"n{node} refuses: hint={refusal.hint}")
        self._settle(one)

    # Disks, crashes

    def do_hold_disk(self, node: str) -> None:
        """`hold-disk 1`: let writes wait until `store` or `free-disk`."""
        self.nodes[int(node)].disk.is_held = True

    def do_free_disk(self, node: str) -> None:
        """`free-disk 1`: complete what waits, and from now on every write at once."""
        one = self._node(node)
        one.disk.is_held = False
        self._settle(one)

    def do_full_disk(self, node: str, free_log_bytes: str) -> None:
        """`full-disk 1 5000`: the node's disk is full but for so many bytes of log that were made before."""
        self._node(node).raft.set_free_log_bytes(int(free_log_bytes))

    def do_store(self, node: str, count: str = "1") -> None:
        """`store 1 [2]`: complete the oldest waiting writes; they are reported together, by the last ticket."""
        one = self._node(node)
        tickets = [one.disk.complete() for _ in range(int(count))]
        self._lines.append(f"n{node} stores {tickets[-1]}")
        one.raft.stored(self.now, tickets[-1])
        self._settle(one)

    def do_disk(self, node: str) -> None:
        """`disk 1`: what is durable there, and how many writes wait."""
        disk = self.nodes[int(node)].disk
        last = str(disk.entries[-1]) if disk.entries else "0@0"
        state = disk.hard_state
        self._lines.append(
            f"n{node} durable term={state.term} vote={state.vote} last={last} waiting={len(disk.queue)}"
        )

    def do_crash(self, *nodes: str) -> None:
        """`crash 1 2`: stop nodes at once; what is not durable is lost."""
        for node in nodes:
            one = self._node(node)
            one.is_up = False
            one.disk.queue.clear()

    def do_restart(self, *nodes: str) -> None:
        """`restart 1 2`: start crashed nodes from their disks."""
        for node in nodes:
            one = self.nodes[int(node)]
            assert not one.is_up, f"n{node} is up"
            self.judge.restarts(one)
            one.start(self.now)
            self._settle(one)

    def do_wipe(self, node: str) -> None:
        """`wipe 1`: a crashed node loses its disk."""
        one = self.nodes[int(node)]
        assert not one.is_up, f"n{node} is up"
        one.wipe()
        self.judge.wiped(one)

    # The wire

    def do_deliver(self, *what: str) -> None:
        """`deliver [1->2 *->3 AppendEntries ...]`: deliver what of this is on the wire now, in order."""
        self._deliver(self.wire.take(what))

    def do_stabilize(self, *what: str) -> None:
        """`stabilize [1->* ...]`: deliver until nothing of this is on the wire. Ends with the number of messages."""
        self._prints_sends = False
        self._lines.append(f"{self._stabilize(what)} messages")

    def do_drop(self, *what: str) -> None:
        """`drop [1->2 ...]`: lose what of this is on the wire."""
        for message in self.wire.take(what):
            self._print(f"lost {message}")

    def do_duplicate(self, *what: str) -> None:
        """`duplicate [1->2 ...]`: let what of this is on the wire come twice."""
        self.wire.messages += self.wire.chosen(what)

    def do_reverse(self, *what: str) -> None:
        """`reverse [1->2 ...]`: let what of this is on the wire come in the opposite order, after all else."""
        self.wire.messages += reversed(self.wire.take(what))

    def do_hold(self, *what: str) -> None:
        """`hold [1->2 ...]`: keep what of this is on the wire aside, until `release`."""
        self.wire.hold(what)

    def do_release(self, *what: str) -> None:
        """`release [1->2 ...]`: put what was held back on the wire."""
        self.wire.release(what)

    def do_partition(self, groups: str) -> None:
        """`partition 1,2/3,4,5`: nothing passes between the groups."""
        self.wire.partition([[int(node) for node in group.split(",")] for group in groups.split("/")])

    def do_cut(self, *links: str) -> None:
        """`cut 1->2`: nothing passes in that direction."""
        for link in links:
            source, target = link.split("->")
            self.wire.cuts.add((int(source), int(target)))

    def do_heal(self) -> None:
        """`heal`: all links work again."""
        self.wire.cuts.clear()

    # How it is done

    def _node(self, number: str) -> ScriptNode:
        node = self.nodes[int(number)]
        if not node.is_up:
            raise ScriptError(f"node {number} is down")
        return node

    def _pass_time(self, seconds: float, *, is_delivering: bool) -> None:
        end = self.now + seconds
        while True:
            awake = [node for node in self.nodes.values() if node.is_up and not node.is_gathering]
            due = min(awake, key=lambda node: (node.raft.deadline, node.id), default=None)
            if due is None or due.raft.deadline > end:
                break
            self.now = max(self.now, due.raft.deadline)
            due.raft.timeout(self.now)
            self._settle(due)
            if is_delivering:
                self._stabilize(())
        self.now = end

    def _stabilize(self, what: tuple[str, ...]) -> int:
        count = 0
        while messages := self.wire.take(what):
            count += len(messages)
            if count > STEPS_MAX:
                raise AssertionError(f"no rest after {count} messages; the last was {messages[-1]}")
            self._deliver(messages)
        return count

    def _deliver(self, messages: list[Message]) -> None:
        for message in messages:
            target = self.nodes[message.target]
            if self.wire.is_cut(message) or not target.is_up:
                self._print(f"lost {message}")
                continue
            self._print(str(message))
            target.raft.receive(self.now, message)
            self._settle(target)

    def _settle(self, node: ScriptNode) -> None:
        """Carry out all that a node wants, as its driver does."""
        while not node.is_gathering:
            ready = node.raft.ready(self.now)
            self._carry_out(node, ready)
            if node.disk.queue and not node.disk.is_held:
                node.raft.stored(self.now, node.disk.complete())
            elif ready == Ready():
                break
        self.judge.check(self.nodes)

    def _carry_out(self, node: ScriptNode, ready: Ready) -> None:
        for told in ready.events:
            self._print_event(node, told)
        for message in ready.messages:
            self.judge.sent(message)
            is_cut = self.wire.is_cut(message)
            if self._prints_sends:
                self._print(f"{'lost' if is_cut else 'send'} {message}")
            if not is_cut:
                self.wire.messages.append(message)
        if ready.write is not None:
            node.disk.queue.append(ready.write)
        if ready.committed:
            self.judge.commit(node, ready.committed, self.nodes)
            self._print(f"n{node.id} applies {ready.committed[0]}..{ready.committed[-1]}")
        for context, index in ready.reads:
            self.judge.reads(node.id, context, index)
            self._lines.append(f"n{node.id} reads {context} at {index}")

    def _print(self, line: str) -> None:
        if not self._is_quiet:
            self._lines.append(line)

    def _print_event(self, node: ScriptNode, told: Told) -> None:
        if not self._is_quiet or told.event.level >= INFO:
            self._lines.append(f"n{node.id}@{told.term} {describe_event(told.event)}")


def _expand(argument: str) -> list[str]:
    name, star, count = argument.partition("*")
    return [f"{name}{number}" for number in range(1, int(count) + 1)] if star else [argument]


def describe_event(event: Event) -> str:
    """Return an event in one line, without checksums and sizes, which say nothing to a reader."""
    members = [
        f"{field.name}={_show(getattr(event, field.name))}"
        for field in attrs.fields(type(event))
        if field.name not in {"crc", "size_bytes"}
    ]
    return " ".join([event.name, *members])


def _show(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(str(part) for part in value)
    return f"{value!r}" if isinstance(value, str) else str(value)
