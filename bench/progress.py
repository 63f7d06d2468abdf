"""What is being measured at the moment, said on stderr so that stdout stays the results' own."""

import sys
import time


def say(text: str) -> None:
    """One line with the time of day."""
    print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)
