"""The WSGI server: one event loop reads requests, threads answer those that are whole."""
