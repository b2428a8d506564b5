"""The operations of the store, each defined in one file: its members, its limits, its effect, and its answer.

An operation that is added here is decoded, refused with reasons, weighed, written into the log, applied, answered,
encoded by clients and offered by the shell. What it needs besides is its rule in `check.reference`, a judge's opinion
of its own.
"""

from typing import Final, get_args

from trio_kv.kv.operations.cas import Cas
from trio_kv.kv.operations.delete import Delete
from trio_kv.kv.operations.get import Get
from trio_kv.kv.operations.incr import Incr
from trio_kv.kv.operations.operation import Operation
from trio_kv.kv.operations.scan import Scan
from trio_kv.kv.operations.set import Set
from trio_kv.kv.operations.txn import Txn

__all__ = [
    "OPERATIONS",
    "AnyOperation",
    "AnyQuery",
    "AnyWrite",
    "Cas",
    "Delete",
    "Get",
    "Incr",
    "KeyOperation",
    "Operation",
    "Scan",
    "Set",
    "Txn",
]

AnyOperation = Get | Set | Delete | Cas | Incr | Scan | Txn
AnyQuery = Get | Scan
AnyWrite = Set | Delete | Cas | Incr | Txn
"""Those that stand in the log."""
KeyOperation = Get | Set | Delete | Cas | Incr
"""Those of one key."""

OPERATIONS: Final[tuple[type[Operation], ...]] = get_args(AnyOperation)
"""In the order in which a person is told of them."""
