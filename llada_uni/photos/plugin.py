"""What the measuring of photographs adds to the program, by name (plugins.py)."""

SUITES = {"photos": "llada_uni.photos.suite:PhotosSuite"}
