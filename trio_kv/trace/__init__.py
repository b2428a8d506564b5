"""Telling what happened: the vocabulary of events, the trace that stamps them, sinks and a reader."""
