"""`python -m smar`: the command line, also for launchers that start modules (`torchrun -m smar`)."""

import sys

from smar.cli import main

if __name__ == "__main__":
    sys.exit(main())
