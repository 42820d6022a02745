"""Deterministic orchestrator generators and pure decisions about what happens next."""
