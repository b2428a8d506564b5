"""How deep a JSON text is nested, told without recursion and at the speed of `bytes.replace`.

The same limit holds at the door and inside the state machine: a parser that recurses must never meet a text
whose depth decides whether it has stack enough, for that would depend on the node.
"""

NESTING_MAX = 128
"""Arrays and objects that may stand one inside the other in a value; the door refuses a deeper one."""

_to_square = bytes.maketrans(b"{}", b"[]")
_all_but_brackets_and_quotes = bytes(code for code in range(256) if code not in b'[]{}"')


def is_nested_deeper(text: bytes, depth_max: int) -> bool:
    """Tell whether arrays and objects stand more than `depth_max` deep in a JSON text.

    Of a text that is not JSON it is only promised that the verdict depends on nothing but its bytes.
    """
    if len(text) <= 2 * depth_max or text.count(b"[") + text.count(b"{") <= depth_max:
        return False
    brackets = _find_brackets(text)
    # Each pass takes the innermost pair off every branch, so the text is one level shallower after it.
    for level in range(depth_max):
        shallower = brackets.replace(b"[]", b"")
        if len(shallower) == len(brackets):
            break
        if len(shallower) > len(brackets) * 9 // 10:
            # Few branches, and long ones: to go from tip to tip is quicker than pass after pass.
            return _measure(shallower) > depth_max - level - 1
        brackets = shallower
    return bool(brackets)


def _find_brackets(text: bytes) -> bytes:
    """Return the brackets of a JSON text that stand outside of strings, all of them square."""
    if b"\\" in text:
        text = text.replace(rb"\\", b"").replace(rb"\"", b"")
    # Two quotes in a row are an empty string, or where one string ends and the next one begins: without them what is
    # inside of strings stays inside.
    marks = text.translate(_to_square, _all_but_brackets_and_quotes).replace(b'""', b"")
    return b"".join(marks.split(b'"')[::2]) if b'"' in marks else marks


def _measure(brackets: bytes) -> int:
    """Return how deep square brackets are nested, branch by branch."""
    deepest, depth = 0, -1
    for branch in brackets.split(b"]["):
        # Some opening ones and then closing ones; one of each was taken by the cuts at its two ends.
        opened = branch.rfind(b"[") + 1
        tip = depth + 1 + opened
        deepest = max(deepest, tip)
        depth = tip - (len(branch) - opened) - 1
    return deepest
