"""What can go wrong while serving. Which HTTP status each one has is said in serving/answers.py."""

from __future__ import annotations

from models.errors import RatchetError


class ServingError(RatchetError):
    """Base of the serving errors."""


class NoModelYet(ServingError):
    """The pipeline has no champion that could be loaded. Ask again after `retry_after_seconds`."""

    def __init__(self, pipeline: str, reason: str, retry_after_seconds: int = 10) -> None:
        super().__init__(f"no model yet for {pipeline}: {reason}")
        self.pipeline, self.retry_after_seconds = pipeline, retry_after_seconds


class VersionUnavailable(NoModelYet):
    """A version that was asked for by its number cannot be loaded now. It may be there; ask again."""

    def __init__(self, pipeline: str, version: int, reason: str, retry_after_seconds: int = 10) -> None:
        super().__init__(f"version {version} of {pipeline}", reason, retry_after_seconds)
        self.pipeline, self.version = pipeline, version


class NothingPromoted(ServingError):
    """Storage has no live pointer for the pipeline: none was written so far, or it is `gone` since a model serves."""

    def __init__(self, pipeline: str, *, gone: bool) -> None:
        super().__init__(
            "the live pointer is gone; what it named goes on serving" if gone else "nothing was promoted so far"
        )
        self.pipeline, self.gone = pipeline, gone


class UnknownModel(ServingError):
    """There is no pipeline of that name, or not that version."""


class BadRequest(ServingError):
    """The request cannot be answered. `row` counts from 0; both are None when it is not about one row or column."""

    def __init__(self, message: str, *, row: int | None = None, column: str | None = None) -> None:
        super().__init__(message)
        self.row, self.column = row, column


class SchemaMismatch(BadRequest):
    """The request's columns are not those that the model takes."""


class ValuesRefused(BadRequest):
    """What was sent can be read, and is not what the model takes: a column is missing, or a value of another type."""


class BodyTooLarge(ServingError):
    """The body is longer than allowed, as it was sent or without its compression."""


class TooManyRows(ServingError):
    """The request has more rows than one may have."""


class UnknownEncoding(ServingError):
    """The body, or a part of it, is in a format that is not read."""


class OutOfTime(ServingError):
    """The request took longer than one may take."""


class ModelRefused(ServingError):
    """A model that the pointer names does not serve: wrong hash, not loadable, or other answers than recorded."""
