"""The pictures of a challenger: what people look for in a registry, as PNG files. `draw` in models/plots/draw.py."""
