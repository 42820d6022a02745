"""The command line of the local Event Grid."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from devhost.azurite import AzuritePorts
from devhost.errors import DevhostError
from devhost.eventgrid.errors import BadFault, BadSubscription
from devhost.eventgrid.faults import parse_faults
from devhost.eventgrid.server import Configuration, serve
from devhost.eventgrid.subscriptions import STORAGE, Subscription, load_subscriptions

PORT = 7072
FUNCTIONS_HOST = "http://127.0.0.1:7071"
KEY_VARIABLE = "EVENTGRID_TOPIC_KEY"
CONNECTION_VARIABLE = "AzureWebJobsStorage"
DEVELOPMENT = "UseDevelopmentStorage=true"
USAGE_ERROR = 2

DESCRIPTION = """\
A local Event Grid. It follows the access log that Azurite writes, and delivers BlobCreated and BlobDeleted events to
Event Grid triggered functions or other webhooks on this machine, with the handshake, filters, retries and dead letters
of the real one. It also takes events that you publish to a topic."""

EPILOG = """\
Events from Azurite to a function under `func start` (or any host on port 7071):

  azurite --skipApiVersionCheck | tee azurite.log        # not --silent: the access log is the source
  func start
  python -m devhost eventgrid --azurite-log azurite.log --function on_upload \\
      --subject-begins-with /blobServices/default/containers/incoming/

The order does not matter: it waits for the log, and for the function to answer the handshake. Several subscriptions
go into a file (--subscriptions), a JSON array of objects with Azure's names: name, endpoint, source ("storage" or
"topics/NAME"), includedEventTypes, subjectBeginsWith, subjectEndsWith, maxDeliveryAttempts, eventTimeToLiveInMinutes.

Publishing, from Python:

  EventGridPublisherClient("http://127.0.0.1:7072/topics/NAME/api/events", AzureKeyCredential(KEY)).send(event)

The state folder keeps what is not delivered yet, events.jsonl (all that was published to topics) and deadletter.jsonl
(what was given up). Not imitated: blobs deleted in a batch request raise no events, and request ids are invented.
"""


def parser() -> argparse.ArgumentParser:
    """All options, with help for somebody who sees this for the first time."""
    result = argparse.ArgumentParser(
        prog="python -m devhost eventgrid",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = result.add_argument
    option("--port", type=int, default=PORT, help=f"where to listen, on loopback only (default {PORT})")
    option("--state", type=Path, default=Path(".eventgrid"), help="folder for what must survive (default .eventgrid)")
    option("--topic-key", help=f"what publishers must send as aeg-sas-key (default ${KEY_VARIABLE}; none: no check)")
    storage = result.add_argument_group("blob events")
    storage.add_argument("--azurite-log", type=Path, metavar="FILE", help="file with Azurite's standard output")
    storage.add_argument(
        "--connection-string",
        help=f"of that Azurite, to ask for eTags (default ${CONNECTION_VARIABLE}, else {DEVELOPMENT})",
    )
    storage.add_argument(
        "--from-end", action="store_true", help="at the first start, skip the writes that the log already records"
    )
    faults = result.add_argument_group("faults on request", "for testing a consumer; see below")
    faults.add_argument("--fault", action="append", default=[], metavar="KIND=SHARE", help="may be repeated")
    faults.add_argument("--seed", type=int, default=0, metavar="N", help="another seed, other events (default 0)")
    one = result.add_argument_group("one subscription")
    one.add_argument("--function", metavar="NAME", help="deliver to this Event Grid triggered function ...")
    one.add_argument(
        "--functions-host", metavar="URL", default=FUNCTIONS_HOST, help=f"... of this host ({FUNCTIONS_HOST})"
    )
    one.add_argument("--webhook", metavar="URL", help="deliver to this webhook instead of a function")
    one.add_argument("--source", default=STORAGE, help="storage (default) or topics/NAME")
    one.add_argument("--subject-begins-with", default="", metavar="TEXT", help="end it in / to name a container")
    one.add_argument("--subject-ends-with", default="", metavar="TEXT", help="such as .csv")
    one.add_argument("--event-type", action="append", default=[], metavar="TYPE", help="may be repeated (default all)")
    several = result.add_argument_group("several subscriptions")
    several.add_argument("--subscriptions", type=Path, metavar="FILE", help="a JSON file, see below")
    return result


def configuration(arguments: argparse.Namespace) -> Configuration:
    """The options, checked. Raises BadSubscription, BadFault."""
    subscriptions = load_subscriptions(arguments.subscriptions) if arguments.subscriptions else []
    if arguments.function or arguments.webhook:
        subscriptions.append(_subscription(arguments))
    for subscription in subscriptions:
        if subscription.source == STORAGE and arguments.azurite_log is None:
            raise BadSubscription(subscription.name, "it wants blob events, so --azurite-log FILE is needed")
    return Configuration(
        state=arguments.state,
        port=arguments.port,
        subscriptions=tuple(subscriptions),
        azurite_log=arguments.azurite_log,
        connection_string=_connection_string(arguments.connection_string),
        from_end=arguments.from_end,
        topic_key=arguments.topic_key or os.environ.get(KEY_VARIABLE, ""),
        faults=parse_faults(arguments.fault, seed=arguments.seed),
    )


def _connection_string(given: str | None) -> str:
    """azure-storage-blob does not know the abbreviation that Microsoft's other tools use for Azurite."""
    value = given or os.environ.get(CONNECTION_VARIABLE) or DEVELOPMENT
    if value.rstrip(";").lower() == DEVELOPMENT.lower():
        return AzuritePorts(blob=10000, queue=10001, table=10002).connection_string
    return value


def _subscription(arguments: argparse.Namespace) -> Subscription:
    base = str(arguments.functions_host).rstrip("/")
    function = arguments.function or "webhook"
    return Subscription(
        name=function,
        endpoint=arguments.webhook or f"{base}/runtime/webhooks/EventGrid?functionName={quote(function)}",
        source=arguments.source,
        event_types=tuple(arguments.event_type),
        begins_with=arguments.subject_begins_with,
        ends_with=arguments.subject_ends_with,
    )


def main(argv: Sequence[str]) -> int:
    """Runs until it is stopped. 0 when it was asked to stop, 1 when it could not go on, 2 for bad options."""
    arguments = parser().parse_args(argv)
    try:
        asyncio.run(serve(configuration(arguments)))
    except (BadSubscription, BadFault) as error:
        print(error, file=sys.stderr)
        return USAGE_ERROR
    except (DevhostError, OSError) as error:  # OSError: the state folder cannot be written
        print(error, file=sys.stderr)
        return 1
    return 0
