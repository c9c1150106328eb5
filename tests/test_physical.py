import math

import numpy as np
import pytest
from conftest import driven_corner, make_network, rc_pair
from hypothesis import given
from hypothesis import strategies as st

from kcnet_eda.errors import InvalidInputError
from kcnet_eda.network.laws import IDENTITY
from kcnet_eda.physical import audit as audit_module
from kcnet_eda.physical.audit import audit
from kcnet_eda.physical.scaling import resolve

units = st.floats(min_value=1e-15, max_value=1e3)


def test_default_is_the_papers():
    s = resolve()
    assert (s.c, s.v_unit, s.i_unit, s.t_unit, s.g_unit, s.v_cm) == (1e-12, 1, 1, 1e-12, 1, 0)


@given(c=units, v=units, i=units)
def test_any_two_determine_the_rest(c, v, i):
    s = resolve(c=c, v_unit=v, i_unit=i)
    full = {"v_unit": v, "i_unit": i, "t_unit": s.t_unit, "g_unit": s.g_unit}
    for first in full:
        for second in full:
            if first == second or {first, second} == {"t_unit", "g_unit"}:
                continue
            again = resolve(c=c, **{first: full[first], second: full[second]})
            for name, value in full.items():
                assert getattr(again, name) == pytest.approx(value, rel=1e-12)
    assert resolve(c=c, **full).i_unit == pytest.approx(i, rel=1e-12)


def test_contradictions_and_nonsense_are_refused():
    with pytest.raises(InvalidInputError, match="T_u is given as 1e-09"):
        resolve(v_unit=0.2, i_unit=2e-6, t_unit=1e-9)
    with pytest.raises(InvalidInputError, match="G_u"):
        resolve(t_unit=1e-12, g_unit=2.0)
    with pytest.raises(InvalidInputError, match="2 problems"):
        resolve(c=-1.0, v_unit=math.inf)


def test_audit_of_an_rc_pair_is_its_physics():
    """u decays from 1.5 as exp(−2τ): peak current 1.5, charge 1.5·(1 − e⁻²)/2, heat (1.5²/4)·(1 − e⁻⁴)."""
    found = audit(rc_pair(), np.array([[0, 1.0, -0.5]]), resolve(c=1e-12, v_unit=0.5, t_unit=1e-9))
    i_u, t_u, v_u = 0.5e-3, 1e-9, 0.5
    assert found.edge_current_peak == found.total_current_peak == pytest.approx(1.5 * i_u, rel=1e-12)
    # The trapezoidal rule over 50 steps of a decay of rate 4 leaves (4/50)²/12 = 5e-4 of relative error.
    assert found.charge_moved == pytest.approx(1.5 * (1 - math.exp(-2)) / 2 * i_u * t_u, rel=5.5e-4)
    assert found.energy_dissipated == pytest.approx(1.5**2 / 4 * (1 - math.exp(-4)) * i_u * t_u * v_u, rel=5.5e-4)
    assert found.energy_delivered == 0.0
    assert found.total_current_mean == pytest.approx(found.charge_moved / t_u)
    assert (found.v_min, found.v_max) == pytest.approx((-0.25, 0.5))


def test_a_source_that_charges_a_node_delivers_energy():
    source = make_network([(0, 1, 0.0, 0.0, 1.0, 1.0, IDENTITY)], 2)
    found = audit(source, np.array([[0.0, 0.0]]), resolve())
    assert found.energy_delivered == pytest.approx(0.5e-12, rel=1e-9, abs=0) and found.energy_dissipated == 0.0


def test_audit_is_stable_to_three_digits_in_its_steps(monkeypatch, digits_network):
    x0 = digits_network.initial_state(digits_network.examples)
    coarse = audit(digits_network, x0, resolve()).as_dict()
    monkeypatch.setattr(audit_module, "AUDIT_STEPS", 4 * audit_module.AUDIT_STEPS)
    for name, value in audit(digits_network, x0, resolve()).as_dict().items():
        assert coarse[name] == pytest.approx(value, rel=1e-3), name


def test_common_mode_shifts_the_voltages_only():
    x0 = np.zeros((1, 3))
    low, high = (audit(driven_corner(), x0, resolve(v_cm=v)) for v in (0.0, 1.8))
    assert high.v_max == pytest.approx(low.v_max + 1.8) and high.v_min == pytest.approx(1.8)
    assert high.charge_moved == low.charge_moved
