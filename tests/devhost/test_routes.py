from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devhost.errors import RouteInvalid
from devhost.routes import RouteTable, parse

GUID = "6f9619ff-8b86-d011-b42d-00c04fc964ff"


@pytest.mark.parametrize(
    ("template", "path", "expected"),
    [
        ("orders", "/orders", {}),
        ("orders", "/Orders/", {}),
        ("orders", "/order", None),
        ("", "/", {}),
        ("", "/x", None),
        ("orders/{id}", "/orders/7", {"id": "7"}),
        ("orders/{id}", "/orders", None),
        ("orders/{id}", "/orders/7/8", None),
        ("orders/{id?}", "/orders", {}),
        ("orders/{id?}", "/orders/7", {"id": "7"}),
        ("orders/{id=9}", "/orders", {"id": "9"}),
        ("{a?}/{b?}", "/", {}),
        ("{a?}/{b?}", "/x", {"a": "x"}),
        ("{a?}/{b?}", "/x/y", {"a": "x", "b": "y"}),
        ("orders/{id:int}", "/orders/-7", {"id": "-7"}),
        ("orders/{id:int}", "/orders/seven", None),
        ("orders/{id:int}", "/orders/4294967296", None),
        ("orders/{id:long}", "/orders/4294967296", {"id": "4294967296"}),
        ("orders/{id:int?}", "/orders", {}),
        ("orders/{id:int?}", "/orders/x", None),
        ("{on:bool}", "/True", {"on": "True"}),
        ("{on:bool}", "/yes", None),
        ("{id:guid}", f"/{GUID}", {"id": GUID}),
        ("{id:guid}", "/not-one", None),
        ("{name:alpha}", "/abc", {"name": "abc"}),
        ("{name:alpha}", "/ab1", None),
        ("{x:double}", "/1.5e3", {"x": "1.5e3"}),
        ("{day:datetime}", "/2026-11-24", {"day": "2026-11-24"}),
        ("{n:range(1,3)}", "/3", {"n": "3"}),
        ("{n:range(1,3)}", "/4", None),
        ("{n:min(2)}", "/1", None),
        ("{n:min(2):max(4)}", "/4", {"n": "4"}),
        ("{n:min(2):max(4)}", "/5", None),
        ("{s:length(2)}", "/ab", {"s": "ab"}),
        ("{s:length(2,3)}", "/abcd", None),
        ("{s:minlength(2)}", "/a", None),
        ("{s:maxlength(2)}", "/abc", None),
        ("{v:regex(^v\\d+$)}", "/v12", {"v": "v12"}),
        ("{v:regex(^v\\d+$)}", "/12", None),
        ("{v:regex(^\\d{{2}}$)}", "/12", {"v": "12"}),
        ("{v:regex(^\\d{{2}}$)}", "/123", None),
        ("files/{*path}", "/files/a/b.txt", {"path": "a/b.txt"}),
        ("files/{**path}", "/files/a/b.txt", {"path": "a/b.txt"}),
        ("files/{*path}", "/files", {}),
        ("files/{name}.{ext}", "/files/a.b.txt", {"name": "a.b", "ext": "txt"}),
        ("files/{name}.{ext}", "/files/a", None),
        ("files/{name}.{ext?}", "/files/a.b.txt", {"name": "a.b", "ext": "txt"}),
        ("files/{name}.{ext?}", "/files/a", {"name": "a"}),
        ("files/{name}.{ext?}", "/files/..txt", {"name": ".", "ext": "txt"}),
        ("files/{name}.{ext?}", "/files/a.", None),
        ("v{version:int}/x", "/v2/x", {"version": "2"}),
        ("v{version:int}/x", "/vv/x", None),
        ("{id:int}", "/1_0", None),
        ("{id:int}", "/\u0665", None),
        ("{id:min(1)}", "/1_0", None),
        ("{model-name}/infer", "/flights/infer", {"model-name": "flights"}),
    ],
)
def test_templates(template: str, path: str, expected: dict[str, str] | None) -> None:
    assert parse(template).match(path) == expected


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("a/{b", "does not close"),
        ("a/b}", "has not opened"),
        ("a/{*rest}/b", "catch-all"),
        ("a/{}", "without a name"),
        ("{a}/{A}", "twice"),
        ("readme.{ext?}", "optional, default or catch-all parameter inside"),
        ("{a?}.{b}", "optional, default or catch-all parameter inside"),
        ("{a:prime}", "unknown constraint 'prime'"),
        ("{a:range(one,two)}", "cannot be read"),
        ("{a:regex([)}", "cannot be read"),
        ("x{a?}y", "inside"),
    ],
)
def test_mistakes_are_named(template: str, complaint: str) -> None:
    with pytest.raises(RouteInvalid, match="The route") as caught:
        parse(template)
    assert complaint in str(caught.value)
    assert template in str(caught.value)


@pytest.mark.parametrize(
    ("path", "winner"),
    [
        ("/a/b", "a/b"),
        ("/a/7", "a/{id:int}"),
        ("/a/x", "a/{name}"),
        ("/a/7/y", "a/{*rest:required}"),
        ("/a", "{*all}"),
        ("/q/r", "{*all}"),
    ],
)
def test_the_more_specific_route_wins_whatever_the_order(path: str, winner: str) -> None:
    templates = ["{*all}", "a/{*rest:required}", "a/{name}", "a/{id:int}", "a/b"]
    for order in (templates, templates[::-1]):
        table: RouteTable[str] = RouteTable()
        for template in order:
            table.add(template, None, template)
        found = table.find("GET", path)
        assert found is not None
        assert found[0] == winner


def test_a_method_that_the_route_does_not_take_finds_the_next_route_or_nothing() -> None:
    table: RouteTable[str] = RouteTable()
    table.add("a", ["get"], "reads")
    table.add("{x}", ["POST"], "writes")
    assert table.find("GET", "/a") == ("reads", {})
    assert table.find("POST", "/a") == ("writes", {"x": "a"})
    assert table.find("PUT", "/a") is None


names = st.from_regex(r"[a-z][a-z_-]{0,8}", fullmatch=True)
values = st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1, max_size=12)


@given(
    st.lists(st.tuples(names, values), max_size=5, unique_by=lambda pair: pair[0]),
    st.lists(names, min_size=5, max_size=5),
)
def test_a_path_made_from_a_template_gives_back_what_it_was_made_from(
    parameters: list[tuple[str, str]], literals: list[str]
) -> None:
    pairs = list(zip(literals, parameters, strict=False))
    template = "/".join(f"{literal}/{{{name}}}" for literal, (name, _) in pairs)
    path = "".join(f"/{literal}/{value}" for literal, (_, value) in pairs)
    assert parse(template).match(path) == dict(parameters)


@given(values, values)
def test_a_catch_all_takes_all_of_the_rest(first: str, second: str) -> None:
    assert parse("files/{*path}").match(f"/files/{first}/{second}") == {"path": f"{first}/{second}"}
