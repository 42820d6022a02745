"""A task hub on SQLite that serves the unmodified azure-functions-durable SDK (1.7)."""
