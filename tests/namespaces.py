"""Hosts made of network namespaces: each has an address of its own, a cable to one switch, and nothing else in common.

It takes root, and Linux. What a kernel can't do, as losing packets by `tc`, is done by `nft`, or said.
"""

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

TOOLS = ("ip", "nft")


def why_not() -> str:
    """Return why there can be no namespaces here; empty if there can."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"{' and '.join(missing)} missing: apt-get install iproute2 nftables"
    if os.geteuid() != 0:
        return "namespaces take root"
    try:
        run("ip", "netns", "add", "trio-kv-try")
        run("ip", "netns", "del", "trio-kv-try")
    except subprocess.CalledProcessError as error:
        return f"no namespaces: {error.stderr.strip()}"
    return ""


def run(*command: str) -> str:
    """Run a command; return what it says."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@attrs.frozen
class Host:
    """One namespace."""

    name: str
    address: str

    def command(self, *command: str) -> list[str]:
        """Return a command as it is run on this host."""
        return ["ip", "netns", "exec", self.name, *command]

    def take_down(self) -> None:
        """Pull the cable."""
        run("ip", "-n", self.name, "link", "set", "up0", "down")

    def bring_up(self) -> None:
        """Plug it in again."""
        run("ip", "-n", self.name, "link", "set", "up0", "up")

    def lose(self, percent: int) -> None:
        """Lose so many of the packets that come in."""
        run(*self.command("nft", "add", "table", "inet", "loss"))
        hook = "{ type filter hook input priority 0; }"
        run(*self.command("nft", "add", "chain", "inet", "loss", "input", hook))
        rule = f"numgen random mod 100 < {percent} drop"
        run(*self.command("nft", "add", "rule", "inet", "loss", "input", *rule.split()))

    def lose_nothing(self) -> None:
        """Let all packets through again."""
        run(*self.command("nft", "delete", "table", "inet", "loss"))

    def readdress(self, address: str) -> "Host":
        """Give the host another address, and take the one away that it had."""
        run("ip", "-n", self.name, "addr", "flush", "dev", "up0")
        run("ip", "-n", self.name, "addr", "add", f"{address}/24", "dev", "up0")
        return attrs.evolve(self, address=address)


@contextmanager
def hosts(count: int) -> Iterator[list[Host]]:
    """Give so many hosts, and one more that only looks on: all joined by a switch, in a network of their own."""
    tag = uuid.uuid4().hex[:6]
    switch = f"tkv{tag}s"
    made = [Host(f"tkv{tag}{number}", f"10.77.0.{number}") for number in range(1, count + 2)]
    try:
        run("ip", "netns", "add", switch)
        run("ip", "-n", switch, "link", "add", "br0", "type", "bridge")
        run("ip", "-n", switch, "link", "set", "br0", "up")
        for number, host in enumerate(made):
            run("ip", "netns", "add", host.name)
            run("ip", "-n", host.name, "link", "set", "lo", "up")
            cable = f"p{number}"
            run("ip", "-n", switch, "link", "add", cable, "type", "veth", "peer", "up0", "netns", host.name)
            run("ip", "-n", switch, "link", "set", cable, "master", "br0", "up")
            run("ip", "-n", host.name, "addr", "add", f"{host.address}/24", "dev", "up0")
            run("ip", "-n", host.name, "link", "set", "up0", "up")
        yield made
    finally:
        for name in (switch, *(host.name for host in made)):
            if Path(f"/run/netns/{name}").exists():
                run("ip", "netns", "del", name)
