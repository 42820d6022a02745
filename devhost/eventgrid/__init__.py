"""A local Event Grid: blob events from Azurite's access log, custom topics, webhook subscriptions with retry."""
