"""Graph in, `Program` out: pure, without a device or a file."""

import time

LOADED = time.time()
"""When this process began to read the compiler: files that are newer are not the ones it runs."""
