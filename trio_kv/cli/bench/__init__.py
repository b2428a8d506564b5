"""`bench`: loads a server of the protocol, and reports how fast it answered, and whether it answered right."""
