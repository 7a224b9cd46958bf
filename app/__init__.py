"""The service: HTTP, command line, engine, workers, web page. Only this package knows HTTP."""
