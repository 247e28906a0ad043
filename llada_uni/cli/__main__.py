"""`python -m llada_uni.cli`, the same as the command `llada-uni`."""

import sys

from llada_uni.cli import main

sys.exit(main())
