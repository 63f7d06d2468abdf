"""The `banyan` command from the source tree."""

from banyan.cli.app import main

if __name__ == "__main__":
    main()
