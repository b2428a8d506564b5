"""Commands of the log as hypothesis draws them, of all kinds that there are."""

import msgspec
from hypothesis import strategies as st

from trio_kv.kv.commands import UNSAID, ClientWrite, Command, Expire, OpenSession, RenewSession, Write
from trio_kv.kv.operations import AnyWrite, Cas, Delete, Get, Incr, Set, Txn
from trio_kv.kv.operations.incr import NUMBER_MAX
from trio_kv.kv.operations.txn import BranchOperation, Condition

NUMBERS = st.integers(0, 2**63 - 1)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
SPELLINGS = st.sampled_from(
    [
        b"1.50",
        b"1e3",
        b'{"b": 1,\t"a": [ ]}',
        b'"\\u00e9"',
        '"\u20ac"'.encode(),
        b"null",
        b"[" * 128 + b"]" * 128,
    ]
)
VALUES = SPELLINGS.map(msgspec.Raw)
UNSETS = st.just(msgspec.UNSET)
TTLS = UNSETS | st.sampled_from([0.1, 60.0, 31_536_000.0])
SETS = st.builds(Set, TEXTS, VALUES, UNSETS | NUMBERS, TTLS)
DELETES = st.builds(Delete, TEXTS, UNSETS | NUMBERS)
INCRS = st.builds(Incr, TEXTS, st.integers(-NUMBER_MAX, NUMBER_MAX), TTLS)
BRANCHES: st.SearchStrategy[tuple[BranchOperation, ...]] = st.lists(
    st.one_of(st.builds(Get, TEXTS), SETS, DELETES, INCRS), max_size=3
).map(tuple)
CONDITIONS = st.one_of(
    st.builds(Condition, TEXTS, VALUES),
    st.builds(Condition, TEXTS, UNSETS, NUMBERS),
    st.builds(Condition, TEXTS, UNSETS, UNSETS, st.booleans()),
)
TXNS = st.builds(Txn, st.lists(CONDITIONS, max_size=2).map(tuple), BRANCHES, BRANCHES)
WRITES: st.SearchStrategy[AnyWrite] = st.one_of(
    SETS, DELETES, st.builds(Cas, TEXTS, VALUES, UNSETS | VALUES, TTLS), INCRS, TXNS
)
COMMANDS: st.SearchStrategy[Command] = st.one_of(
    st.builds(Write, NUMBERS, NUMBERS, NUMBERS, WRITES),
    st.builds(ClientWrite, NUMBERS, NUMBERS, st.just(UNSAID) | NUMBERS, WRITES, TEXTS, NUMBERS),
    st.builds(OpenSession, NUMBERS, TEXTS),
    st.builds(RenewSession, NUMBERS, TEXTS),
    st.builds(Expire, st.none() | NUMBERS),
)
