"""The package that models written for the Intens simulation service import from; see `tasks`."""
