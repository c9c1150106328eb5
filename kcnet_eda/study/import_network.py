"""``kcnet import``: a network that others trained, checked by what it does before it is written.

A checkpoint does not say which parameter belongs to which edge, or which law it was trained for. So the network has to
do in software what it was trained for; if it does not, edge order or law are wrong and the import failed.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.errors import InvalidInputError
from kcnet_eda.files import require_writable
from kcnet_eda.network.data import gaussian, mnist
from kcnet_eda.network.graph import Network, labels
from kcnet_eda.network.idx import read_mnist
from kcnet_eda.network.published import read_published
from kcnet_eda.network.published_form import GENERATIVE
from kcnet_eda.network.store import save_network
from kcnet_eda.network.toy import TOYS, potential2_given_first
from kcnet_eda.progress import NoProgress, Progress
from kcnet_eda.study.accuracy import wilson

Floats = NDArray[np.float64]

_SEED = 2310  # of the images and points that verify; written into the record
_STEPS = 20  # RK4 steps a phase
_IMAGES, _POINTS, _DRAWN_DIGITS, _EXAMPLES = 500, 1000, 250, 64
#: A generative network has to come this much closer to its distribution than the Gaussian that it starts from. The
#: published networks reach 0.005 to 0.06; with their edges shuffled or their phases reversed, 0.4 to 700.
_CLOSER = 0.2


def import_network(
    path: Path,
    out: Path,
    *,
    data_dir: Path | None = None,
    inputs: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Read the published network at ``path`` (:func:`kcnet_eda.network.published.read_published`), verify it in
    software, and write it to ``out`` with example inputs. Returns what was read and how it was verified: the network's
    ``record["imported"]`` with its sizes and ``warnings``.

    Images are classified (MNIST, from ``data_dir`` or ``$KCNET_DATA``), Gaussian points pushed forward and compared
    with the distribution that they were trained to become. Where no data are at hand, the network is written with a
    warning. ``inputs`` is the number of input nodes where the test bench does not tell.

    Raises
    ------
    InvalidInputError
        The files cannot be used, ``out`` exists or is not called ``*.kcnet``, or the network does not do what it was
        trained for; nothing is written.
    """
    if out.suffix != ".kcnet":
        raise InvalidInputError(f"--out {out}", ["a network file is called *.kcnet"])
    if out.exists():
        raise InvalidInputError(f"--out {out}", ["exists"], "Name another file, or remove this one yourself.")
    network = read_published(path, inputs=inputs)
    require_writable(out.parent)
    imported = dict(network.record["imported"])
    progress = progress or NoProgress()
    if imported["test_bench"] == "mnist":
        verified, examples = _verify_mnist(network, data_dir, progress)
    elif imported["test_bench"] in GENERATIVE:
        verified, examples = _verify_generative(network, imported["test_bench"], data_dir, progress)
    else:
        verified, examples = (
            _not_verified(f"no data are known for its test bench ({imported['test_bench'] or 'not named'})"),
            None,
        )
    if verified["passed"] is False:
        raise InvalidInputError(
            str(path),
            [f"failed import: edge order or law does not fit: {verified['what']}"],
            "Nothing was written. Check that config and checkpoint belong together.",
        )
    imported["verified"] = verified
    network = dataclasses.replace(
        network, examples=np.empty((0, 0)) if examples is None else examples, record={"imported": imported}
    )
    save_network(network, out)
    return imported | {
        "name": network.name,
        "nodes": network.max_nodes,
        "phases": len(network.phases),
        "edges": network.n_edges,
        "inputs": int(network.inputs.size),
        "readout": network.readout.tolist(),
        "warnings": [] if verified["passed"] else [verified["what"]],
    }


def _not_verified(reason: str) -> dict[str, Any]:
    return {"passed": None, "what": f"NOT VERIFIED: {reason}. Whether edge order and law are right is unknown."}


def _no_data(error: InvalidInputError) -> dict[str, Any]:
    return _not_verified(" ".join(str(error).rstrip(".").split()))


def _verify_mnist(network: Network, data_dir: Path | None, progress: Progress) -> tuple[dict[str, Any], Floats | None]:
    try:
        images = mnist("train", data_dir, samples=_IMAGES, seed=_SEED)
    except InvalidInputError as error:
        return _no_data(error), None
    if images.x.shape[1] != network.inputs.size:
        return {"passed": False, "what": f"it has {network.inputs.size} inputs, an image {images.x.shape[1]}"}, None
    v_end = _final(network, images.x, progress)
    sound = np.isfinite(v_end).all(axis=1)
    correct = int(np.count_nonzero((labels(network, v_end) == images.y) & sound))
    low, high = wilson(correct, len(images))
    return {
        "passed": low > 2.0 / network.readout.size,
        "what": f"{100 * correct / len(images):.1f} % of {len(images)} training images are classified correctly",
        "count": correct,
        "n": len(images),
        "wilson95": [low, high],
        "chance": 1.0 / network.readout.size,
        "seed": _SEED,
        "method": f"rk4, {_STEPS} steps a phase",
    }, images.x[:_EXAMPLES]


def _verify_generative(
    network: Network, bench: str, data_dir: Path | None, progress: Progress
) -> tuple[dict[str, Any], Floats]:
    n = _DRAWN_DIGITS if bench == "genmnist" else _POINTS
    start = gaussian(n, network.inputs.size, _SEED).x
    examples = start[:_EXAMPLES]
    if bench not in TOYS and bench not in ("potential2", "genmnist"):
        return _not_verified(f"the distribution of {bench} is not known"), examples
    rng = np.random.default_rng([_SEED, 1])
    true = TOYS[bench](n, rng) if bench in TOYS else None
    if bench == "genmnist":
        try:
            images, digits = read_mnist("train", data_dir)
        except InvalidInputError as error:
            return _no_data(error), examples
        true = images[digits == 2].reshape(-1, images[0].size)[:_POINTS] / 255.0  # it was trained on the twos alone
    v_end = _final(network, start, progress)
    pushed = v_end[:, network.readout]
    if not np.isfinite(pushed).all():
        return {"passed": False, "what": "its voltages do not stay finite"}, examples
    if true is not None and true.shape[1] != pushed.shape[1]:
        what = f"it has {pushed.shape[1]} outputs, a sample of {bench} {true.shape[1]} values"
        return {"passed": False, "what": what}, examples
    from kcnet_eda.study.two_sample import energy_distance  # nor for scipy

    reached, without = (
        energy_distance(points, potential2_given_first(points, rng) if true is None else true)
        for points in (pushed, start)
    )
    given = ", the first coordinate given" if true is None else ""
    return {
        "passed": reached <= _CLOSER * without,
        "what": f"energy distance to {bench}{given}: {reached:.4f}, from {without:.4f} for the Gaussian it starts from",
        "energy_distance": reached,
        "energy_distance_gaussian": without,
        "n": n,
        "seed": _SEED,
        "method": f"rk4, {_STEPS} steps a phase",
    }, examples


def _final(network: Network, x: Floats, progress: Progress) -> Floats:
    """v(T) [samples, nodes]."""
    from kcnet_eda.dynamics.engine import evolve  # a file that is refused does not wait for the compiled kernel

    with progress.stage("verifying", len(x)) as advance:
        return evolve(network, network.initial_state(x), steps=_STEPS, dtype=np.float64, done=advance).v_end
