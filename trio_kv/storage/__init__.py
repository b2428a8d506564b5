"""The disk: the write-ahead log, the thread that writes it, the data directory, and their twins in memory."""
