"""The command line of the local Event Grid."""

from __future__ import annotations

import argparse
import asyncio
import os
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from devhost.azurite import AzuritePorts
from devhost.errors import DevhostError
from devhost.eventgrid.errors import BadFault, BadSubscription
from devhost.eventgrid.faults import parse_faults
from devhost.eventgrid.server import Configuration, serve
from devhost.eventgrid.subscriptions import (
    CLOUD_EVENTS_SCHEMA,
    EVENT_GRID_SCHEMA,
    STORAGE,
    Subscription,
    load_subscriptions,
)
from devhost.ports import port_number

PORT = 7072
FUNCTIONS_HOST = "http://127.0.0.1:7071"
KEY_VARIABLE = "EVENTGRID_TOPIC_KEY"
CONNECTION_VARIABLE = "AzureWebJobsStorage"
DEVELOPMENT = "UseDevelopmentStorage=true"
USAGE_ERROR = 2

DESCRIPTION = """\
A local Event Grid, for apps that Azure Event Grid would call.

It follows the access log that Azurite writes, and delivers BlobCreated and BlobDeleted events to Event Grid triggered
functions or other webhooks on this machine, with the handshake, filters, retries and dead letters of the real one.
It also takes events that you publish to a topic, and fans them out to the subscriptions of that topic."""

EPILOG = """\
BLOB EVENTS to a function under `func start` (or any Functions host on port 7071), each line in its own terminal:

  azurite --skipApiVersionCheck | tee azurite.log        # not --silent: the access log is the source
  func start
  python -m devhost eventgrid --azurite-log azurite.log --function on_upload \\
      --subject-begins-with /blobServices/default/containers/incoming/

The order does not matter: it waits for the log, and for the function to answer the handshake. What was written while
it was down comes after the next start: it reads the log from where it was, then compares the blobs in storage with
what it has delivered, so that no blob is missed when the log was truncated or removed meanwhile.

SEVERAL SUBSCRIPTIONS go into a file (--subscriptions FILE), with Azure's names. name and endpoint are required:

  [{"name": "uploads", "endpoint": "http://127.0.0.1:7071/runtime/webhooks/EventGrid?functionName=on_upload",
    "source": "storage", "includedEventTypes": ["Microsoft.Storage.BlobCreated"],
    "subjectBeginsWith": "/blobServices/default/containers/incoming/", "subjectEndsWith": ".csv",
    "maxDeliveryAttempts": 30, "eventTimeToLiveInMinutes": 1440, "eventDeliverySchema": "EventGridSchema"},
   {"name": "audit", "endpoint": "http://127.0.0.1:8080/hook", "source": "topics/orders"}]

TOPICS need no set-up: publish to any name, and whoever has the source topics/NAME gets it. From Python:

  from azure.core.credentials import AzureKeyCredential
  from azure.eventgrid import EventGridEvent, EventGridPublisherClient

  topic = "http://127.0.0.1:7072/topics/orders/api/events"
  event = EventGridEvent(subject="/orders/1", event_type="Order.Placed", data={"n": 1}, data_version="1.0")
  EventGridPublisherClient(topic, AzureKeyCredential("any key, or the --topic-key")).send(event)

CloudEvents (azure.core.messaging.CloudEvent) are taken as well, and delivered as such. A subscription with
"eventDeliverySchema": "CloudEventSchemaV1_0" gets everything as CloudEvents, and opens with their handshake (OPTIONS).

DELIVERY is at least once and in no order. Anything but 200 to 204 is tried again, after half a second at first and up
to 15 s later on; 400, 401, 403 and 413 are not. Given up is what had all its attempts, or has grown too old. While
nobody listens at the address it waits, which costs no attempt.

FAULTS ON REQUEST show whether your app can live with that. Shares are from 0 to 1, of the deliveries to each
subscription:

  --fault duplicate=0.2    comes twice, the second time within 2 s after the first
  --fault delay=0.5:3s     comes 3 s late (ms, s or m)
  --fault reorder=0.1      comes after a later event (or 5 s late, when there is none)
  --fault drop=0.05        never comes, and is named in the output: the only one that the real Event Grid never does
  --seed 7                 which ones; the same seed hits the same events again, whatever else happens

Published events are hit by their id, so give them ids of your own to repeat a run. Blob events, which have a new id
each time, are hit by type, subject and how many such events came before.

LOOKING IN, on the port where it listens: GET /health (it runs), /ready (503 until every webhook has answered the
handshake; says who has not), /subscriptions (what waits for delivery). The state folder keeps what is not delivered
yet, events.jsonl (all that was published to topics) and deadletter.jsonl (what was given up, and why). Delete the
folder, when it does not run, to begin anew.

NOT IMITATED: request ids are invented; blobs deleted in a batch request leave no trace in the log, so their events
come only after the next start; webhooks are on this machine and plain http.
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
    option(
        "--port",
        type=port_number,
        default=PORT,
        metavar="N",
        help=f"where to listen, on loopback only; 0 takes a free one (default {PORT})",
    )
    option(
        "--state",
        type=Path,
        default=Path(".eventgrid"),
        metavar="FOLDER",
        help="folder for what must survive (default .eventgrid)",
    )
    option(
        "--topic-key",
        metavar="KEY",
        help=f"key that publishers must send (default ${KEY_VARIABLE}; without one, any key will do)",
    )
    storage = result.add_argument_group("blob events")
    storage.add_argument("--azurite-log", type=Path, metavar="FILE", help="file with Azurite's standard output")
    storage.add_argument(
        "--connection-string",
        metavar="TEXT",
        help=f"of that Azurite, to ask what it holds (default ${CONNECTION_VARIABLE}, else {DEVELOPMENT})",
    )
    storage.add_argument(
        "--from-end", action="store_true", help="at the first start, skip the writes that the log already records"
    )
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
    one.add_argument(
        "--delivery-schema",
        choices=(EVENT_GRID_SCHEMA, CLOUD_EVENTS_SCHEMA),
        default=EVENT_GRID_SCHEMA,
        metavar="SCHEMA",
        help=f"{EVENT_GRID_SCHEMA} (default) or {CLOUD_EVENTS_SCHEMA}",
    )
    several = result.add_argument_group("several subscriptions")
    several.add_argument("--subscriptions", type=Path, metavar="FILE", help="a JSON file, see below")
    faults = result.add_argument_group("faults on request", "for testing a consumer; see below")
    faults.add_argument(
        "--fault", action="append", default=[], metavar="KIND=SHARE", help="such as duplicate=0.2; may be repeated"
    )
    faults.add_argument("--seed", type=int, default=0, metavar="N", help="another seed, other events (default 0)")
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
        schema=arguments.delivery_schema,
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
    except sqlite3.Error as error:  # at the start; later on it is tried again
        print(f"The state in {arguments.state} cannot be written: {error}.", file=sys.stderr)
        return 1
    return 0
