"""Plans on file: JSON that holds all that a run depends on, so that it can be repeated anywhere, and edited.

A file has `format`, `world` and `plan`. Each fault says which it is in `fault`. Members that are not known, that are
missing or of another type are refused: a typing error must not become another run.
"""

import functools
import json
from collections.abc import Callable
from typing import Any

import attrs
from cattrs import Converter, transform_error
from cattrs.errors import ForbiddenExtraKeysError

from trio_kv.sim.faults import Fault
from trio_kv.sim.plan import Plan
from trio_kv.sim.worlds import world_kind

FORMAT = 1
TAG = "fault"
PROBLEMS_MAX = 3
"""How many problems of a file are told."""


class BadPlanError(ValueError):
    """A file is no plan; the message says why, for a person."""


@attrs.frozen(kw_only=True)
class PlanFile:
    """What a file holds."""

    format: int = FORMAT
    world: str
    plan: Plan


def fault_classes() -> tuple[type[Fault], ...]:
    """Return all faults there are, by name."""
    return tuple(sorted(_below(Fault), key=lambda each: each.__name__))


def _below(fault: type[Fault]) -> list[type[Fault]]:
    return [each for below in fault.__subclasses__() for each in (below, *_below(below))]


def write_plan(world: str, plan: Plan) -> str:
    """Return the text of a file: lines for people, the same for the same plan."""
    unstructured = _converter().unstructure(PlanFile(world=world, plan=plan))
    return json.dumps(unstructured, indent=1) + "\n"


def read_plan(text: str) -> PlanFile:
    """Return what a file holds.

    Raises:
        BadPlanError: it is no plan of this format.

    """
    try:
        members = json.loads(text)
    except ValueError as error:
        raise BadPlanError(f"it is no JSON: {error}") from error
    if not isinstance(members, dict) or "plan" not in members:
        raise BadPlanError("it is no plan: it has no member `plan`")
    if members.get("format") != FORMAT:
        raise BadPlanError(f"its format is {members.get('format')}, and only {FORMAT} is known")
    try:
        # With a world come its faults.
        world_kind(str(members.get("world")))
    except LookupError as error:
        raise BadPlanError(str(error.args[0])) from error
    try:
        return _converter().structure(members, PlanFile)
    except Exception as error:
        problems = transform_error(error, path="file", format_exception=_explain)
        raise BadPlanError("; ".join(problems[:PROBLEMS_MAX])) from error


def _explain(error: BaseException, _: type | None) -> str:
    match error:
        case ForbiddenExtraKeysError():
            return f"not known: {', '.join(sorted(error.extra_fields))}"
        case KeyError():
            return "missing"
        case _:
            return str(error)


@functools.cache
def _converter() -> Converter:
    converter = Converter(forbid_extra_keys=True)
    for kind in (int, float, bool, str):
        converter.register_structure_hook(kind, _strict(kind))
    # Lines of clients need not be UTF-8: each byte is written as the character of its number.
    converter.register_structure_hook(bytes, lambda text, _: _text(text).encode("latin-1"))
    converter.register_unstructure_hook(bytes, lambda data: data.decode("latin-1"))
    converter.register_structure_hook_func(lambda kind: kind is Fault, _structure_fault)
    converter.register_unstructure_hook_func(lambda kind: kind is Fault, _unstructure_fault)
    return converter


def _strict(kind: type) -> Callable[[Any, Any], Any]:
    """Return what takes a value as it stands: cattrs would make 7 of "7", and True of 2."""
    allowed = (int, float) if kind is float else (kind,)

    def structure(value: Any, _: Any) -> Any:
        # To Python a bool is an int, to a person it is not.
        if not isinstance(value, allowed) or isinstance(value, bool) is not (kind is bool):
            raise TypeError(f"{value!r} is no {kind.__name__}")
        return kind(value)

    return structure


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _structure_fault(members: Any, _: Any) -> Fault:
    classes = {each.__name__: each for each in fault_classes()}
    if not isinstance(members, dict) or members.get(TAG) not in classes:
        tag = members.get(TAG) if isinstance(members, dict) else members
        raise TypeError(f"there is no fault {tag!r}: there are {', '.join(classes)}")
    kind = classes[members[TAG]]
    return _converter().structure({name: value for name, value in members.items() if name != TAG}, kind)


def _unstructure_fault(fault: Fault) -> dict[str, Any]:
    # A plan declares all of them as `Fault`; each is written as the class that it is.
    return {TAG: type(fault).__name__, **_converter().unstructure(fault, unstructure_as=type(fault))}
