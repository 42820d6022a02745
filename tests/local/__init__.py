"""Tests of the local package: the flights, the client of the running app, the demo."""
