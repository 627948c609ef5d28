"""What every test stands on."""

import signal

# A run of the tests in the background inherits that Ctrl-C is ignored, and so would the commands that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
