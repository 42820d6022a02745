"""Wish and fact on the whole stack, with a real MLflow: its UI's click is what `set_registered_model_alias` does."""

from __future__ import annotations

import json
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from mlflow.tracking import MlflowClient

from activities.reconcile import REFUSED_TAG
from adapters.mlflow_webhook import DELIVERY, SIGNATURE, TIMESTAMP
from tests.activities.world import rows
from tests.integration.shop import Shop

pytestmark = pytest.mark.integration
ROW = {"price": 20, "town": "Ghent"}


def served(shop: Shop) -> str:
    return shop.predict(ROW).headers["x-ratchet-model-version"]


def alias(client: MlflowClient, shop: Shop, name: str) -> int:
    return int(client.get_model_version_by_alias(shop.name, name).version)


def told(shop: Shop, kind: str) -> int:
    lines = [line for line in shop.stack.events_file.read_text().splitlines() if f'"{shop.name}"' in line]
    return Counter({event["id"]: event["type"] for event in map(json.loads, lines)}.values())[kind]


def forged_delivery(shop: Shop) -> int:
    """The status of a webhook that says that the alias was moved, signed with a guess."""
    now, document = str(int(time.time())), {"entity": "model_version_alias", "data": {"name": shop.name}}
    headers = {SIGNATURE: "v1,Z3Vlc3M=", TIMESTAMP: now, DELIVERY: uuid.uuid4().hex}
    return shop.ask("/api/mlflow/webhook", document, headers).status


@pytest.mark.pipeline("wish")
def test_the_alias_moves_the_served_model_and_a_rollback_moves_the_alias(shop: Shop) -> None:
    client = MlflowClient(shop.stack.mlflow_url, shop.stack.mlflow_url)
    for number, noise in enumerate((0.8, 0.1)):
        path = shop.upload(f"{number}.csv", rows(10 * number, noise=noise))
        assert shop.record_of(path)["outcome"] == "promoted"
    shop.eventually(lambda: served(shop) == "2")
    assert (alias(client, shop, "champion"), alias(client, shop, "previous")) == (2, 1)

    # The webhook, in a flood of forged ones: nothing else looks at the alias here, since the reconciler's timer is
    # years away.
    with ThreadPoolExecutor(8) as pool:
        flood = [pool.submit(forged_delivery, shop) for _ in range(200)]
        client.set_registered_model_alias(shop.name, "champion", "1")
        shop.eventually(lambda: served(shop) == "1")
    assert {each.result() for each in flood} == {403}
    assert shop.status()["champion"]["why"] == "the alias champion was moved to version 1"
    shop.eventually(lambda: alias(client, shop, "previous") == 2)

    # A version that somebody registered by hand, which storage does not have.
    first = client.get_model_version(shop.name, "1")
    by_hand = client.create_model_version(shop.name, first.source, run_id=first.run_id, await_creation_for=0)
    client.set_registered_model_alias(shop.name, "champion", by_hand.version)
    shop.eventually(lambda: alias(client, shop, "champion") == 1)
    reason = client.get_model_version(shop.name, by_hand.version).tags[REFUSED_TAG]
    assert "storage has no such version" in reason

    # A lost webhook: the reconciler finds it.
    (webhook,) = [each for each in client.list_webhooks() if each.name == "ratchet"]
    client.delete_webhook(webhook.webhook_id)
    client.set_registered_model_alias(shop.name, "champion", "2")
    assert shop.ask("/admin/functions/reconcile", {}).status == 202
    # Of the fact itself: a worker that has not swapped yet would answer with version 2 as well.
    shop.eventually(lambda: shop.status()["champion"]["version"] == 2)
    # The last that it does in the registry. A rollback in the middle of it would be put right by the timer only.
    shop.eventually(lambda: alias(client, shop, "previous") == 1)

    back = shop.ask(f"/api/pipelines/{shop.name}/rollback", {"who": "ann", "why": "odd scores"})
    assert (back.status, back.body["version"]) == (200, 1)
    shop.eventually(lambda: served(shop) == "1")
    shop.eventually(lambda: (alias(client, shop, "champion"), alias(client, shop, "previous")) == (1, 2))
    # At least once: two reconcilers may tell the same move, and its id says that it is the same.
    # They are told by a thread of their own, which nobody waits for.
    shop.eventually(lambda: told(shop, "Ratchet.ModelRolledBack") >= 1 and told(shop, "Ratchet.ModelPromoted") >= 4)
    assert (told(shop, "Ratchet.ModelRolledBack"), told(shop, "Ratchet.ModelPromoted")) == (1, 4)
