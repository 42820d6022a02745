"""One port and one adapter for each outside thing: blobs, ledger, live pointer, registry, events."""
