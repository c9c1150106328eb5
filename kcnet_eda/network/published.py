"""Networks in the published format: a folder of ``config.yaml`` and ``model.pth``; and in the barebone form.

Source: the code published with Gao, Sun, Boning, arXiv 2310.15872 (``utils/circuit_block.py``, ``utils/model.py``,
``utils/testbench.py``), whose facts are kept and whose text is not.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from kcnet_eda.config import Settings, check_settings, read_yaml
from kcnet_eda.errors import InvalidInputError
from kcnet_eda.files import sha256_file
from kcnet_eda.network import barebone
from kcnet_eda.network.checkpoint import Floats, inspect, read_arrays
from kcnet_eda.network.graph import Edges, Ints, Network, Phase
from kcnet_eda.network.laws import IDENTITY, LEAKY_RELU, PUBLISHED_LAWS, RELU, TANH, PublishedLaw, published_device
from kcnet_eda.network.published_topology import MOST_EDGES, NetStruct, Topology
from kcnet_eda.network.validate import check
