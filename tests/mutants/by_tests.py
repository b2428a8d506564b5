"""Run the tests that are to find mutants: `python -m tests.mutants.by_tests RESULTS.json`.

The file gets, by "mutant: test", the first line of what the test said, or null where it noticed nothing.
"""

import json
import sys
from pathlib import Path

from tests.mutants.all_mutants import MUTANTS
from tests.mutants.kills import kill_by_tests

if __name__ == "__main__":
    kills = kill_by_tests(MUTANTS.values())
    told = {f"{name}: {test}": kill and kill.violation for (name, test), kill in kills.items()}
    Path(sys.argv[1]).write_text(json.dumps(told, indent=1) + "\n")
