#!/usr/bin/env bash
# Does a test of pytest-trio run on a MockClock that another fixture, or `usefixtures`, asks for?
#
# Expected: a fixture counts however a test comes to it, so that `autojump_clock` gives the test its clock also where the
# test asks for something that asks for it. Seen (pytest-trio 0.8.0, trio 0.35.0, pytest 9.2.0): only a clock among the
# arguments of the test itself is used. The fixture is made, and the test sleeps in real time, without a word. Tests that
# were made fast by such a fixture are slow, and what they say of time is said of the machine.
#
#   argument of the test        a sleep of 1 s takes no time
#   argument of its fixture     a sleep of 1 s takes 1 s
#   @pytest.mark.usefixtures    a sleep of 1 s takes 1 s
#
# Exit status: 0 as stated or can't be tried here, 1 something has changed.
set -euo pipefail

directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
if ! python3 -m venv "$directory/venv" 2>/dev/null ||
  ! "$directory/venv/bin/pip" install --quiet pytest-trio==0.8.0 trio==0.35.0 pytest==9.2.0 2>/dev/null; then
  echo "can't be tried here: it takes python3 with venv, pytest-trio 0.8.0, trio 0.35.0 and pytest 9.2.0"
  exit 0
fi
cat >"$directory/test_clock.py" <<'PY'
import time

import pytest
import trio
import trio.testing


async def took_s():
    began_s = time.monotonic()
    await trio.sleep(1)
    return time.monotonic() - began_s


@pytest.fixture
async def store(autojump_clock):
    assert isinstance(autojump_clock, trio.testing.MockClock)


@pytest.mark.trio
async def test_argument_of_the_test(autojump_clock):
    assert await took_s() < 0.9


@pytest.mark.trio
async def test_argument_of_its_fixture(store):
    assert await took_s() >= 0.9


@pytest.mark.trio
@pytest.mark.usefixtures("autojump_clock")
async def test_usefixtures():
    assert await took_s() >= 0.9
PY
cd "$directory"
venv/bin/python -m pytest --quiet -p no:cacheprovider test_clock.py && exit 0
exit 1
