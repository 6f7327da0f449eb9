"""What several tests of the miniature world look at."""

import pytest

from r1jax.mini import corpus


@pytest.fixture(scope='session')
def problems():
  return corpus.reasoning_records('train', 900, seed=3)
