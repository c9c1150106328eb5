import numpy as np
import pytest
from scipy.stats import energy_distance as of_scipy

from kcnet_eda.study.two_sample import energy_distance


def test_one_dimension_is_the_square_of_scipys():
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 1, 300), rng.normal(0.5, 2, 400)
    assert energy_distance(x[:, None], y[:, None]) == pytest.approx(of_scipy(x, y) ** 2, rel=1e-10)


def test_it_is_zero_for_the_same_cloud_symmetric_and_blind_to_rotation():
    rng = np.random.default_rng(1)
    x, y = rng.normal(0, 1, (50, 2)), rng.normal(1, 1, (70, 2))
    assert energy_distance(x, x) == pytest.approx(0, abs=1e-14)
    assert energy_distance(x, y) == pytest.approx(energy_distance(y, x)) and energy_distance(x, y) > 0.1
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    assert energy_distance(x @ turn, y @ turn) == pytest.approx(energy_distance(x, y))


def test_two_points_apart():
    assert energy_distance(np.zeros((1, 3)), np.array([[3.0, 4.0, 0.0]])) == pytest.approx(10.0)
