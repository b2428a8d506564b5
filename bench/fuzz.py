"""Fuzz what a client can send, guided by coverage: bytes into a session, and what it says to them.

    pip install atheris
    python bench/fuzz.py --minutes 20 --corpus /tmp/corpus

A session is fed with bytes that are cut into chunks anywhere, with tokens and small limits or without. Every request
that it lets through is answered in one of the ways in which a store answers. It must not raise; each line that is not
blank has one answer, in one line, which is JSON; and the cuts must not show. What breaks that is left in a file
`crash-...`, which as an argument is run again.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))
with atheris.instrument_imports(include=["trio_kv"]):
    from tests.hostile import SEEDS, run_one
    from trio_kv.wire.operations import OPERATIONS


def main() -> None:
    """Fuzz for some time, or run files again."""
    parser = argparse.ArgumentParser(description="Fuzz what a client can send.")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--corpus", type=Path, default=Path(tempfile.gettempdir()) / "trio_kv-corpus")
    parser.add_argument("files", nargs="*", type=Path)
    options = parser.parse_args()
    for path in options.files:
        run_one(path.read_bytes())
    if options.files:
        return
    options.corpus.mkdir(exist_ok=True)
    for number, seed in enumerate(SEEDS):
        for first in (b"\x00", b"\x01"):
            name = f"seed-{number}-{first[0]}"
            (options.corpus / name).write_bytes(first + b"\x0d" + seed)
    words = sorted({'"' + name + '"' for name in OPERATIONS} | set(_members()))
    dictionary = options.corpus.with_suffix(".dict")
    dictionary.write_text("".join(json.dumps(word) + "\n" for word in words))
    began_s = time.monotonic()
    arguments = [f"-max_total_time={int(options.minutes * 60)}", "-max_len=2048", "-timeout=20"]
    arguments += [f"-dict={dictionary}", "-print_final_stats=1", str(options.corpus)]
    atheris.Setup([sys.argv[0], *arguments], run_one)
    print(f"began at {began_s:.0f}")
    atheris.Fuzz()


def _members() -> list[str]:
    return ['"' + name + '":' for kind in OPERATIONS.values() for name in kind.__struct_encode_fields__]


if __name__ == "__main__":
    main()
