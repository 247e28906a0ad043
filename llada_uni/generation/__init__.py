"""Block-diffusion generation: oracle (the definition), engine (fast), and the rules both follow."""
