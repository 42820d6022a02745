"""How values are written as text. Training reads files with these rules, serving reads requests: one home for both."""

from __future__ import annotations

MISSING_TEXTS = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None")
"""Texts that mean: no value. What R, pandas, SQL clients and Python write for it."""
ISO_8601 = (
    r"^(?P<date>(?:000[1-9]|00[1-9][0-9]|0[1-9][0-9]{2}|[1-9][0-9]{3})-[0-9]{2}-[0-9]{2})"
    r"(?:[Tt ](?P<hour>[01][0-9]|2[0-3]):(?P<minute>[0-5][0-9])"
    r"(?::(?P<second>[0-5][0-9])(?:\.(?P<fraction>[0-9]{1,9}))?)?"
    r"(?: ?(?:[Zz]|UTC|(?P<sign>[+-])(?P<zone_hour>[01][0-9]|2[0-3])(?::?(?P<zone_minute>[0-5][0-9]))?))?)?$"
)
"""A date from the year 1 on, or a date and a time of day, the latter with or without a zone. Without one it is UTC."""
