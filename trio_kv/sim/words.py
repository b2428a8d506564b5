"""A schedule of faults in words, for whoever wants to know what it takes to break something."""

import re
from typing import Any

import attrs

from trio_kv.sim.faults import Fault
from trio_kv.sim.plan import Plan


def describe_schedule(plan: Plan) -> str:
    """Return what a plan lets happen: a line each, in order."""
    nodes = "1 node" if plan.nodes == 1 else f"{plan.nodes} nodes"
    clients = "1 client" if plan.clients == 1 else f"{plan.clients} clients"
    world = f"{nodes}, {clients}"
    if not plan.faults:
        return f"  {world}, no faults: it fails by itself"
    return "\n".join([f"  {world}", *(f"  {describe_fault(fault)}" for fault in plan.faults)])


def describe_fault(fault: Fault) -> str:
    """Return a fault in words: when, what, and what the schedule says about it."""
    members = [
        _member(name, value) for name, value in attrs.asdict(fault, recurse=False).items() if name != "at_s"
    ]
    said = ", ".join(member for member in members if member)
    what = (type(fault).__doc__ or type(fault).__name__).partition("\n")[0]
    return f"{fault.at_s:9.3f} s  {_words(type(fault).__name__)}{f' ({said})' if said else ''}: {what}"


def _words(name: str) -> str:
    """Return a class' name as words.

    >>> _words("CrashAll")
    'crash all'
    """
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


def _member(name: str, value: Any) -> str:
    match value:
        case None:
            said = ""
        case bool():
            said = name.removeprefix("is_").replace("_", " ") if value else ""
        case int() if name in {"node", "source", "target"}:
            said = f"{name if name != 'node' else ''} {'n' + str(value) if value else 'the leader'}".strip()
        case float() if name == "for_s":
            said = f"for {value:.3f} s"
        case tuple() if name == "groups":
            said = " | ".join(" ".join(f"n{node}" for node in group) for group in value)
        case tuple():
            said = f"{name} {' '.join(map(_number, value))}"
        case _ if attrs.has(type(value)):
            members = attrs.asdict(value, recurse=False).items()
            said = ", ".join(f"{key} {_number(each)}" for key, each in members if each)
        case _:
            said = f"{name} {_number(value)}"
    return said


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
