"""Cells of a process: sized, characterised, calibrated, run."""
