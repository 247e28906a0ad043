"""`python -m llada_uni`, the same as the command `llada-uni` (torchrun starts modules: `torchrun -m llada_uni train ...`)."""

import sys

from llada_uni.cli import main

sys.exit(main())
