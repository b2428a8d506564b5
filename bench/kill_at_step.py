#!/usr/bin/env python3
"""Run trio_kv, and kill it as by kill -9 right after (or before) one of the steps that it takes on a disk. Linux.

    STEPS_UNDER=/mnt STEPS_LIST=steps.txt python bench/kill_at_step.py serve --data-dir /mnt/data
    STEPS_UNDER=/mnt KILL_AT="after rename data/manifest.json #1" python bench/kill_at_step.py serve ...

A step is a call that makes, renames, links, removes, cuts or syncs something below STEPS_UNDER. It is called by what
it does, to which file, and the how many-th of its name it is: "fsync data/node-2 #3". What differs from run to run in
a name, as a random part, is a `*`. The first form writes down the steps, the second kills.
"""

import functools
import os
import pathlib
import re
import runpy
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

STEPS = {
    "open": "create",
    "rename": "rename",
    "replace": "rename",
    "link": "link",
    "symlink": "link",
    "unlink": "remove",
    "remove": "remove",
    "rmdir": "remove",
    "mkdir": "mkdir",
    "ftruncate": "truncate",
    "fsync": "fsync",
    "fdatasync": "fdatasync",
}
"""What a function of `os` does, by its name. Opening is a step only where it may make a file."""
TWO_NAMES = {"rename", "replace", "link", "symlink"}
"""Those whose second name is the new one."""
VARIES = re.compile(r"(?<=replaced-)\w+|(?<=control\.json\.)\w+|[0-9a-f]{16}|\d{6,}")
"""What is drawn at random, or counts entries, in the name of a file."""


class Steps:
    """Sees the steps of this process.

    Args:
        under: the directory that counts.
        kill_at: the step to die at, behind "after " or "before "; "" for none.
        list_to: a descriptor that each step's name is written to; None for none.

    """

    def __init__(self, under: str, kill_at: str, list_to: int | None) -> None:
        """See nothing yet: `watch` begins."""
        self.under = os.path.realpath(under) + os.sep
        self.side, _, self.step = kill_at.partition(" ")
        self.list_to = list_to
        self.seen: Counter[str] = Counter()
        self.lock = threading.Lock()  # each node has threads of its own for its disk

    def watch(self) -> None:
        """Put ourselves in the place of the functions that take steps."""
        for name in STEPS:
            call = getattr(os, name)
            watched = self.watched(name, call)
            for able in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks):
                if call in able:
                    able.add(watched)
            setattr(os, name, watched)

    def watched(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that does what `call` does, and may die before or after it."""

        @functools.wraps(call)
        def watched(*args: Any, **options: Any) -> Any:
            path = self.path_of(name, args, options)
            if path is None:
                return call(*args, **options)
            is_last = self.count(f"{STEPS[name]} {path}")
            if is_last and self.side == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*args, **options)
            if is_last:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return watched

    def path_of(self, name: str, args: tuple[Any, ...], options: dict[str, Any]) -> str | None:
        """Return what a call is about, as a path below the directory that counts; None if it is no step."""
        if name == "open" and not args[1] & os.O_CREAT:
            return None
        has_two = name in TWO_NAMES
        target = args[has_two]
        if isinstance(target, int):
            path = path_of_descriptor(target)
        else:
            folder = options.get("dst_dir_fd" if has_two and name != "symlink" else "dir_fd")
            above = "" if folder is None else path_of_descriptor(folder)
            path = os.path.abspath(os.path.join(above, os.fsdecode(target)))  # noqa: PTH100, PTH118 - as it is said
        if not path.startswith(self.under):
            return None
        return VARIES.sub("*", path.removeprefix(self.under))

    def count(self, what: str) -> bool:
        """Note a step; return whether it is the one to die at."""
        with self.lock:
            self.seen[what] += 1
            step = f"{what} #{self.seen[what]}"
            if self.list_to is not None:
                os.write(self.list_to, f"{step}\n".encode())
        return step == self.step


def path_of_descriptor(descriptor: int) -> str:
    """Return where an open file or directory is now."""
    return str(pathlib.Path(f"/proc/self/fd/{descriptor}").readlink())


def main() -> None:
    """Run trio_kv with our own arguments."""
    path = os.environ.get("STEPS_LIST")
    list_to = None if path is None else os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    Steps(os.environ["STEPS_UNDER"], os.environ.get("KILL_AT", ""), list_to).watch()
    sys.argv[0] = "trio_kv"
    runpy.run_module("trio_kv", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
