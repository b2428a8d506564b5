"""The port `Store` and what stands behind it: sessions, retries, hedging and error classes, in one place."""
