"""What a call into the core may be refused with."""

import attrs


@attrs.frozen
class NotLeader:
    """This node can't do that: it doesn't lead, or is handing over. Nothing was appended."""

    hint: int | None
    """The node that leads, as far as this one knows."""


@attrs.frozen
class ReadOnly:
    """The disks of a majority are full. Nothing was appended."""
