"""``python -m ganserve``: the command ``ganserve``."""

import sys

from ganserve.commands import main

if __name__ == "__main__":
    sys.exit(main())
