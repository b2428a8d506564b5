"""`python -m trio_kv` is the command `trio-kv`."""

from trio_kv.cli.main import run

if __name__ == "__main__":
    run()
