"""Training of every part of the small model. Imports flow downwards only: nothing below knows about this package."""
