"""Nodes that get the processor only now and then: held, and let go for one pass at a time."""

from trio_kv.sim.whole.host import WholeHost


class Starvation:
    """Who is starved, over all lives of a node.

    Args:
        host: the world.

    """

    def __init__(self, host: WholeHost) -> None:
        """Starve nobody yet; see the class."""
        self._host = host
        self._numbers: dict[int, int] = {}
        """Node -> which of all starvations it suffers."""
        self._number = 0

    def __contains__(self, node: int) -> bool:
        """Return whether a node is starved."""
        return node in self._numbers

    def begin(self, node: int, step_s: float) -> None:
        """Let a node take up what came, and its timers, only every `step_s`."""
        self._number += 1
        self._numbers[node] = self._number
        self._pulse(node, step_s, self._number)

    def end(self, node: int) -> None:
        """Let a node be as fast as others."""
        if self._numbers.pop(node, None) is not None:
            self._let_go(node)

    def end_all(self) -> None:
        """Let all nodes be as fast as others."""
        for node in sorted(self._numbers):
            self.end(node)

    def _pulse(self, node: int, step_s: float, number: int) -> None:
        if self._numbers.get(node) != number:
            return
        self._let_go(node)
        if node in self._host.running:
            # What the node waits for goes on all the same; its next pass waits for the next pulse.
            self._host.running[node].pause()
        self._host.after(step_s, self._pulse, node, step_s, number)

    def _let_go(self, node: int) -> None:
        if node in self._host.running and not self._host.is_paused(node):
            self._host.running[node].resume()
