"""Our commands for bash, without the start-up of an interpreter each: a process that has imported them forks for each.

A function of the name `trio-kv` tells it the arguments, the directory, the variables and by its own number where its
streams are. What runs then is what would run else: the same entry point, in a process of its own. Linux only: it opens
the streams of another process by /proc.
"""

import gc
import io
import os
import signal
import stat
import sys
from pathlib import Path

import rich.table  # noqa: F401 - what commands import when they need it is there already
import wsproto.events  # noqa: F401

from trio_kv.cli import backup, ranges, shell, transfer  # noqa: F401
from trio_kv.cli.main import app, run
from trio_kv.client import control  # noqa: F401

FUNCTIONS = r"""
trio-kv() {
    # By the microsecond: `$RANDOM` has 32,768 values, of which a page's commands met one twice now and then.
    local id="$TRIO_KV_QUICK/$BASHPID.${EPOCHREALTIME//[!0-9]/}" code
    mkfifo "$id.done"
    env -0 >"$id.env"
    printf '%s\0' "$BASHPID" "$PWD" "$@" >"$id"
    echo "$id" >"$TRIO_KV_QUICK/requests"
    read -r code <"$id.done"
    return "$code"
}
python() {
    if [[ "$1 $2" == "-m trio_kv" ]]; then shift 2; trio-kv "$@"; else "$TRIO_KV_PYTHON" "$@"; fi
}
"""


def main(folder: Path) -> None:
    """Carry out what is asked for by a named pipe, until nobody has it open for writing any more and says so."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for what is forked
    app.assemble_argument_collection()
    gc.freeze()
    os.mkfifo(folder / "requests")
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        for request in (folder / "requests").read_text().splitlines():
            if request == "end":
                return
            if os.fork() == 0:
                carry_out(Path(request))


def carry_out(request: Path) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    caller, directory, *words = request.read_text().split("\0")[:-1]
    take_streams(caller)
    os.chdir(directory)
    os.environ.clear()
    variables = request.with_suffix(f"{request.suffix}.env").read_text().split("\0")[:-1]
    for each in variables:
        name, _, value = each.partition("=")
        os.environ[name] = value
    os.environ.pop("TRIO_KV_QUICK")
    os.environ.pop("TRIO_KV_PYTHON")
    sys.argv = ["trio-kv", *words]
    try:
        run()
    except SystemExit as end:
        code = int(end.code or 0)
    with request.with_suffix(f"{request.suffix}.done").open("w") as done:
        done.write(f"{code}\n")
    os._exit(0)


def take_streams(caller: str) -> None:
    """Have the caller's standard streams as our own."""
    for number in range(3):
        path = f"/proc/{caller}/fd/{number}"
        # Behind what a file holds: ours is another description of it, with a place of its own.
        flags = os.O_WRONLY | os.O_APPEND if stat.S_ISREG(Path(path).stat().st_mode) else os.O_WRONLY
        opened = os.open(path, flags if number else os.O_RDONLY)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
