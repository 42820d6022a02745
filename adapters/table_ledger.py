"""The ledger in Azure Tables: partition key = pipeline, row key = SHA-256 of the path (it may hold any character).

Imported lazily: azure-data-tables takes a tenth of a second.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

from azure.core import MatchConditions
from azure.core.exceptions import AzureError, ResourceExistsError, ResourceModifiedError, ResourceNotFoundError
from azure.data.tables import TableClient, TableTransactionError, UpdateMode

from adapters import ledger
from adapters.azure_options import client_options
from adapters.ledger import Claim, LedgerConflict, LedgerError, Partition, PartitionState, Settlement, Sighting
from models.errors import bounded

if TYPE_CHECKING:
    from adapters.settings import Settings

TABLE = "ledger"
MAX_TRIES = 10
"""Compare-and-swap rounds on one row. Writers of one row are few (duplicates of one event), so this is never reached
unless something writes in a loop."""

MAX_TOGETHER = 100
"""Changes in one transaction: Azure's limit."""

NOT_FOUND = 404
CHANGED_MEANWHILE = frozenset({NOT_FOUND, 409, 412})
"""How a transaction says that a row is gone, is there already, or is another one by now."""

type Change = Callable[[Partition | None], Partition | None]


class TableLedger:
    """Implements adapters.ledger.Ledger on one table."""

    def __init__(self, table: TableClient) -> None:
        self._table = table

    @classmethod
    def from_settings(cls, settings: Settings) -> TableLedger:
        """A ledger in the app's own account. The table is made at the first write."""
        options: dict[str, Any] = {**client_options(settings), "retry_backoff_factor": 1}
        if settings.storage_connection is not None:
            return cls(TableClient.from_connection_string(settings.storage_connection, TABLE, **options))
        from azure.identity import DefaultAzureCredential

        credential = DefaultAzureCredential(managed_identity_client_id=settings.client_id)
        return cls(TableClient(str(settings.table_service_uri), TABLE, credential=credential, **options))

    def see(self, pipeline: str, sighting: Sighting, *, now: str) -> bool:
        return self._change(pipeline, sighting.path, lambda row: ledger.sighted(pipeline, row, sighting, now=now))

    def see_all(self, pipeline: str, sightings: Sequence[Sighting], *, now: str) -> int:
        return sum(
            self._see_together(pipeline, sightings[start : start + MAX_TOGETHER], now=now)
            for start in range(0, len(sightings), MAX_TOGETHER)
        )

    def _see_together(self, pipeline: str, sightings: Sequence[Sighting], *, now: str) -> int:
        """In one transaction when there is no row of any of them, else each for itself."""
        rows = [ledger.sighted(pipeline, None, sighting, now=now) for sighting in sightings]
        changes = [("create", _entity(_key(row.path), row)) for row in rows if row is not None]
        with _errors(""):
            try:
                self._with_table(lambda: self._table.submit_transaction(changes))
            except TableTransactionError as exc:
                if exc.status_code not in CHANGED_MEANWHILE:
                    raise
                return sum(self.see(pipeline, sighting, now=now) for sighting in sightings)
        return len(sightings)

    def forget(self, pipeline: str, path: str, *, sequencer: str, now: str) -> bool:
        return self._change(
            pipeline, path, lambda row: ledger.vanished(pipeline, path, row, sequencer=sequencer, now=now)
        )

    def rows(self, pipeline: str, states: Sequence[PartitionState] = ()) -> Iterable[Partition]:
        wanted = " or ".join(f"state eq '{state}'" for state in states) or "state ne 'superseded'"
        query = f"PartitionKey eq @pipeline and ({wanted})"
        with _errors(""):
            try:
                for entity in self._table.query_entities(query, parameters={"pipeline": pipeline}):
                    yield _partition(entity)
            except ResourceNotFoundError:
                return  # no table yet: nothing was ever uploaded

    def claim(self, known: Partition, claim: Claim, *, now: str) -> Partition | None:
        return self._changed(known.pipeline, known.path, lambda row: ledger.claimed(row, known, claim, now=now))

    def settle(self, pipeline: str, settlement: Settlement, *, run: str, now: str) -> bool:
        return self._change(pipeline, settlement.path, lambda row: ledger.settled(row, settlement, run=run, now=now))

    def release(self, pipeline: str, path: str, *, run: str, reason: str, now: str, blamed: bool = False) -> bool:
        def released(row: Partition | None) -> Partition | None:
            return ledger.released(row, run=run, now=now, reason=reason, blamed=blamed)

        return self._change(pipeline, path, released)

    def _change(self, pipeline: str, path: str, change: Change) -> bool:
        return self._changed(pipeline, path, change) is not None

    def _changed(self, pipeline: str, path: str, change: Change) -> Partition | None:
        """Reads the row, applies `change`, writes it back if nobody else did meanwhile; else again."""
        key = _key(path)
        with _errors(path):
            for _ in range(MAX_TRIES):
                row, etag = self._read(pipeline, key)
                changed = change(row)
                if changed is None:
                    return None
                former = ledger.superseded(row, changed, now=changed.changed)
                if self._write(key, changed, etag, former):
                    return changed
        raise LedgerConflict(path, f"the ledger's row of {path} changed {MAX_TRIES} times while it was being written")

    def _read(self, pipeline: str, key: str) -> tuple[Partition | None, str]:
        try:
            entity = self._table.get_entity(pipeline, key)
        except ResourceNotFoundError:
            return None, ""
        return _partition(entity), str(entity.metadata["etag"])

    def _write(self, key: str, row: Partition, etag: str, former: Partition | None) -> bool:
        """Whether nobody else wrote meanwhile. `former` content is put beside it, both or neither."""
        fields = _entity(key, row)
        condition = {"mode": UpdateMode.REPLACE, "etag": etag, "match_condition": MatchConditions.IfNotModified}
        try:
            if former is not None:
                beside = _entity(f"{key}-{hashlib.sha256(former.etag.encode()).hexdigest()[:16]}", former)
                self._table.submit_transaction([("update", fields, condition), ("upsert", beside)])
            elif etag:
                self._table.update_entity(
                    fields, mode=UpdateMode.REPLACE, etag=etag, match_condition=MatchConditions.IfNotModified
                )
            else:
                self._with_table(lambda: self._table.create_entity(fields))
        except (ResourceExistsError, ResourceModifiedError, ResourceNotFoundError):
            return False
        except TableTransactionError as exc:
            if exc.status_code not in CHANGED_MEANWHILE:
                raise
            return False
        return True

    def _with_table(self, write: Callable[[], Any]) -> None:
        """The first write finds no table."""
        try:
            write()
        except (ResourceNotFoundError, TableTransactionError) as exc:
            if exc.status_code != NOT_FOUND:
                raise
            # Another writer may make it in between, which is what we want.
            with suppress(ResourceExistsError):
                self._table.create_table()
            write()


