"""Gradients out of the adjoint circuit: ``kcnet study adjoint``."""
