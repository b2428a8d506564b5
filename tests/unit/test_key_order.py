"""The order of keys: large ones, in slices, with keys that come and go meanwhile."""

from random import Random

import msgspec
import pytest

from trio_kv.kv.key_order import BUCKET_KEYS, KeyOrder
from trio_kv.kv.layers import Layers
from trio_kv.kv.operations.operation import Change
from trio_kv.kv.reply import Item

ONE = msgspec.Raw(b"1")


class Store:
    """Keys, and the changes that came to them."""

    def __init__(self, random: Random, count: int) -> None:
        self.random = random
        keys = [f"key{random.randrange(10 * count)}" for _ in range(count)]
        self.items: dict[str, Item] | Layers = {key: Item(ONE, 1, key) for key in keys}
        self.order = KeyOrder(self.items)

    def change(self, count: int) -> None:
        """Let keys come and go."""
        for _ in range(count):
            key = f"key{self.random.randrange(20_000)}"
            held = self.items.get(key)
            if held is None:
                self.items[key] = Item(ONE, 2, key)
                self.order.note([Change("set", key, ONE, 2, 0)])
            elif self.random.random() < 0.6:
                del self.items[key]
                self.order.note([Change("delete", key, None, 2, 1)])

    def judge(self) -> None:
        """Compare ranges with those of a list that is sorted."""
        due = sorted(self.items)
        assert list(self.order.between("", None)) == due
        assert list(self.order.between_reversed("", None)) == due[::-1]
        for _ in range(20):
            first, end = sorted(f"key{self.random.randrange(20_000)}" for _ in range(2))
            found = [key for key in due if first <= key < end]
            assert list(self.order.between(first, end)) == found
            assert list(self.order.between_reversed(first, end)) == found[::-1]
            assert self.order.count(first, end) == len(found)


@pytest.mark.parametrize("is_layered", [False, True])
def test_keys_that_come_and_go_while_the_order_is_made(is_layered: bool) -> None:
    """However far the order was when a key came or went, and also beside a snapshot, it is right in the end."""
    store = Store(Random(7), 8 * BUCKET_KEYS)
    if is_layered:
        assert isinstance(store.items, dict)
        store.items = Layers(store.items)
        store.change(1000)
        store.order = KeyOrder(store.items)
    steps = 1
    while not store.order.settle(store.items, 500):
        store.change(100)
        steps += 1
    assert steps > 10
    store.judge()


def test_buckets_are_cut_and_go() -> None:
    """One bucket that grows to thousands of keys is cut; keys that go take their buckets along."""
    store = Store(Random(8), 0)
    for _ in range(30):
        store.change(1000)
        while not store.order.settle(store.items, 300):
            pass
        store.judge()
    for key in sorted(store.items)[10:]:
        del store.items[key]
        store.order.note([Change("delete", key, None, 3, 2)])
    while not store.order.settle(store.items, 300):
        pass
    store.judge()


def test_nothing_is_told_before_all_keys_are_in_place() -> None:
    """To ask too early is a mistake of the caller."""
    store = Store(Random(9), 5000)
    store.order.settle(store.items, 100)
    with pytest.raises(AssertionError, match="not in place"):
        store.order.count("", None)
