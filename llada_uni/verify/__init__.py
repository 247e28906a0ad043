"""Does this machine compute the recorded numbers? Checks of a whole model directory."""
