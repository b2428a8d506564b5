"""What a command can be refused with, in words for a person."""


class UsageError(ValueError):
    """The command line asks for something that can't be; nothing was done."""


class NotDoneError(Exception):
    """What was asked for was not done; the message says why."""
