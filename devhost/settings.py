"""What the app and its surroundings say about hosting it: host.json, local.settings.json and the environment.

The real environment goes over the `Values` of local.settings.json, as under Core Tools, and an environment variable
such as AzureFunctionsJobHost__functionTimeout goes over the same entry of host.json, as in the cloud.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from devhost.durable.versions import FAILURE_STRATEGIES, MATCH_STRATEGIES, Versions
from devhost.errors import SettingMissing, SettingsInvalid
from devhost.ports import LAST_PORT

OVERRIDE_PREFIX = "AzureFunctionsJobHost__"
DEFAULT_ROUTE_PREFIX = "api"
DEFAULT_HUB = "TestHubName"
DEFAULT_FUNCTION_TIMEOUT = "00:30:00"
UNLIMITED = "-1"
FUNCTIONS_PER_PROCESSOR = 10
"""The Durable extension's default for concurrent orchestrators, and for activities, on each processor."""
BODY_LIMIT_SETTING = "FUNCTIONS_REQUEST_BODY_SIZE_LIMIT"
DEFAULT_BODY_LIMIT = 100 * 2**20
"""Bytes of the largest request body, unless the setting says otherwise. As in the cloud."""

LOCAL_SETTINGS = "local.settings.json"
MOST_MESSAGES = 32
"""Messages of the largest batch that Queue Storage gives out at once."""
HONOURED: Mapping[str, Any] = {
    "$schema": None,
    "version": None,
    "extensionBundle": None,
    "functionTimeout": None,
    "logging": {"logLevel": {"default": None}},
    "extensions": {
        "http": {"routePrefix": None},
        "queues": dict.fromkeys(
            (
                "batchSize",
                "maxDequeueCount",
                "maxPollingInterval",
                "messageEncoding",
                "newBatchThreshold",
                "visibilityTimeout",
            )
        ),
        "durableTask": dict.fromkeys(
            (
                "defaultVersion",
                "hubName",
                "maxConcurrentActivityFunctions",
                "maxConcurrentOrchestratorFunctions",
                "versionFailureStrategy",
                "versionMatchStrategy",
            )
        ),
    },
}
"""What of host.json has an effect here, or needs none: the versions of the file and of the extensions."""

LOCALLY_HONOURED: Mapping[str, Any] = {"IsEncrypted": None, "Values": None, "Host": {"LocalHttpPort": None}}
"""What of local.settings.json has an effect here."""

