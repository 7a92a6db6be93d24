"""`python -m gdcompare` is the `gdcompare` command."""

import os
import signal

if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as a shell asks for in the background
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # while what follows is imported, there is nothing to say

from gdcompare.cli import main

main()
