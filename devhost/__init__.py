"""A local host for Azure Functions apps, a local Event Grid and a process supervisor. Knows nothing of the app."""
