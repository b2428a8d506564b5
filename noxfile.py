"""What is run before a change goes in. `nox` alone runs the sessions that check; `nox -l` lists all.

Each session installs into a virtual environment of its own, made with uv where it is installed and with
virtualenv elsewhere.
"""

import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nox

nox.options.default_venv_backend = "uv|virtualenv"
# What is missing is skipped with a word, and not fetched from anywhere.
nox.options.download_python = "never"
nox.options.sessions = ["lint", "types", "layers", "docs", "tests", "browser", "lowest"]

PYPROJECT = nox.project.load_toml("pyproject.toml")
ONLY_OURS = ("cli_rules", "crash_states", "gateway_fates", "json_equality", "snapshots", "voters", "wal")
"""Long unit tests that go through very many cases of our own code, and use what it depends on as all others do."""
OLDEST, *NEWER = nox.project.python_versions(PYPROJECT, max_version="3.15")
"""From `requires-python` on. Those that came after the classifiers were written are tried as soon as they are found."""
AXE = "4.14.1"
"""Of axe-core, which judges whether everybody can use the page."""
ON_ALL_CORES = ("--numprocesses=auto", "--dist=loadscope")
"""Some files stay together, and come first: see tests/conftest.py."""
PYTHON_PATHS = ("trio_kv", "tests", "bench", "noxfile.py", "docs/conf.py")

# ruff has some of these, too; those of 900 and above are off unless they are named in full. Left out are 114
# (it wants a list of our functions with a task_status), 124 (fakes in tests are async without need) and 91x
# but 913 (a loop that is sure to be entered looks unsure to them).
FLAKE8_ASYNC_RULES = (
    "ASYNC101,ASYNC102,ASYNC103,ASYNC104,ASYNC111,ASYNC112,ASYNC113,ASYNC118,ASYNC119,ASYNC120,ASYNC121,"
    "ASYNC122,ASYNC123,ASYNC125,ASYNC300,ASYNC913"
)
ASYNC_WORDS = re.compile(r"\b(async|await|trio|asyncio|\w*ExceptionGroup|BaseException)\b|except\s*[*:]")
"""What a file has if one of these rules can have to do with it: each is about something that is written so."""


def keep_bytecode(session: nox.Session) -> None:
    """Let what is run keep its bytecode beside the session's environment, and the working tree clean.

    The tests start hundreds of processes. Where PYTHONDONTWRITEBYTECODE is set each of them would compile all that it
    imports, which takes longer than what most of them do.
    """
    session.env.update(
        PYTHONDONTWRITEBYTECODE="", PYTHONPYCACHEPREFIX=str(Path(session.virtualenv.location, "bytecode"))
    )


def install(session: nox.Session, *groups: str, is_with_project: bool = False) -> None:
    """Install dependency groups and, on demand, the project itself."""
    keep_bytecode(session)
    requirements = nox.project.dependency_groups(PYPROJECT, *groups)
    project = ("-e", ".") if is_with_project else ()
    session.install("--quiet", *requirements, *project)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style; change nothing."""
    install(session, "lint")
    session.run("ruff", "check", *PYTHON_PATHS)
    session.run("ruff", "format", "--check", *PYTHON_PATHS)
    paths = [path for folder in ("trio_kv", "tests") for path in Path(folder).rglob("*.py")]
    texts = {str(path): path.read_text(encoding="utf-8") for path in paths}
    files = sorted(
        (file for file in texts if ASYNC_WORDS.search(texts[file])), key=lambda file: len(texts[file])
    )
    # It uses one processor, for half a second a file.
    parts = os.cpu_count() or 1
    with ThreadPoolExecutor(parts) as pool:
        runs = [
            pool.submit(session.run, "flake8-async", f"--enable={FLAKE8_ASYNC_RULES}", *files[part::parts])
            for part in range(parts)
        ]
    for run in runs:
        run.result()


@nox.session
def types(session: nox.Session) -> None:
    """Check types."""
    install(session, "types", is_with_project=True)
    session.run("mypy")


@nox.session
def layers(session: nox.Session) -> None:
    """Check that each room uses only rooms on lower floors, and that pure rooms are pure."""
    install(session, "layers", is_with_project=True)
    session.run("lint-imports")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests; arguments after `--` go to pytest."""
    install(session, "tests", is_with_project=True)
    session.run("pytest", *(session.posargs or ON_ALL_CORES))


@nox.session
def thorough(session: nox.Session) -> None:
    """Run what the default run takes samples of, to the full, with chance drawn anew; arguments go to pytest."""
    install(session, "tests", is_with_project=True)
    chosen = session.posargs or ["tests/unit", "tests/property", "tests/sim"]
    session.run("pytest", *ON_ALL_CORES, "--thorough", *chosen)