_REFERENCE = re.compile(r"%([^%]+)%")
_TIME_SPAN = re.compile(
    r"(?:(?P<days>\d+)\.)?(?P<hours>\d{1,2}):(?P<minutes>[0-5]?\d)(?::(?P<seconds>[0-5]?\d(?:\.\d{1,7})?))?"
)
_LOG_LEVELS: Mapping[str, str] = {
    "trace": "DEBUG",
    "debug": "DEBUG",
    "information": "INFO",
    "warning": "WARNING",
    "error": "ERROR",
    "critical": "CRITICAL",
    "none": "CRITICAL",
}


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """extensions.queues of host.json, with the cloud's defaults. Times are in seconds.

    A new batch is fetched once no more than `new_batch_threshold` messages of a function are under way.
    `max_polling_interval` is the longest pause between two looks into an empty queue.
    """

    base64_text: bool = True
    batch_size: int = 16
    new_batch_threshold: int = 8
    max_dequeue_count: int = 5
    visibility_timeout: float = 0.0
    max_polling_interval: float = 2.0


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """What local.settings.json says. `values` may hold secrets; `port` is LocalHttpPort, where there is one.

    `ignored` names what has no effect here.
    """

    values: Mapping[str, str] = field(default_factory=dict, repr=False)
    port: int | None = None
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one hosted app. `environment` is what its functions see; it may hold secrets, so repr leaves it out.

    `function_timeout` is in seconds, None for no limit; `max_orchestrators` and `max_activities` count for the host
    as a whole, whatever its workers, as in the cloud; `log_level` is a level of the logging module; `body_limit` is in
    bytes; `local` is what local.settings.json says. `ignored` names what host.json says without effect here.
    """

    app_dir: Path
    environment: Mapping[str, str]
    route_prefix: str
    function_timeout: float | None
    log_level: str
    hub: str
    max_orchestrators: int
    max_activities: int
    body_limit: int
    queues: QueueSettings = field(default_factory=QueueSettings)
    versions: Versions = field(default_factory=Versions)
    local: LocalSettings = field(default_factory=LocalSettings)
    ignored: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Settings(app_dir={self.app_dir!r}, route_prefix={self.route_prefix!r}, hub={self.hub!r})"

    def resolve(self, text: str, *, wanted_by: str) -> str:
        """`text` with every %SETTING% replaced by its value. Raises SettingMissing, which names `wanted_by`."""
        return resolve(text, self.environment, wanted_by=wanted_by)

    def is_disabled(self, function: str) -> bool:
        """Whether AzureWebJobs.NAME.Disabled (or with underscores, for shells) takes the function out of service."""
        names = (f"AzureWebJobs.{function}.Disabled", f"AzureWebJobs_{function}_Disabled")
        return any(self.environment.get(name, "").strip().lower() in {"true", "1"} for name in names)


def load(app_dir: Path, environ: Mapping[str, str] | None = None) -> Settings:
    """Reads the settings of the app in `app_dir`. Raises SettingsInvalid and SettingMissing."""
    host_file = app_dir / "host.json"
    if not host_file.is_file():
        raise SettingsInvalid(
            host_file, "there is no such file, so this is no function app; name its folder with --app"
        )
    local = local_settings(app_dir)
    environment = {**local.values, **(os.environ if environ is None else environ)}
    host = _overridden(_object(host_file), environment)
    durable = _section(host_file, host, "extensions", "durableTask")
    http = _section(host_file, host, "extensions", "http")
    levels = _section(host_file, host, "logging", "logLevel")
    queues = _section(host_file, host, "extensions", "queues")
    each = FUNCTIONS_PER_PROCESSOR * (os.cpu_count() or 1)
    return Settings(
        app_dir=app_dir,
        environment=environment,
        route_prefix=str(http.get("routePrefix", DEFAULT_ROUTE_PREFIX)).strip("/"),
        function_timeout=_timeout(host_file, str(host.get("functionTimeout") or DEFAULT_FUNCTION_TIMEOUT)),
        log_level=_LOG_LEVELS.get(str(levels.get("default", "Information")).lower(), "INFO"),
        hub=resolve(str(durable.get("hubName") or DEFAULT_HUB), environment, wanted_by="hubName in host.json"),
        max_orchestrators=_count(host_file, durable, "maxConcurrentOrchestratorFunctions", each),
        max_activities=_count(host_file, durable, "maxConcurrentActivityFunctions", each),
        body_limit=_count(host_file, environment, BODY_LIMIT_SETTING, DEFAULT_BODY_LIMIT),
        queues=_queues(host_file, queues),
        versions=_versions(host_file, durable),
        local=local,
        ignored=tuple(_unknown(host, HONOURED)),
    )


def resolve(text: str, environment: Mapping[str, str], *, wanted_by: str) -> str:
    """`text` with every %SETTING% replaced by its value. Raises SettingMissing."""

    def value(found: re.Match[str]) -> str:
        try:
            return environment[found[1]]
        except KeyError:
            raise SettingMissing(found[1], wanted_by) from None

    return _REFERENCE.sub(value, text)


def parse_time_span(text: str) -> float | None:
    """Seconds of a time span such as `00:05:00` or `1.12:00:00`. None when it is not one."""
    found = _TIME_SPAN.fullmatch(text.strip())
    if found is None:
        return None
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def local_settings(app_dir: Path) -> LocalSettings:
    """What local.settings.json says, if there is one. Raises SettingsInvalid."""
    path = app_dir / LOCAL_SETTINGS
    if not path.is_file():
        return LocalSettings()
    settings = _object(path)
    if settings.get("IsEncrypted") is True:
        raise SettingsInvalid(path, "it is encrypted; decrypt it with `func settings decrypt`")
    values = _section(path, settings, "Values")
    for name, value in values.items():
        if isinstance(value, dict | list) or value is None:
            raise SettingsInvalid(path, f"the value of {name} is not a string")
    texts = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in values.items()}
    host = _section(path, settings, "Host")
    port = _count(path, host, "LocalHttpPort", 0, least=0, most=LAST_PORT) if "LocalHttpPort" in host else None
    return LocalSettings(texts, port, tuple(_unknown(settings, LOCALLY_HONOURED)))


def _object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise SettingsInvalid(path, f"it cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise SettingsInvalid(path, "it is not a JSON object")
    return content


def _overridden(host: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """host.json with the AzureFunctionsJobHost__a__b variables put in at a.b; names ignore case."""
    result: dict[str, Any] = json.loads(json.dumps(host))
    for variable, value in environment.items():
        if not variable.lower().startswith(OVERRIDE_PREFIX.lower()):
            continue
        *folders, last = variable[len(OVERRIDE_PREFIX) :].split("__")
        place = result
        for folder in folders:
            inner = place.setdefault(_key(place, folder), {})
            if not isinstance(inner, dict):
                break
            place = inner
        else:
            place[_key(place, last)] = value
    return result


def _key(place: Mapping[str, Any], name: str) -> str:
    return next((key for key in place if key.lower() == name.lower()), name)


def _section(path: Path, content: Mapping[str, Any], *names: str) -> dict[str, Any]:
    section: Any = content
    for name in names:
        section = section.get(name, {})
        if not isinstance(section, dict):
            raise SettingsInvalid(path, f"{name} is not an object")
    return dict(section)


def _unknown(content: Mapping[str, Any], known: Mapping[str, Any], place: str = "") -> Iterator[str]:
    for name, value in content.items():
        if name not in known:
            yield place + name
        elif isinstance(value, dict) and known[name] is not None:
            yield from _unknown(value, known[name], f"{place}{name}.")


def _queues(path: Path, section: Mapping[str, Any]) -> QueueSettings:
    usual = QueueSettings()
    encoding = str(section.get("messageEncoding", "base64")).lower()
    if encoding not in {"base64", "none"}:
        raise SettingsInvalid(path, f"messageEncoding is {encoding!r} and should be 'base64' or 'none'")
    batch_size = _count(path, section, "batchSize", usual.batch_size, most=MOST_MESSAGES)
    return QueueSettings(
        base64_text=encoding == "base64",
        batch_size=batch_size,
        new_batch_threshold=_count(path, section, "newBatchThreshold", batch_size // 2, least=0),
        max_dequeue_count=_count(path, section, "maxDequeueCount", usual.max_dequeue_count),
        visibility_timeout=_seconds(path, section, "visibilityTimeout", usual.visibility_timeout),
        max_polling_interval=_seconds(path, section, "maxPollingInterval", usual.max_polling_interval),
    )


def _versions(path: Path, section: Mapping[str, Any]) -> Versions:
    usual = Versions()
    return Versions(
        default=str(section.get("defaultVersion") or ""),
        match=_choice(path, section, "versionMatchStrategy", MATCH_STRATEGIES, usual.match),
        failure=_choice(path, section, "versionFailureStrategy", FAILURE_STRATEGIES, usual.failure),
    )


def _choice[T: str](path: Path, section: Mapping[str, Any], name: str, choices: Sequence[T], default: T) -> T:
    """One of the names, in any case."""
    given = str(section.get(name, default))
    for choice in choices:
        if choice.lower() == given.lower():
            return choice
    raise SettingsInvalid(path, f"{name} is {given!r} and should be one of {', '.join(choices)}")


def _seconds(path: Path, section: Mapping[str, Any], name: str, default: float) -> float:
    if name not in section:
        return default
    seconds = parse_time_span(str(section[name]))
    if seconds is None:
        raise SettingsInvalid(path, f"{name} is {section[name]!r} and should be a time span, such as '00:00:02'")
    return seconds


def _count(
    path: Path, section: Mapping[str, Any], name: str, default: int, *, least: int = 1, most: int | None = None
) -> int:
    value = section.get(name, default)
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = least - 1
    if number < least or (most is not None and number > most):
        to = "on" if most is None else f"to {most}"
        raise SettingsInvalid(path, f"{name} is {value!r} and should be a whole number from {least} {to}")
    return number


def _timeout(path: Path, text: str) -> float | None:
    if text == UNLIMITED:
        return None
    seconds = parse_time_span(text)
    if not seconds:
        raise SettingsInvalid(
            path, f"functionTimeout is {text!r} and should be a time span, such as '00:10:00', or '-1'"
        )
    return seconds
