"""Models: Python functions `task(spec, cancel)` that build a Dask graph for the inputs of a task."""
