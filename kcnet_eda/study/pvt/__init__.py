"""Process, supply, temperature, mismatch and noise: ``kcnet study pvt`` and ``mc``."""
