"""Pictures in: opening them safely, scaling them as the released model does, and turning them into codes."""
