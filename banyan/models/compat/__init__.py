"""A directory for `sys.path`: packages that models import and that need not be installed."""
