"""Several processes that train one model: found or started, gathered, led, watched, counted."""
