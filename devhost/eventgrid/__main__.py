"""`python -m devhost.eventgrid`."""

import sys

from devhost.eventgrid.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
