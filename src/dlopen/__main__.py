"""`python -m dlopen`."""

import sys

from dlopen._command_line import main

sys.exit(main())
