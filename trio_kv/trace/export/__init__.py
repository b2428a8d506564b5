"""Traces in the formats of viewers that people have. Each module yields the text of its format, piece by piece.

All take records, and `is_shown`, which says which of them are to be seen: the others count for causes all the same.
"""
