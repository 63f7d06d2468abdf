"""Models: functions `task(spec, cancel)` that return a Dask computation; how they are found, loaded and run."""
