"""Codes to pictures: features of codes, the flow-matching transformer, its samplers, and the VAE."""
