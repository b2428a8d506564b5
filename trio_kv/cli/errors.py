"""What a command can be refused with before it does anything."""


class UsageError(ValueError):
    """The command line asks for something that can't be; the message is for a person."""
