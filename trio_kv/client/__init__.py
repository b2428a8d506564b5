"""Clients: a synchronous one over a plain socket, and one for the control door. They use `wire` alone."""