def _key(path: str) -> str:
    return hashlib.sha256(path.encode()).hexdigest()


def _entity(key: str, row: Partition) -> dict[str, Any]:
    fields: dict[str, Any] = {"PartitionKey": row.pipeline, "RowKey": key, **asdict(row)}
    del fields["pipeline"]
    fields["size"] = (row.size, "Edm.Int64")
    return fields


def _partition(entity: Any) -> Partition:
    size = entity["size"]
    return Partition(
        pipeline=entity["PartitionKey"],
        path=entity["path"],
        etag=entity["etag"],
        size=int(getattr(size, "value", size)),
        state=cast(PartitionState, entity["state"]),
        changed=entity["changed"],
        sequencer=entity["sequencer"],
        run=entity["run"],
        attempts=int(entity["attempts"]),
        reason=entity["reason"],
        contract=entity["contract"],
        hub=entity.get("hub", ""),
    )


@contextmanager
def _errors(path: str) -> Iterator[None]:
    try:
        yield
    except AzureError as exc:
        raise LedgerError(path, f"the ledger (table {TABLE!r}) cannot be used: {bounded(_first_line(exc))}") from exc


def _first_line(exc: AzureError) -> str:
    """What went wrong; the other lines are request ids and the like. Some errors say nothing at all."""
    return next(iter(str(exc.message or "").splitlines()), "") or type(exc).__name__
