"""What goes wrong in the functions host. Other parts of devhost add branches of their own to the root.

DevhostError
├── AppInvalid             the app directory cannot be hosted as it is
│   ├── SettingsInvalid    host.json or local.settings.json is missing or has a mistake (which file, what)
│   ├── SettingMissing     a binding names a %SETTING% that is not set
│   ├── BindingUnsupported a function has a binding that this host does not know
│   ├── KeysInvalid        the file of access keys has a mistake (which file, what)
│   ├── ConnectionInvalid  a binding's connection is no storage account's connection string
│   ├── BindingInvalid     a binding asks for something that this host does not do
│   ├── RouteInvalid       an HTTP function's route template has a mistake
│   └── ScheduleInvalid    a timer function's schedule has a mistake
├── IndexingFailed         the app does not load in a worker; carries the worker's traceback
├── StateDirectoryInUse    another devhost has the same state directory
├── StateUnusable          the state directory, or what is in it, cannot be used
├── AddressUnavailable     the host cannot listen on the address it was given
├── StorageRefused         a storage account refused a request (devhost.storage)
├── WorkerDied             a worker process ended while it had work
└── FrameInvalid           a message between host and worker is not made of plain values
"""

from __future__ import annotations

from pathlib import Path


class DevhostError(Exception):
    """Base of devhost's errors. The text is one or two sentences for the person who can act on it."""


class AppInvalid(DevhostError):
    """The app directory cannot be hosted as it is."""


class SettingsInvalid(AppInvalid):
    """host.json or local.settings.json is missing or has a mistake."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}.")
        self.path = path
        self.problem = problem


class SettingMissing(AppInvalid):
    """A binding names a %SETTING% that is not set."""

    def __init__(self, setting: str, wanted_by: str) -> None:
        super().__init__(
            f"{wanted_by} needs the setting {setting}, which is not set. "
            "Set it in the environment or under Values in local.settings.json."
        )
        self.setting = setting
        self.wanted_by = wanted_by


class BindingUnsupported(AppInvalid):
    """A function has a binding that this host does not know."""

    def __init__(self, function: str, binding: str, kind: str, supported: tuple[str, ...]) -> None:
        super().__init__(
            f"Function {function}: the binding {binding!r} is of type {kind}, which devhost does not support. "
            f"It supports {', '.join(supported)}. Disable the function with "
            f"AzureWebJobs.{function}.Disabled=true, or run the app with `func start`."
        )
        self.function = function
        self.binding = binding
        self.kind = kind


class KeysInvalid(AppInvalid):
    """The file of access keys has a mistake."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}.")
        self.path = path
        self.problem = problem


class ConnectionInvalid(AppInvalid):
    """A binding's connection is no storage account's connection string. The text does not repeat it: it is a secret."""

    def __init__(self, connection: str, wanted_by: str, problem: str) -> None:
        super().__init__(f"{wanted_by} needs a connection string in the setting {connection}: {problem}.")
        self.connection = connection
        self.wanted_by = wanted_by
        self.problem = problem


class BindingInvalid(AppInvalid):
    """A binding asks for something that this host does not do."""

    def __init__(self, binding: str, problem: str) -> None:
        super().__init__(f"{binding}: {problem}.")
        self.binding = binding
        self.problem = problem


class RouteInvalid(AppInvalid):
    """An HTTP function's route template has a mistake."""

    def __init__(self, template: str, problem: str) -> None:
        super().__init__(f"The route {template!r} {problem}.")
        self.template = template
        self.problem = problem


class ScheduleInvalid(AppInvalid):
    """A timer function's schedule has a mistake."""

    def __init__(self, function: str, schedule: str) -> None:
        super().__init__(
            f"Function {function}: the schedule {schedule!r} is neither an NCRONTAB expression, such as "
            "'0 */5 * * * *' (second minute hour day month weekday), nor a time span, such as '00:05:00'."
        )
        self.function = function
        self.schedule = schedule


class IndexingFailed(DevhostError):
    """The app does not load in a worker. `details` is the worker's traceback."""

    def __init__(self, app_dir: Path, details: str) -> None:
        super().__init__(f"The app in {app_dir} does not load:\n{details}")
        self.app_dir = app_dir
        self.details = details


class StateDirectoryInUse(DevhostError):
    """Another devhost has the same state directory. `pid` is its process id, as far as it is known."""

    def __init__(self, state_dir: Path, pid: str) -> None:
        super().__init__(
            f"another devhost (pid {pid}) uses this state directory: {state_dir}. "
            "Stop it, or give this one a directory of its own with --state."
        )
        self.state_dir = state_dir
        self.pid = pid


class StateUnusable(DevhostError):
    """The state directory, or what is in it, cannot be used."""

    def __init__(self, state_dir: Path, reason: str) -> None:
        super().__init__(
            f"the state directory {state_dir} cannot be used: {reason}. Choose another one with --state, or delete it "
            "when its orchestrations are not needed any more."
        )
        self.state_dir = state_dir
        self.reason = reason


class AddressUnavailable(DevhostError):
    """The host cannot listen on the address it was given."""

    def __init__(self, host: str, port: int, reason: str) -> None:
        super().__init__(f"devhost cannot listen on {host}:{port} ({reason}). Choose another --port or --host.")
        self.host = host
        self.port = port


class WorkerDied(DevhostError):
    """A worker process ended while it had work."""

    def __init__(self, pid: int, reason: str) -> None:
        super().__init__(f"the worker process {pid} {reason}")
        self.pid = pid
        self.reason = reason


class FrameInvalid(DevhostError):
    """A message between host and worker is not made of plain values, or is too long."""
