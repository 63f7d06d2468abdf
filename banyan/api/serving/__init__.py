"""The WSGI server: one event loop reads requests, threads respond to complete ones."""
