"""Models: functions `task(spec, cancel)` that return a Dask computation; the search for them, loading and running."""
