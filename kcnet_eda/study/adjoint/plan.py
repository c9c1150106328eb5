"""A planned adjoint study: which samples at which step counts, and the keys of their results."""

from __future__ import annotations

from dataclasses import dataclass

from kcnet_eda import __version__
from kcnet_eda.dynamics.loss import Loss
from kcnet_eda.dynamics.loss_gradient import STEPS, require_one_phase
from kcnet_eda.dynamics.reference import LARGE
from kcnet_eda.errors import InvalidInputError
from kcnet_eda.export.adjoint import render_adjoint
from kcnet_eda.export.circuit import Circuit, build_circuit
from kcnet_eda.export.netlist import render_netlist
from kcnet_eda.export.testbench import ORDERS, SolverSettings
from kcnet_eda.files import sha256_bytes, sha256_file
from kcnet_eda.network.data import DataSet, load_data
from kcnet_eda.network.graph import Network
from kcnet_eda.physical.scaling import resolve
from kcnet_eda.study.adjoint.settings import AdjointStudy
from kcnet_eda.study.adjoint.simulate import AdjointJob, module_files
from kcnet_eda.study.simulate import require_fit
from kcnet_eda.tools import openvaf
from kcnet_eda.tools.locate import find_openvaf
from kcnet_eda.tools.simulators import NGSPICE

#: Steps of the software's gradient where its own error is judged.
HALVED = STEPS // 2


@dataclass(frozen=True, eq=False)
class AdjointPlan:
    """Every sample at every step count (``jobs`` [step counts][samples]); ``truth_keys`` are where its gradient by the
    software is stored, at :data:`STEPS` steps and at half as many, by sample. Keys are hashes of all that determines a
    result."""

    study: AdjointStudy
    network: Network
    circuit: Circuit
    data: DataSet
    loss: Loss
    jobs: tuple[tuple[AdjointJob, ...], ...]
    truth_keys: tuple[tuple[str, str], ...]


def make_adjoint_plan(study: AdjointStudy, network: Network, network_hash: str) -> AdjointPlan:
    """Plan all samples of ``study`` on its ``network``, whose file has the hash ``network_hash``.

    Raises
    ------
    InvalidInputError
        The network has several phases, a residual or too many edges, or the data do not fit it or the loss.
    ToolMissingError
        There is no ngspice, or no compiler.
    """
    require_one_phase(network)
    if network.n_edges > LARGE:
        raise InvalidInputError(
            f"network {network.name!r}",
            [f"has {network.n_edges} edges; the software's gradient, step by step between corners, is for {LARGE}"],
            "Study a smaller network.",
        )
    loss = Loss(study.loss, study.gain)
    data = load_data(study.data, study.data_dir, features=network.inputs.size, seed=study.seed or 0)
    require_fit(data, network)
    data = data.head(study.samples) if study.seed is None else data.draw(study.samples, study.seed)
    if data.y is None and loss.needs_label:
        raise InvalidInputError(
            f"data {data.name}", [f"has no labels, which the loss {study.loss!r} needs"], "Use the loss 'sum'."
        )
    scaling = resolve(c=study.c, v_unit=study.v_unit, t_unit=study.t_unit, v_cm=study.v_cm)
    circuit = build_circuit(network, scaling, ())
    x0 = network.initial_state(data.x)
    labels = [0] * len(data) if data.y is None else data.y
    sources = [sha256_file(f) for module in module_files(circuit) for f in openvaf.with_includes(module)]
    texts = [render_netlist(circuit, circuit.stages[0], NGSPICE.name), render_adjoint(circuit)]
    tools = [__version__, NGSPICE.version(), openvaf.version(find_openvaf())]
    of_circuit = " ".join([*sources, *(sha256_bytes(text.encode()) for text in texts), *tools])

    def key(what: str, i: int) -> str:
        return sha256_bytes(f"{what} {loss} {labels[i]} ".encode() + x0[i].tobytes())

    def job(steps: int, i: int) -> AdjointJob:
        settings = SolverSettings(study.error, steps, ORDERS[NGSPICE.name])
        found = key(f"{of_circuit} {settings}", i)
        # One is enough to look at, or to run by hand.
        keep = i == 0 and steps == study.steps[-1]
        return AdjointJob(found, int(data.index[i]), int(labels[i]), x0[i], settings, keep)

    rows = range(len(data))
    truth = f"{__version__} {network_hash}"
    return AdjointPlan(
        study,
        network,
        circuit,
        data,
        loss,
        tuple(tuple(job(steps, i) for i in rows) for steps in study.steps),
        tuple((key(f"{truth} {STEPS}", i), key(f"{truth} {HALVED}", i)) for i in rows),
    )
