"""Bytes to objects and back: the client protocol, and what nodes say to each other."""
