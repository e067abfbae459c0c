"""`python -m sparsedial` is the command `sparsedial`."""

import sys

from sparsedial.cli.start import main

if __name__ == "__main__":
    sys.exit(main())
