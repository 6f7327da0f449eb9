"""summary.json is whole or absent; a digest names a config and nothing else."""

import json

import pytest

from r1jax.training import summary


def test_write_replaces_whole_files_only(tmp_path):
  path = tmp_path / 'summary.json'
  summary.write_json(path, {'pass@1': 0.5, 'stage': '强化'})
  assert json.loads(path.read_text('utf-8')) == {'pass@1': 0.5, 'stage': '强化'}
  with pytest.raises(TypeError):  # fails halfway through the object
    summary.write_json(path, {'pass@1': 0.6, 'bad': object()})
  assert json.loads(path.read_text('utf-8'))['pass@1'] == 0.5


CONFIG = {'seed': 0, 'optim': {'lr': 1e-4, 'b': (0.9, 0.95)}, 'ref': None}


def test_digest_is_of_the_content():
  reordered = {'ref': None, 'optim': {'b': [0.9, 0.95], 'lr': 1e-4}, 'seed': 0}
  assert summary.config_digest(CONFIG) == summary.config_digest(reordered)
  # Golden: it may change only with the canonical form, which renames every
  # config there is.
  assert summary.config_digest({}) == (
      '44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a')


@pytest.mark.parametrize('other', [
    {'seed': 1}, {'optim': {'lr': 2e-4, 'b': (0.9, 0.95)}}, {'new': 1},
    {'ref': False}])
def test_any_other_value_gives_another_digest(other):
  assert summary.config_digest(CONFIG) != summary.config_digest(CONFIG | other)
