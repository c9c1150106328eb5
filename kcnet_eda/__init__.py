"""kcnet_eda: a compiler from trained KirchhoffNets to analog circuits, with the verification around it.

The functions behind the command line's verbs are in :mod:`kcnet_eda.api`.
"""

__version__ = "0.1.0"
