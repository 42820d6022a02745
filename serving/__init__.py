"""The inference path: hot-swap cache, ONNX session, protocols. Imports no training library."""
