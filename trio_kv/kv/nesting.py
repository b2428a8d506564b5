"""How deep a JSON text is nested, told without recursion and mostly at the speed of `bytes.replace`.

The same limit holds at the door and inside the state machine: a parser that recurses must never meet a text
whose depth decides whether it has stack enough, for that would depend on the node.
"""

import re

NESTING_MAX = 128
"""Arrays and objects that may stand one inside the other in a value; the door refuses a deeper one."""

_strings = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_to_square = bytes.maketrans(b"{}", b"[]")
_all_but_brackets = bytes(code for code in range(256) if code not in b"[]{}")


def is_nested_deeper(text: bytes, depth_max: int) -> bool:
    """Tell whether arrays and objects stand more than `depth_max` deep in a JSON text.

    Of a text that is not JSON it is only promised that the verdict depends on nothing but its bytes.
    """
    if len(text) <= 2 * depth_max or text.count(b"[") + text.count(b"{") <= depth_max:
        return False
    brackets = _strings.sub(b"", text).translate(_to_square, _all_but_brackets)
    # Each pass takes the innermost pair off every branch, so the text is one level shallower after it.
    for _ in range(depth_max):
        shallower = brackets.replace(b"[]", b"")
        if len(shallower) == len(brackets):
            break
        brackets = shallower
    return bool(brackets)
