"""`python -m banyan` is the `banyan` command."""

from banyan.cli.app import main

if __name__ == "__main__":
    main()
