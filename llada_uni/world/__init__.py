"""The small visual world of the shipped model: scenes of emoji art, known to the last cell, so a program can check them."""