@nox.session
def browser(session: nox.Session) -> None:
    """Use the dashboard in a real browser, Debian's Chromium; arguments after `--` go to pytest.

    `-- --page-minutes 15 -rP tests/browser` looks for a quarter of an hour whether the page's memory stays flat, and
    `-- --pictures tests/browser` makes the pictures of the documentation anew.
    """
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        if os.geteuid() != 0 or not shutil.which("apt-get"):
            session.skip("there is no chromium with its chromedriver, and only root on Debian can install it")
        session.run("apt-get", "-qq", "update", external=True)
        install_packages = ("apt-get", "-qq", "install", "-y", "--no-install-recommends")
        session.run(*install_packages, "chromium", "chromium-driver", external=True, silent=True)
    install(session, "browser", is_with_project=True)
    environment = {"TRIO_KV_BROWSER": "required"}
    if shutil.which("npm"):
        folder = session.create_tmp()
        npm = ("npm", "install", "--silent", "--no-save", "--ignore-scripts")
        session.run(*npm, "--prefix", folder, f"axe-core@{AXE}", external=True)
        environment["AXE"] = str(Path(folder, "node_modules", "axe-core", "axe.min.js").absolute())
    session.run("pytest", *(session.posargs or ["tests/browser"]), env=environment)


@nox.session(python=OLDEST)
def lowest(session: nox.Session) -> None:
    """Run tests of each dependency with the lowest versions that are declared; arguments after `--` go to pytest."""
    keep_bytecode(session)
    session.install("--quiet", "uv")  # pip always takes the highest
    requirements = nox.project.dependency_groups(PYPROJECT, "tests")
    lowest_direct = ("--quiet", "--resolution", "lowest-direct")
    session.run_install("uv", "pip", "install", *lowest_direct, "-e", ".", *requirements)
    ours = (f"--ignore=tests/unit/test_{name}.py" for name in ONLY_OURS)
    # h11, wsproto and trio-websocket are those of the control door; cattrs is that of plans on file.
    others = (
        "tests/integration/test_control.py",
        "tests/integration/test_control_http.py",
        "tests/sim/test_plan_file.py",
    )
    session.run("pytest", *(session.posargs or [*ON_ALL_CORES, "-q", "tests/unit", *ours, *others]))


@nox.session(python=NEWER)
def pythons(session: nox.Session) -> None:
    """Run the unit tests on each newer Python that is found; arguments after `--` go to pytest."""
    install(session, "tests", is_with_project=True)
    session.run("pytest", *(session.posargs or [*ON_ALL_CORES, "tests/unit", "-q"]))


@nox.session
def mutants(session: nox.Session) -> None:
    """Prove that each known bug, put into the code, is found: by how many seeds, or by which test.

    `nox -s mutants -- --record --json figures.json` also writes the seeds down for the default run of the tests.
    """
    install(session, "tests", is_with_project=True)
    session.run("python", "-m", "tests.mutants", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Run the tests and show the branches that none of them took."""
    install(session, "tests", is_with_project=True)
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *session.posargs)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


@nox.session
def soak(session: nox.Session) -> None:
    """Run both simulated worlds for an hour on all cores; arguments after `--` go to bench/soak.py."""
    install(session, is_with_project=True)
    # After Ctrl-C there is a verdict over what was run until then.
    session.run("python", "bench/soak.py", *session.posargs, interrupt_timeout=60.0)


@nox.session
def power_cuts(session: nox.Session) -> None:
    """Cut the power 1,000 times (Linux, root, half an hour); arguments after `--` go to bench/power_cuts.py."""
    install(session, is_with_project=True)
    session.run("python", "bench/power_cuts.py", *session.posargs)


@nox.session(python=[OLDEST, *NEWER])
def determinism(session: nox.Session) -> None:
    """Run 1,000 seeds twice and compare their traces, also between versions; arguments go to bench/determinism.py."""
    install(session, is_with_project=True)
    session.run("python", "bench/determinism.py", *session.posargs)


@nox.session
def speed(session: nox.Session) -> None:
    """Measure how fast the simulated worlds are; arguments after `--` go to bench/speed.py."""
    install(session, is_with_project=True)
    session.run("python", "bench/speed.py", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure speed beside the floor, etcd and PySyncObj (Linux, hours); arguments go to bench/run.py.

    `nox -s bench -- --rows set,mix --pairs 5 --seconds 2` measures a part, and `--page docs/performance.md` puts what
    was measured into the documentation.
    """
    install(session, "bench", is_with_project=True)
    session.run("python", "bench/run.py", *session.posargs)


@nox.session
def fix(session: nox.Session) -> None:
    """Rewrite what ruff can rewrite."""
    install(session, "lint")
    session.run("ruff", "check", "--fix", *PYTHON_PATHS)
    session.run("ruff", "format", *PYTHON_PATHS)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into docs/_build; a warning is an error."""
    install(session, "docs", is_with_project=True)
    session.run("sphinx-build", "-W", "--keep-going", "-q", "docs", "docs/_build")
