"""Preferences and labelled steps are kept: read back as they were."""

import json
import pickle

import ml_collections
import numpy as np
import pytest

from r1jax import errors
from r1jax.data import vocabs
from r1jax.stages import preference

NONE = ml_collections.config_dict.placeholder(str)


pytestmark = pytest.mark.usefixtures('token_cache')


@pytest.fixture(name='vocab')
def _vocab():
  """It counts the texts that it tokenises."""
  vocab, texts = vocabs.load_vocab('sentencepiece', 'mini'), []
  encode_all, vocab.done = vocab.encode_all, texts
  vocab.encode_all = lambda some: texts.extend(some) or encode_all(some)
  return vocab


def _config(tmp_path, loss, **changes):
  stepwise = loss == 'stepwise'
  path = tmp_path / f'{loss}.jsonl'
  if not path.exists():
    rows = [dict(prompt=f'What is {n}?', steps=['Well, '] * n, labels=[1] * n)
            if stepwise else
            dict(prompt=f'What is {n}?', chosen='It ' * (1 + n % 2),
                 rejected='is ' * (2 - n % 2)) for n in range(1, 9)]
    rows += [dict(prompt='Long', steps=['a ' * 99], labels=[0]) if stepwise else
             dict(prompt='Long', chosen='a ' * 99, rejected='b'),
             dict(prompt='Odd', steps=['?'], labels=[None]) if stepwise else
             dict(prompt='Odd', responses=['?', '!'], grades=[2, 2])]
    path.write_text('\n'.join(map(json.dumps, rows)))
  return ml_collections.ConfigDict(dict(
      data=dict(task=f'jsonl:{path}', split='train', template='mini',
                system=NONE, options={}),
      preference=dict(
          loss=loss, scores='response', balance_length=False, length=64,
          separator=NONE, margin=0.) | changes))


def _read(vocab, config, split='train', max_len=64, count=None):
  rows = preference.read_rows(config, vocab, max_len, split, count)
  batch = rows.take(np.arange(rows.size))
  return pickle.dumps([np.asarray(x) for x in batch] + [
      list(rows.records), dict(rows.counts)])


@pytest.mark.parametrize('loss', ['pairwise', 'dpo', 'stepwise'])
def test_a_second_reading_gives_the_same_and_tokenises_nothing(
    tmp_path, vocab, token_cache, capsys, loss):
  config = _config(tmp_path, loss)
  first, said = _read(vocab, config), capsys.readouterr().out
  assert said.startswith('2 of 10 ') and 'that exceed' in said
  done = len(vocab.done)
  assert done and _read(vocab, config) == first
  assert capsys.readouterr().out == said and len(vocab.done) == done
  assert len(list(token_cache.iterdir())) == 1


@pytest.mark.parametrize('loss, changes, arguments', [
    ('pairwise', dict(length=16), {}),
    ('pairwise', dict(balance_length=True), {}),
    ('pairwise', dict(scores='summary'), {}), ('pairwise', {}, dict(count=2)),
    ('pairwise', {}, dict(max_len=16)),
    ('pairwise', {}, dict(split='train[1:]')),
    ('stepwise', dict(separator='|'), {}), ('stepwise', {}, dict(count=2))])
def test_another_setting_is_read_anew(
    tmp_path, vocab, token_cache, loss, changes, arguments):
  usual, other = _config(tmp_path, loss), _config(tmp_path, loss, **changes)
  first, second = _read(vocab, usual), _read(vocab, other, **arguments)
  assert len(list(token_cache.iterdir())) == 2
  assert _read(vocab, usual) == first
  assert _read(vocab, other, **arguments) == second


def test_what_tokens_do_not_depend_on_is_no_other_setting(
    tmp_path, vocab, token_cache):
  assert _read(vocab, _config(tmp_path, 'pairwise')) == _read(
      vocab, _config(tmp_path, 'pairwise', margin=1.))
  assert len(list(token_cache.iterdir())) == 1


@pytest.mark.parametrize('loss', ['pairwise', 'stepwise'])
def test_a_changed_file_is_read_anew_and_a_wrong_row_refused(
    tmp_path, vocab, token_cache, loss):
  config = _config(tmp_path, loss)
  first = _read(vocab, config)
  path = tmp_path / f'{loss}.jsonl'
  path.write_text(path.read_text().replace('What is 3?', 'What is 4?'))
  assert _read(vocab, config) != first
  with path.open('a') as file:
    file.write('\n{"prompt": ""}')
  for count in (None, 2):  # also behind the last that is taken
    with pytest.raises(errors.ConfigError, match=f'{path}:11'):
      _read(vocab, config, count=count)
  assert len(list(token_cache.iterdir())) == 2


def test_prompts_of_messages_are_named_by_their_line(tmp_path, vocab):
  config = _config(tmp_path, 'pairwise')
  path = tmp_path / 'pairwise.jsonl'
  row = dict(prompt=[dict(role='user', content='Hi')], chosen='a', rejected='b')
  path.write_text(f'{path.read_text()}\n{json.dumps(row)}')
  with pytest.raises(errors.ConfigError, match=(
      f"^config.data.template: {path}:11: expected 'chat'")):
    _read(vocab, config)
