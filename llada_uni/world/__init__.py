"""The small visual world of the shipped model: scenes of emoji art whose ground truth is known, so that a program can check them."""
