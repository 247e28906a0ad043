"""Jobs, workers and the one thread that owns the backbone."""
