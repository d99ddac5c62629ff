"""`python -m stream_interp.cli`: how one of our processes starts another with the same interpreter."""

import sys

from stream_interp.cli import main

sys.exit(main())
