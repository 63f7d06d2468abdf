"""The `banyan` command from the source tree."""

from banyan.__main__ import main

if __name__ == "__main__":
    main()
