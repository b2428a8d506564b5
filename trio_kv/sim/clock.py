"""A simulated node's clock."""


class Clock:
    """A node's clock: runs at its own rate."""

    def __init__(self, offset_s: float) -> None:
        """Show `offset_s` when the world begins."""
        self.rate = 1.0
        self._base = offset_s
        self._world_base = 0.0

    def at(self, world_s: float) -> float:
        """Return what the clock shows at a time of the world."""
        return self._base + (world_s - self._world_base) * self.rate

    def to_world(self, at: float) -> float:
        """Return the world's time at which the clock will show `at`."""
        return self._world_base + (at - self._base) / self.rate

    def jump(self, by_s: float) -> None:
        """Show so much more from here on."""
        self._base += by_s

    def set_rate(self, world_s: float, rate: float) -> None:
        """Go on from here at this rate."""
        self._base, self._world_base = self.at(world_s), world_s
        self.rate = rate
