"""Files below everything else: weights, JSON, configs and folders, written in one step and read with clear errors."""
