"""Where 1/f holds and where it breaks: ``kcnet study latency``."""
