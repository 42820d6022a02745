"""Route templates of HTTP functions, as ASP.NET has them: `orders/{id:int}`, `files/{*path}`, `list/{page?}`.

A segment is a literal, one parameter, or a mixture such as `{name}.{extension}`. Literals ignore case. Of several
routes that fit, the one whose first differing segment is the more specific wins: a literal before a mixture or a
constrained parameter, before a plain parameter, before a constrained catch-all, before a catch-all.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from devhost.errors import RouteInvalid

type Check = Callable[[str], bool]

LITERAL, CONSTRAINED, PLAIN, CONSTRAINED_CATCH_ALL, CATCH_ALL = 1, 2, 3, 4, 5
"""Precedence of a segment, the smaller the more specific."""

_PARAMETER = re.compile(r"(?P<stars>\*{0,2})(?P<name>[^:=?*{}/]+)(?P<rest>.*)", re.DOTALL)
_CONSTRAINT = re.compile(r":(?P<kind>\w+)(?:\((?P<argument>(?:[^()]|\([^()]*\))*)\))?")


@dataclass(frozen=True, slots=True)
class _Parameter:
    name: str
    checks: tuple[Check, ...]
    optional: bool
    catch_all: bool
    default: str | None

    @property
    def precedence(self) -> int:
        if self.catch_all:
            return CONSTRAINED_CATCH_ALL if self.checks else CATCH_ALL
        return CONSTRAINED if self.checks else PLAIN


@dataclass(frozen=True, slots=True)
class Route:
    """One template, ready to match paths."""

    template: str
    methods: frozenset[str] | None
    precedence: tuple[int, ...]
    _pattern: re.Pattern[str] = field(repr=False)
    _parameters: tuple[_Parameter, ...] = field(repr=False)

    def match(self, path: str) -> dict[str, str] | None:
        """The route's parameters in a decoded path, or None when it does not fit. Absent optional ones are left out."""
        found = self._pattern.fullmatch("/" + path.strip("/") if path.strip("/") else "")
        if found is None:
            return None
        values: dict[str, str] = {}
        for parameter, text in zip(self._parameters, found.groups(), strict=True):
            value = text or parameter.default
            if value is None and not parameter.catch_all:
                continue
            checked = text or ("" if value is None else None)  # a default is not checked, an empty catch-all is
            if checked is not None and not all(check(checked) for check in parameter.checks):
                return None
            if value is None:
                continue
            values[parameter.name] = value
        return values


class RouteTable[Target]:
    """Finds what a request is for."""

    def __init__(self) -> None:
        self._routes: list[tuple[Route, Target]] = []

    def add(self, template: str, methods: Collection[str] | None, target: Target) -> Route:
        """Adds a route; `methods` None stands for all. Raises RouteInvalid."""
        route = parse(template, methods)
        self._routes.append((route, target))
        self._routes.sort(key=lambda entry: entry[0].precedence)
        return route

    def find(self, method: str, path: str) -> tuple[Target, dict[str, str]] | None:
        """The target and its route parameters. None also for a method that the route does not take: that is a 404."""
        for route, target in self._routes:
            if route.methods is None or method in route.methods:
                parameters = route.match(path)
                if parameters is not None:
                    return target, parameters
        return None


def parse(template: str, methods: Collection[str] | None = None) -> Route:
    """A route from its template. Raises RouteInvalid."""
    pattern: list[str] = []
    precedence: list[int] = []
    parameters: list[_Parameter] = []
    for segment in _segments(template):
        if parameters and parameters[-1].catch_all:
            raise RouteInvalid(template, "goes on after its catch-all parameter")
        pieces = _pieces(template, segment)
        new = [piece for piece in pieces if isinstance(piece, _Parameter)]
        if len(pieces) == 1 and new:
            pattern.append(_single(new[0]))
            precedence.append(new[0].precedence)
        else:
            pattern.append("/" + _mixture(template, segment, pieces))
            precedence.append(CONSTRAINED if new else LITERAL)
        parameters += new
    names = [parameter.name.lower() for parameter in parameters]
    if len(set(names)) < len(names):
        raise RouteInvalid(template, "names a parameter twice")
    return Route(
        template=template.strip("/"),
        methods=frozenset(method.upper() for method in methods) if methods else None,
        precedence=tuple(precedence),
        _pattern=re.compile("".join(pattern), re.IGNORECASE | re.DOTALL),
        _parameters=tuple(parameters),
    )


def _single(parameter: _Parameter) -> str:
    if parameter.catch_all:
        return "(?:/(.*))?"
    return "(?:/([^/]+))?" if parameter.optional or parameter.default is not None else "/([^/]+)"


