"""`python -m imgclf` is the command `imgclf`."""

import sys

from imgclf.commands import main

sys.exit(main())
