"""The tree adds in one order, whoever brings which leaves, and when."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdcompare.scale.tree import Tree, depth

LEAVES = st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=70)
ULP = 2.0**-53


def total(values: list[float], shares: list[list[int]]) -> bytes:
    """Return the bits of the sum, each share added up by itself."""
    whole = Tree(len(values))
    for share in shares:
        part = Tree(len(values))
        for i in share:
            part.add(i, np.array([values[i]]))
        whole.join(part.nodes)
    return whole.total.tobytes()


@given(LEAVES, st.data())
def test_the_bits_are_the_same_for_any_shares_in_any_order(values: list[float], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(values))))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=6)))
    shares = [order[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(values)], strict=True)]

    assert total(values, shares) == total(values, [list(range(len(values)))])


@given(st.lists(st.floats(-1e200, 1e200), min_size=1, max_size=70))
def test_the_error_is_that_of_as_many_roundings_as_the_tree_is_deep(values: list[float]) -> None:
    found = Fraction(float(np.frombuffer(total(values, [list(range(len(values)))]))[0]))
    rounded = depth(len(values)) * ULP

    bound = Fraction(rounded / (1 - rounded)) * sum(abs(Fraction(each)) for each in values)
    assert abs(found - sum(map(Fraction, values))) <= bound


def test_each_leaf_is_in_the_sum_once() -> None:
    for n in range(1, 70):
        ones = [2.0**i for i in range(min(n, 50))] + [0.0] * (n - min(n, 50))
        assert np.frombuffer(total(ones, [list(range(n))]))[0] == sum(ones)


def test_a_sum_from_left_to_right_has_other_bits_than_the_tree() -> None:
    values = np.random.default_rng(0).standard_normal(1000).tolist()
    one_by_one = math.fsum(())
    for each in values:
        one_by_one += each

    assert np.array([one_by_one]).tobytes() != total(values, [list(range(1000))])


@pytest.mark.thorough
def test_leaves_in_order_leave_few_sums_waiting() -> None:
    tree = Tree(100_000)
    for i in range(99_999):
        tree.add(i, np.ones(1))
        assert len(tree.nodes) <= depth(100_000)


def test_a_tree_that_lacks_a_leaf_has_no_sum() -> None:
    tree = Tree(3)
    tree.add(0, np.ones(1))
    tree.add(2, np.ones(1))

    with pytest.raises(ValueError, match="of 3 leaves, not all are there yet"):
        _ = tree.total
