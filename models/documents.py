"""Stored documents as dataclasses, read by whatever version of the code there is.

While a new version is rolled out, the old one reads what the new one has written. So a field that the reader does not
know is passed over, and one that the writer did not know yet has its default. What is known has to be of its type.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeAliasType, Union, cast, get_args, get_origin, get_type_hints


def read_document[T](kind: type[T], data: Any, *, schema: int | None = None) -> T:
    """An instance of the dataclass `kind` from plain JSON types. Its fields may be str, int, float, bool, None, Any,
    literals, dataclasses, unions of these, and tuples and mappings from names of these.

    Raises TypeError when a field is missing or of another type, and ValueError when the document's `schema` has to be
    a certain one and is another.
    """
    if schema is not None and isinstance(data, Mapping) and data.get("schema") != schema:
        raise ValueError(f"{kind.__name__} has schema {data.get('schema')!r:.60}; this code reads {schema}")
    return cast("T", _dataclass(kind, data, kind.__name__))


@cache
def _hints(kind: type) -> Mapping[str, Any]:
    return get_type_hints(kind)


def _dataclass(kind: Any, data: Any, where: str) -> Any:
    if not isinstance(data, Mapping):
        raise TypeError(f"{where} is no object")
    hints, values = _hints(kind), {}
    for field in fields(kind):
        if not field.init:
            continue
        if field.name in data:
            values[field.name] = _value(hints[field.name], data[field.name], f"{where}.{field.name}")
        elif field.default is MISSING and field.default_factory is MISSING:
            raise TypeError(f"{where}.{field.name} is missing")
    return kind(**values)


def _value(kind: Any, value: Any, where: str) -> Any:
    if isinstance(kind, TypeAliasType):
        return _value(kind.__value__, value, where)
    if is_dataclass(kind):
        return _dataclass(kind, value, where)
    origin, inner = get_origin(kind), get_args(kind)
    if origin in {Union, types.UnionType}:
        return _one_of(inner, value, where)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_value(inner[0], each, f"{where}[]") for each in value)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, Mapping):
        return {str(name): _value(inner[1], each, f"{where}.{name}") for name, each in value.items()}
    if _fits(kind, value):
        return value
    raise TypeError(f"{where} is {value!r:.60}, no {getattr(kind, '__name__', kind)}")


def _one_of(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    for kind in kinds[:-1]:
        try:
            return _value(kind, value, where)
        except TypeError:
            continue
    return _value(kinds[-1], value, where)


def _fits(kind: Any, value: Any) -> bool:
    if kind is Any:
        return True
    if get_origin(kind) is Literal:
        return value in get_args(kind) and not isinstance(value, bool)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return kind in {str, bool, type(None)} and isinstance(value, kind)
