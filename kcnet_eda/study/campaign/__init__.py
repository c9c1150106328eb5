"""Many runs that cannot be lost: farms, ladders of solver options, tables of runs."""
