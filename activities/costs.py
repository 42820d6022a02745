"""What a run costs, from what its activities worked: an estimate, with the prices and the day they are from."""

from __future__ import annotations

from typing import Any

from activities.contracts import STEPS, Finish
from adapters.settings import Pricing

MEGABYTES_A_GIGABYTE = 1024.0


def cost_of(finish: Finish, pricing: Pricing) -> dict[str, Any]:
    """GB-seconds and executions of the run, and their price where prices are set (before any free grant).

    An activity is reckoned as if it had an instance to itself: what runs side by side on one instance costs less.
    """
    seconds = sum(finish.busy)
    gb_seconds = seconds * pricing.instance_memory_mb / MEGABYTES_A_GIGABYTE
    price = None
    if pricing.gb_second is not None and pricing.million_executions is not None:
        amount = gb_seconds * pricing.gb_second + finish.executions / 1e6 * pricing.million_executions
        price = {
            "amount": round(amount, 8),
            "currency": pricing.currency,
            "gb_second": pricing.gb_second,
            "million_executions": pricing.million_executions,
            "as_of": pricing.as_of,
        }
    return {
        "instance_memory_mb": pricing.instance_memory_mb,
        "gb_seconds": round(gb_seconds, 3),
        "executions": finish.executions,
        "price": price,
    }


def figures_of(finish: Finish, pricing: Pricing) -> dict[str, float]:
    """What the record says of seconds and costs, as metrics by name."""
    steps, cost = steps_of(finish, pricing), cost_of(finish, pricing)
    price = cost["price"]
    return {
        **{f"step_seconds/{step['name']}": step["seconds"] for step in steps},
        **{f"step_gb_seconds/{step['name']}": step["gb_seconds"] for step in steps},
        "cost/gb_seconds": cost["gb_seconds"],
        "cost/executions": float(cost["executions"]),
        **({f"cost/{price['currency']}": price["amount"]} if price else {}),
    }


def steps_of(finish: Finish, pricing: Pricing) -> list[dict[str, Any]]:
    """Each step that has run: seconds by the clock, seconds of work, and GB-seconds."""
    gigabytes = pricing.instance_memory_mb / MEGABYTES_A_GIGABYTE
    return [
        {"name": name, "seconds": seconds, "busy_seconds": busy, "gb_seconds": round(busy * gigabytes, 3)}
        for name, seconds, busy in zip(STEPS, finish.seconds, finish.busy, strict=False)
    ]