def _mixture(template: str, segment: str, pieces: Sequence[str | _Parameter]) -> str:
    """Text and parameters in one segment. The last one may be optional after a period, which then comes with it."""
    extension = ""
    match pieces:
        case [*others, ".", _Parameter(optional=True, catch_all=False)] if others:
            pieces, extension = others, r"(?:\.([^/.]+)|(?<!\.))"
    if any(isinstance(each, _Parameter) and (each.optional or each.catch_all or each.default) for each in pieces):
        raise RouteInvalid(template, f"has an optional, default or catch-all parameter inside {segment!r}")
    parameter = "([^/]+?)" if extension else "([^/]+)"  # the extension is what follows the last period
    return "".join(re.escape(piece) if isinstance(piece, str) else parameter for piece in pieces) + extension


def _segments(template: str) -> list[str]:
    """The template at its slashes, except those inside braces, where a regex constraint may have some."""
    segments, depth = [""], 0
    for character in template:
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth < 0:
            raise RouteInvalid(template, "closes a brace that it has not opened")
        if character == "/" and depth == 0:
            segments.append("")
        else:
            segments[-1] += character
    if depth:
        raise RouteInvalid(template, "does not close a brace")
    return [segment for segment in segments if segment]


def _pieces(template: str, segment: str) -> list[str | _Parameter]:
    """Literal text and parameters of a segment, in order."""
    pieces: list[str | _Parameter] = []
    start, depth = 0, 0
    for position, character in enumerate(segment):
        if character == "{":
            if depth == 0 and position > start:
                pieces.append(segment[start:position])
            if depth == 0:
                start = position + 1
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                pieces.append(_parameter(template, segment[start:position]))
                start = position + 1
    if start < len(segment):
        pieces.append(segment[start:])
    return pieces


def _parameter(template: str, text: str) -> _Parameter:
    found = _PARAMETER.fullmatch(text)
    if found is None:
        raise RouteInvalid(template, f"has a parameter without a name: {{{text}}}")
    rest = found["rest"]
    checks: list[Check] = []
    while constraint := _CONSTRAINT.match(rest):
        checks.append(_check(template, constraint["kind"].lower(), constraint["argument"]))
        rest = rest[constraint.end() :]
    optional = rest.endswith("?") and not rest.startswith("=")
    default = rest[1:] if rest.startswith("=") else None
    if default is None and rest not in {"", "?"}:
        raise RouteInvalid(template, f"has a parameter that cannot be read: {{{text}}}")
    return _Parameter(found["name"], tuple(checks), optional, bool(found["stars"]), default)


def _fits(pattern: str) -> Check:
    compiled = re.compile(pattern, re.IGNORECASE)
    return lambda value: compiled.fullmatch(value) is not None


def _is_guid(value: str) -> bool:
    try:
        uuid.UUID(value)
    except ValueError:
        return False
    return True


def _within(low: int | None, high: int | None, measure: Callable[[str], int]) -> Check:
    def check(value: str) -> bool:
        try:
            number = measure(value)
        except ValueError:
            return False
        return (low is None or number >= low) and (high is None or number <= high)

    return check


def _whole(text: str) -> int:
    """As .NET reads whole numbers: no underscores, no digits of other scripts. Raises ValueError."""
    if not text.isascii() or "_" in text:
        raise ValueError(f"{text!r} is no whole number")
    return int(text)


_INT32, _INT64 = 2**31, 2**63
_REAL = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?"
_SIMPLE: Mapping[str, Check] = {
    "int": _within(-_INT32, _INT32 - 1, _whole),
    "long": _within(-_INT64, _INT64 - 1, _whole),
    "bool": _fits("true|false"),
    "alpha": _fits("[a-z]+"),
    "guid": _is_guid,
    "decimal": _fits(r"[-+]?(?:\d+\.?\d*|\.\d+)"),
    "double": _fits(_REAL),
    "float": _fits(_REAL),
    "datetime": _fits(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}.*"),
    "required": bool,
    "file": lambda value: "." in value,
    "nonfile": lambda value: "." not in value,
}


_MEASURED: Mapping[str, Callable[[int, int], Check]] = {
    "min": lambda low, _: _within(low, None, _whole),
    "max": lambda high, _: _within(None, high, _whole),
    "range": lambda low, high: _within(low, high, _whole),
    "length": lambda low, high: _within(low, high, len),
    "minlength": lambda low, _: _within(low, None, len),
    "maxlength": lambda high, _: _within(None, high, len),
}


def _check(template: str, kind: str, argument: str | None) -> Check:
    """The test that a constraint stands for."""
    if argument is None and kind in _SIMPLE:
        return _SIMPLE[kind]
    if argument is None or kind not in {"regex", *_MEASURED}:
        raise RouteInvalid(template, f"has an unknown constraint {kind!r}")
    try:
        if kind == "regex":
            compiled = re.compile(argument.replace("{{", "{").replace("}}", "}"), re.IGNORECASE)
            return lambda value: compiled.search(value) is not None
        numbers = [int(number) for number in argument.split(",")]
        return _MEASURED[kind](numbers[0], numbers[-1])
    except (ValueError, re.error) as error:
        raise RouteInvalid(template, f"has a constraint {kind}({argument}) that cannot be read: {error}") from error
