"""`llada-uni doctor`: is a model directory whole, has this machine the memory for it, and what is the command to run it."""
