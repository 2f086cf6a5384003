"""What every test process begins with."""

import signal

# A shell's background jobs begin with Ctrl-C ignored, and so would every command that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
