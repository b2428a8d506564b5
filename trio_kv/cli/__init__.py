"""The command line: `python -m trio_kv`, also installed as `trio-kv`."""
