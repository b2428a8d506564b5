"""The whole world: the real supervisor, nodes, network, gateway and door under Trio, in virtual time and from a seed.

What is not real: the clock, the disks and the client's sockets, which are twins without threads and files.
"""
