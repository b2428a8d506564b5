#!/usr/bin/env bash
# Who may read what a prompt of prompt_toolkit remembers (`FileHistory`)?
#
# Expected, as of the histories of bash, psql and Python's own readline: its owner. Seen (prompt_toolkit 3.0.53, umask
# 022): everybody, for the file is made by a plain open().
#
#   mode of a new history file:   readline: 600   prompt_toolkit: 644
#
# What was typed, tokens included, is then there for all users of the machine. A file that is there before keeps its mode.
# Exit status: 0 as stated or can't be tried here, 1 something has changed.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
umask 022

if ! { python3 -m venv venv && venv/bin/pip install --quiet --disable-pip-version-check prompt_toolkit==3.0.53 &&
       venv/bin/python -c 'import readline'; } 2>/dev/null; then
  echo "can't be tried here: it takes python3 with venv and readline, and prompt_toolkit"
  exit 0
fi

# Prints the mode of a file.
mode() { venv/bin/python -c 'import os, sys; print(f"{os.stat(sys.argv[1]).st_mode & 0o777:o}")' "$1"; }

venv/bin/python -c '
import readline
readline.add_history("get snack")
readline.write_history_file("of-readline")
from prompt_toolkit.history import FileHistory
FileHistory("of-prompt-toolkit").store_string("get snack")
'
seen="readline: $(mode of-readline)   prompt_toolkit: $(mode of-prompt-toolkit)"
echo "mode of a new history file:   $seen"
if [ "$seen" != "readline: 600   prompt_toolkit: 644" ]; then
  echo "this has changed"
  exit 1
fi
