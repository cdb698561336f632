import doctest

import pytest

from dualrs.evaluation import metrics, table


@pytest.mark.parametrize("module", [metrics, table])
def test_examples(module):
    result = doctest.testmod(module)
    assert result.attempted
    assert not result.failed
