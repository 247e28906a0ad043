"""The model as a service: typed requests in a queue, one thread that owns the networks, streams of events back."""
