"""Commands that run the code of this process, whatever else has its name.

`python -m trio_kv.x` looks in the working directory first. Where that holds another version, as a developer's checkout
does, a process started so is not of the version of the one that started it.
"""

import sys
from pathlib import Path
from typing import Final

_PLACE: Final = str(Path(__file__).resolve().parents[1])
"""Where this package lies."""
_RUN: Final = (
    "import runpy, sys; place, module = sys.argv[1:3]; del sys.argv[1:3]; sys.path.insert(0, place);"
    " runpy.run_module(module, run_name='__main__', alter_sys=True)"
)


def same_code(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of this package, in the version of this process."""
    return [sys.executable, "-P", "-c", _RUN, _PLACE, module, *arguments]
