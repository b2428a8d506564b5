"""Golden scripts: a scenario as a page of prose, commands and what came of them.

A script is text. A line that begins with `> ` is a command, the lines indented by four spaces below it
are its output, everything else is prose. `run_script` carries the commands out on the consensus core alone
(no Trio, no replica, no real disk) and returns the same page with the outputs as they are now: a test compares
the two, and a person reads the difference.

The driver obeys the duties of `Ready`, and nothing happens that no command asked for: a message stays on the wire
until it is delivered, time stands still until it is moved, and only writes complete by themselves, unless the disk
is held. After every step the safety rules of paper figure 3 are asserted on all nodes (see `Judge`).
"""

from collections.abc import Iterator

from trio_kv.sim.script_world import World

INDENT = "    "


def parse(text: str) -> Iterator[tuple[str, bool]]:
    """Yield lines, and whether each is a command or prose; outputs are left out, for they are made anew."""
    is_below_command = False
    for line in text.splitlines():
        if line.startswith("> "):
            is_below_command = True
            yield line, True
        elif not (is_below_command and line.startswith(INDENT)):
            is_below_command = False
            yield line, False


def run_script(text: str) -> str:
    """Carry out a script; return it with the outputs as they are now.

    Raises:
        ScriptError: a command is wrong.
        AssertionError: a safety rule broke; the message of its note names the command.

    """
    world = World()
    lines: list[str] = []
    for line, is_command in parse(text):
        lines.append(line)
        if is_command:
            try:
                output = world.do(line[2:])
            except AssertionError as error:
                error.add_note(f"at {line!r}, after:\n" + "\n".join(world._lines))  # noqa: SLF001 - same module
                raise
            lines += [INDENT + told for told in output]
    return "\n".join(lines) + "\n"
