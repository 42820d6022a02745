"""Pure machine learning: spec, schema, features, training, export, parity, evaluation, gate."""
