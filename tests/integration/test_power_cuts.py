"""Power cuts for real: a file system in a file, whose image is copied while it is mounted. Takes root on Linux."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SKIPPED = 77
PROGRAM = """
import os, signal, subprocess, sys
from contextlib import closing
from pathlib import Path
from random import Random

from trio_kv.raft.entry import make_entry
from trio_kv.raft.ready import HardState, Ticket, Write
from trio_kv.storage.data_directory import open_data_directory
from trio_kv.storage.rebuild import rebuild_node

def run(*words):
    if subprocess.run([*map(str, words)], capture_output=True).returncode:
        sys.exit(77)

def mount(image):
    path = Path(f"{image}.mounted")
    path.mkdir()
    run("mount", "-o", "loop" + (",nouuid" if kind == "xfs" else ""), image, path)
    return path

def killed_at_manifest(call):
    pid = os.fork()
    if pid == 0:
        real = os.replace
        def replace(source, target, **more):
            real(source, target, **more)
            if target == "manifest.json":
                os.kill(os.getpid(), signal.SIGKILL)
        os.replace = replace
        call()
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL

def start(path):
    return open_data_directory(path, random=Random(1), nodes=3, segment_bytes=4096)

def rebuild():
    with start(data) as directory:
        rebuild_node(directory, 3, Random(2))

kind, what, image = sys.argv[1:]
run("truncate", "-s", "320M", image)
run(f"mkfs.{kind}", "-q", *(["-F"] if kind == "ext4" else ["-f"]), image)
disk = mount(image)
data = disk / "a" / "data"
if what == "rebuild":
    start(data).close()
killed_at_manifest(rebuild if what == "rebuild" else lambda: start(data))
with start(data) as directory:
    for node in directory.nodes:
        directory.settle(node)
        with closing(directory.node(node).open()) as opened:
            opened.wal.append([Write(Ticket(1, 1, 1), HardState(1, 1), None, (make_entry(1, 1, 0, None),))])
    run("cp", "--sparse=always", image, image + ".cut")
data = mount(image + ".cut") / "a" / "data"
with start(data) as directory:
    for node in directory.nodes:
        found = directory.node(node)
        assert found.state == "ok", found.reason
        with closing(found.open()) as opened:
            assert opened.wal.last_index == 1, node
"""


@pytest.mark.parametrize(
    ("kind", "what"),
    [("xfs", "first start"), ("xfs", "rebuild"), ("ext4", "rebuild"), ("btrfs", "first start")],
)
def test_what_is_acknowledged_after_a_kill_is_there_after_a_power_cut(
    tmp_path: Path, kind: str, what: str
) -> None:
    """A kill as soon as the manifest has its name, a start, a write, and the power fails: it starts, with the write."""
    if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which(f"mkfs.{kind}") is None:
        pytest.skip(f"it mounts a file system, which takes root, unshare and mkfs.{kind}")
    # What is mounted vanishes with the process.
    words = ["unshare", "--mount", sys.executable, "-c", PROGRAM, kind, what, str(tmp_path / "disk.img")]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode == SKIPPED:
        pytest.skip(f"no {kind} can be mounted here")
    assert done.returncode == 0, done.stderr
