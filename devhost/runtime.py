"""The Python language worker itself, inside a worker process: finds the app's functions and calls them.

Both are done by azure-functions-runtime, the library that the cloud's worker runs on. Indexing wants the names of a few
protobuf messages, for which plain namespaces stand in, and calls go through the library's entry without protobuf.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
import types
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from azure_functions_runtime import handle_event, native_invocation
from azure_functions_runtime.bindings.datumdef import Datum as WorkerDatum
from azure_functions_runtime.bindings.meta import load_binding_registry
from azure_functions_runtime.utils.threadpool import start_threadpool_executor

from devhost.protocol import Datum, FunctionInfo, Invocation, Outcome


class _BindingInfo(types.SimpleNamespace):
    """Stands in for the message of that name; the directions are the numbers of the real enumeration."""

    in_ = 0
    out = 1
    inout = 2
    undefined = 0


class _Messages:
    """The protobuf names that indexing uses."""

    BindingInfo = _BindingInfo
    RpcFunctionMetadata = types.SimpleNamespace
    RpcRetryOptions = types.SimpleNamespace


def index(app_dir: str) -> tuple[FunctionInfo, ...]:
    """The app's functions. Raises whatever the app raises while it is imported.

    The working directory becomes `app_dir` first: azure.durable_functions reads host.json from there at import.
    """
    os.chdir(app_dir)
    if app_dir not in sys.path:
        sys.path.insert(0, app_dir)
    handle_event.protos = _Messages
    # The cloud's worker reports an exception as `Type: message`, this entry as repr(exception).
    native_invocation.repr = _described
    load_binding_registry()
    handle_event.load_function_metadata(app_dir, caller_info="devhost")
    start_threadpool_executor()
    return tuple(
        FunctionInfo(
            id=metadata.function_id,
            name=metadata.name,
            bindings=tuple(json.loads(binding) for binding in metadata.raw_bindings),
            retry=None if metadata.retry_options is None else _retry(vars(metadata.retry_options)),
        )
        for metadata in handle_event._metadata_result or ()
    )


async def invoke(invocation_id: str, invocation: Invocation) -> Outcome:
    """Calls one function. A function that fails gives an Outcome with ok = False; this never raises for it."""
    try:
        ok, value, outputs, error, trace = await native_invocation.invocation_request_native(
            invocation_id,
            invocation.function_id,
            [(name, _inward(datum)) for name, datum in invocation.inputs],
            {name: _inward(datum) for name, datum in invocation.metadata.items()},
            trace_parent=invocation.trace_parent,
            trace_state=invocation.trace_state,
            retry_count=invocation.retry_count,
            max_retry_count=invocation.max_retry_count,
        )
        return Outcome(
            ok=ok,
            value=_outward(value),
            outputs=tuple((name, datum) for name, item in outputs if (datum := _outward(item)) is not None),
            error=error or "",
            traceback=trace or "",
        )
    except (Exception, SystemExit) as error:  # a function that calls sys.exit() must not take its neighbours along
        return Outcome(ok=False, error=_described(error), traceback=traceback.format_exc())


def _described(value: object) -> str:
    return f"{type(value).__name__}: {value}" if isinstance(value, BaseException) else repr(value)


def _retry(options: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v.total_seconds() if isinstance(v, timedelta) else v for k, v in options.items()}


def _inward(datum: Datum) -> Any:
    kind, value = datum
    if kind != "http":
        return WorkerDatum(value, kind)
    method, url, headers, body, parameters, query = value
    request = {
        "method": WorkerDatum(method, "string"),
        "url": WorkerDatum(url, "string"),
        "headers": _strings(headers),
        "body": WorkerDatum(body, "bytes"),
        "params": _strings(parameters),
        "query": _strings(query),
    }
    return WorkerDatum(request, "http")


def _strings(values: Mapping[str, str]) -> dict[str, Any]:
    return {name: WorkerDatum(value, "string") for name, value in values.items()}


def _outward(datum: Any) -> Datum | None:
    """What the library returns, as plain values: subclasses of str or bytes do not go over the socket."""
    if datum is None or datum.type is None:
        return None
    match datum.type:
        case "http":
            return ("http", _response(datum.value))
        case "dict" | "list":
            return ("json", json.dumps(datum.value))
        case "bool":
            return ("int", int(datum.value))
        case "bytes":
            return ("bytes", bytes(datum.value))
        case "string" | "json":
            return (datum.type, str(datum.value))
        case _:
            return (datum.type, datum.value)


def _response(value: Mapping[str, Any]) -> tuple[int, list[tuple[str, str]], bytes]:
    headers = [(str(name), str(item.value)) for name, item in value["headers"].items()]
    cookies = [morsel.OutputString() for jar in value.get("cookies") or () for morsel in jar.values()]
    headers += [("set-cookie", cookie) for cookie in cookies]
    return int(value["status_code"].value), headers, bytes(value["body"].value)
