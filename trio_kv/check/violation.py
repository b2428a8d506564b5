"""What a judge raises."""


class Violation(AssertionError):  # noqa: N818 - a violation is what it is called in the literature
    """A property that must always hold was broken; the message says where and by what."""
