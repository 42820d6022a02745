"""The inference functions as a WSGI application, without a host: routes, functions and answers are the app's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

import azure.functions as func

from devhost.routes import RouteTable
from triggers import inference

type Environ = dict[str, Any]
type Start = Callable[[str, list[tuple[str, str]]], Any]


def application() -> Callable[[Environ, Start], Iterable[bytes]]:
    app = func.FunctionApp()
    app.register_functions(inference.blueprint)
    routes: RouteTable[Callable[[func.HttpRequest], Coroutine[Any, Any, func.HttpResponse]]] = RouteTable()
    for function in app.get_functions():
        trigger: Any = function.get_trigger()
        routes.add(trigger.route, [str(getattr(m, "value", m)) for m in trigger.methods], function.get_user_function())

    def serve(environ: Environ, start: Start) -> Iterable[bytes]:
        found = routes.find(environ["REQUEST_METHOD"], environ["PATH_INFO"].encode("latin-1").decode(errors="replace"))
        if found is None:
            start("404 Not Found", [])
            return [b""]
        function, parameters = found
        response = asyncio.run(function(_request(environ, parameters)))
        start(f"{response.status_code} {HTTPStatus(response.status_code).phrase}", list(response.headers.items()))
        return [response.get_body()]

    return serve


def _request(environ: Environ, parameters: dict[str, str]) -> func.HttpRequest:
    headers = {name[5:].replace("_", "-").lower(): text for name, text in environ.items() if name.startswith("HTTP_")}
    if environ.get("CONTENT_TYPE"):
        headers["content-type"] = environ["CONTENT_TYPE"]
    return func.HttpRequest(
        method=environ["REQUEST_METHOD"],
        url=environ["PATH_INFO"],
        headers=headers,
        params=dict(parse_qsl(environ.get("QUERY_STRING", ""))),
        route_params=parameters,
        body=environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)),
    )
