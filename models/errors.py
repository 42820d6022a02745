"""The root of every error that Ratchet raises on purpose, and the bounds on their texts.

RatchetError
├── models.spec_lines.SpecError           a pipeline file has a mistake (file, line, field)
├── models.reading.PartitionRejected      an uploaded file cannot be used (reason code, detail)
├── models.profiles.ProfileError         a category has too many values to be one (column, distinct)
├── models.training.TrainingError         the data cannot teach a model (too few rows, one class, refused)
├── models.ensemble.ExportError           the booster uses something ONNX cannot express exactly
├── adapters.blobs.BlobError              storage: BlobNotFound, BlobConflict, StorageUnavailable
├── adapters.ledger.LedgerError           LedgerConflict, IllegalTransition
├── adapters.registry.RegistryError       the model registry cannot be reached or refuses
├── adapters.settings.SettingsError       a setting is missing or malformed
└── serving.errors.ServingError           NoModelYet, BadRequest, ModelRefused, ...

Errors carry their fields, chain their cause with `from`, tell the user what to do, and know no HTTP.
"""

from __future__ import annotations

MAX_DETAIL_CHARACTERS = 500
"""Longest piece of foreign text (a cell, a library's message) that an error repeats."""


class RatchetError(Exception):
    """Base of all errors raised on purpose. The text is one or two sentences for the person who can act on it."""


def bounded(text: object, limit: int = MAX_DETAIL_CHARACTERS) -> str:
    """`str(text)`, cut to `limit` characters with an ellipsis, on one line."""
    line = " ".join(str(text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
