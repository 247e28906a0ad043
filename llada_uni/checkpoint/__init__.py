"""Files in and out: reading weights with clear errors, writing them atomically, names, and the recorded
checks."""
