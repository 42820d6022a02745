"""Event Grid, HTTP, timer, warmup and durable bindings: parse, call one function, map errors."""
