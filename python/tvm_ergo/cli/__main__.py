"""``python -m tvm_ergo.cli``."""

import sys

from tvm_ergo.cli import main

sys.exit(main())
