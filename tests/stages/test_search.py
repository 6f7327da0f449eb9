"""Search as a stage: its files, its resumes, and the same on any mesh."""

import sys
import types

import jax
import numpy as np
import pytest

import tiny
import tiny_rl
from experiments import common
from experiments import reward_sections
from experiments import sample_sections
from experiments import sections
from r1jax import errors
from r1jax import stages
from r1jax.data import batches
from r1jax.data import vocabs
from r1jax.kernels import step_tree
from r1jax.parallel import sharding
from r1jax.stages import scoring
from r1jax.stages import search
from r1jax.stages import train_state
from r1jax.training import files
from r1jax.training import loop
from r1jax.types import Prompts, Rollout

pytest.importorskip('mctx')

PLAIN = tiny_rl.SETTINGS._replace(group=3, response_tokens=9, temperature=1.)
TREES = step_tree.Settings(
    width=3, step_tokens=5, response_tokens=9, eos_ids=(tiny.EOS, 4),
    stop_ids=(6, 7, 12, 20), temperature=1., top_k=0, top_p=1., simulations=6,
    exploration=1.25, least_visits=2)


class Cutter:
  stop_ids = TREES.stop_ids

  def __call__(self, tokens):
    return [' '.join(map(str, tokens))]


def _found(sizes=None, trees=TREES, batch=None, value=True):
  policy, valued = tiny.setup(sizes), tiny.setup(sizes, scalar=True)
  searcher = search.Searcher(
      policy, valued if value else None,
      PLAIN._replace(eos_ids=trees.eos_ids), trees)
  params = step_tree.Models(
      tiny.placed(policy), tiny.placed(valued, scalar=True) if value else None)
  batch = batch or tiny_rl.draw(0)
  found = searcher(params, batch, 0, 3)
  return found, scoring.RolloutScorer(
      tiny_rl.Vocab(), tiny_rl.Scorer())(found.rollout, batch)


def test_the_chosen_response_is_first_and_all_are_distinct_and_ended():
  found, scored = _found()
  tokens, mask = map(np.asarray, (found.rollout.tokens, found.rollout.mask))
  assert tokens.shape == (24, 9) and found.real.shape == (24,)
  assert found.real.reshape(8, 3)[:, 0].all()
  texts = [tuple(row[:n]) for row, n in zip(tokens, mask.sum(1))]
  for b in range(8):
    group = [texts[n] for n in range(3 * b, 3 * b + 3) if found.real[n]]
    assert len(set(group)) == len(group)
    assert all(text[-1] in TREES.eos_ids for text in group[1:])
  assert (~found.real).any() and found.real.sum() > 8
  rows = search.logged(scored.rows, found, Cutter())
  assert len(rows) == found.real.sum()
  assert sum(row['search/chosen'] for row in rows) == 8
  assert sum('search/visits' in row for row in rows) == 8
  for row in rows:
    if 'search/visits' in row:
      assert all(sum(x) == 6 for x in row['search/visits'])
  figures = search.metrics(rows)
  assert figures['perf/tokens'] == found.drawn.sum() > 8 * 3 * 2
  assert figures['search/responses'] == len(rows) / 8


def test_one_device_and_eight_find_the_same():
  one, eight = (_found(sizes)[0] for sizes in (None, {'fsdp': 8}))
  np.testing.assert_array_equal(one.rollout.tokens, eight.rollout.tokens)
  np.testing.assert_array_equal(one.drawn, eight.drawn)
  np.testing.assert_allclose(one.value, eight.value, atol=1e-5)


def test_plain_samples_have_the_values_of_a_trees_nodes():
  """A tree's finished nodes and the same responses scored whole."""
  found, _ = _found(trees=TREES._replace(simulations=0))
  assert found.real.all() and found.trees == [{}] * 8
  mask = np.asarray(found.rollout.mask)
  assert found.drawn.tolist() == mask.sum(1).reshape(8, 3).sum(1).tolist()
  tree, _ = _found()
  model = tiny.model(scalar=True)
  params = tiny.params(scalar=True)
  value = search._value_of(
      model, params, jax.tree.map(np.asarray, tree.rollout.prompts),
      jax.tree.map(np.asarray, tree.rollout._replace(prompts=None)),
      TREES.eos_ids)
  np.testing.assert_allclose(
      tree.value[tree.real], np.asarray(value)[tree.real], atol=1e-5)
  assert len(np.unique(found.value.round(4))) > 6


def test_steps_are_cut_as_trees_grow_them():
  text = 'a.b\n cd。'
  vocab = types.SimpleNamespace(
      size=8, decode=lambda ids: ''.join(text[n] for n in ids),
      encode=lambda text: [3])
  cut = search.StepCutter(vocab, ('.', '\n', '。'), 4)
  assert cut.stop_ids == (1, 3, 7)
  ids = np.array([4, 3, 0, 1, 2, 2, 3, 4, 3, 5, 6, 0, 2, 6, 7, 0])
  assert cut(ids) == [' \na.', 'bb\n \n', 'cdab', 'd。', 'a']
  assert cut(ids[:0]) == cut(ids[:2]) == []
  with pytest.raises(errors.ConfigError, match='config.search.ends'):
    search.StepCutter(vocab, ('x',), 4)
  with pytest.raises(errors.ConfigError, match='config.search.ends.*empty'):
    search.StepCutter(vocab, ('.', ''), 4)


def test_a_step_keeps_the_space_that_a_text_would_lose():
  words = ' a', ' b.', ' c', '\n'
  vocab = types.SimpleNamespace(size=4, decode=lambda ids: ''.join(
      words[n] for n in ids).removeprefix(' '), encode=lambda text: [3])
  cut = search.StepCutter(vocab, ('.',), 9)
  assert cut(np.array([0, 1, 2, 1, 2])) == [' a b.', ' c b.', ' c']


def test_a_step_ends_before_half_a_character():
  words = 'a'.encode(), *(bytes([n]) for n in '再'.encode()), b'.'
  vocab = types.SimpleNamespace(size=5, decode=lambda ids: b''.join(
      words[n] for n in ids).decode(errors='replace'), encode=lambda text: [0])
  cut = search.StepCutter(vocab, ('.',), 3)
  assert cut(np.array([0, 1, 2, 3, 0, 4, 0, 1])) == ['a', '再a.', 'a\ufffd']


def test_long_responses_are_cut_as_short_ones_in_linear_time():
  words, decoded = (' a', ' b.', '\n'), []

  def decode(ids):
    decoded.append(len(ids))
    return ''.join(words[n] for n in ids).removeprefix(' ')

  vocab = types.SimpleNamespace(size=3, decode=decode, encode=lambda text: [2])
  cut = search.StepCutter(vocab, ('.',), 9)
  counts = []
  for times in (100, 400):
    decoded.clear()
    assert cut(np.array([0, 0, 1] * times)) == [' a a b.'] * times
    counts.append(sum(decoded))
  assert counts[1] < 4.5 * counts[0]


def test_labels_are_outcomes_and_quality():
  row = lambda i, steps, right: {
      'step': 0, 'id': i, 'prompt': f'p{i}', 'accuracy': right, 'task': 't',
      'search/steps': steps}
  rows = [row(0, ['a', 'b'], 1.), row(0, ['c'], 0.), row(0, [], 0.),
          row(1, ['a'], 0.)]
  lines = list(search.labelled(rows))
  assert [line['outcome'] for line in lines] == [[1., 1.], [0.], [0.]]
  assert [line['quality'] for line in lines] == [[.5, 1.], [0.], [None]]
  assert [line['prompt'] for line in lines] == ['p0', 'p0', 'p1']


def _config(**changes):
  return common.base(
      'search', init_from='mini', model=common.mini_model(),
      vocab=common.mini_vocab(),
      data=sections.prompts('mini_reasoning', num_prompts=12, seed=1),
      rl=sections.searched(prompts=8, group=2, prompt_tokens=32,
                           response_tokens=32, sample_chunk=32),
      rewards=reward_sections.rewards(), keep=sample_sections.keep(format=False),
      search=sample_sections.search(
          width=2, ends=('.', '。'), step_tokens=8, **changes))


def _run(config, workdir):
  stage = stages.build(config, sharding.make_mesh(config.mesh), str(workdir))
  return loop.train(stage, stages.loop_settings(config), str(workdir),
                    config.to_dict())


class _Said:
  """In place of a searcher: two responses to each prompt, which cost 50."""

  def __init__(self, policy, value, plain, trees):
    assert (value, trees.simulations, trees.width) == (None, 3, 2)
    self._mesh, self._length = policy.mesh, plain.response_tokens
    self._vocab = vocabs.load_vocab('sentencepiece', 'mini')

  def __call__(self, params, batch, seed, stream):
    assert params.policy == {} and params.value is None
    rows = [self._vocab.encode(f' <think> {n}. </think> <answer> {said} '
                               '</answer>') + [self._vocab.eos_id]
            for n, record in zip(batch.id, [*batch.records, *batch.records])
            for said in ('?', record['answer'])]
    tokens, length = batches.pad_right(rows, self._length)
    mask = np.arange(self._length) < length[:, None]
    count = len(rows) // 2
    return search.Found(
        Rollout(sharding.from_host(Prompts(batch.tokens, batch.length, batch.id),
                                   self._mesh),
                *sharding.from_host((tokens, mask, 0. * mask), self._mesh)),
        np.full(2 * count, .25, np.float32), np.ones(2 * count, bool),
        np.full(count, 50), [{'search/visits': [[3, 0]]}] * count)


def test_a_run_leaves_its_files_and_resumes(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(search, 'Searcher', _Said)
  monkeypatch.setattr(train_state, 'init_params', lambda *args: {})
  _run(_config(simulations=3), tmp_path / 'whole')
  said = capsys.readouterr().out
  rows = files.read_rows(tmp_path / 'whole/rollouts.jsonl')
  assert [(row['step'], row['id']) for row in rows] == [
      (n // 8, n) for n in range(12) for _ in range(2)]
  assert [row['accuracy'] for row in rows[1::2]] == 12 * [1.]
  assert all(''.join(row['search/steps']).strip() == row['response'].strip()
             and len(row['search/steps']) > 1 for row in rows)
  assert 'of 12 responses are right; 50 tokens drawn for a prompt' in said
  lines = files.read_rows(tmp_path / 'whole/steps.jsonl')
  assert lines[1]['quality'][-1] == 1. and len(lines) == 24
  kept, = (tmp_path / 'whole').glob('kept-*.jsonl')
  assert len(files.read_rows(kept)) == 12

  stage = stages.build(
      _config(simulations=3), sharding.make_mesh(_config().mesh),
      str(tmp_path / 'parts'))

  def stopped(state, index):
    if index == 1:
      raise KeyboardInterrupt
    return stage.step(state, index)

  settings = stages.loop_settings(_config())._replace(checkpoint_every_steps=1)
  with pytest.raises(KeyboardInterrupt):
    loop.train(stage._replace(step=stopped), settings, str(tmp_path / 'parts'),
               _config(simulations=3).to_dict())
  _run(_config(simulations=3), tmp_path / 'parts')
  for name in ('rollouts.jsonl', 'steps.jsonl'):
    assert (tmp_path / 'parts' / name).read_bytes() == (
        tmp_path / 'whole' / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize('simulations', [0, 3])
def test_the_mini_model_is_searched_from_one_step_to_the_next(
    simulations, tmp_path):
  _run(_config(simulations=simulations), tmp_path)
  rows = files.read_rows(tmp_path / 'rollouts.jsonl')
  assert sorted({(row['step'], row['id']) for row in rows}) == [
      (n // 8, n) for n in range(12)]
  assert all(''.join(row['search/steps']).strip() == row['response'].strip()
             for row in rows)
  chosen = [row for row in rows if row['search/chosen']]
  assert len(chosen) == (12 if simulations else len(rows))


def test_a_value_model_needs_a_head_and_the_policys_vocabulary(tmp_path):
  for init_from in ('mini', 'mini_student'):
    with pytest.raises(errors.ConfigError, match='config.search.init_from'):
      _run(_config(init_from=init_from), tmp_path)


def test_without_mctx_there_are_plain_samples_alone(monkeypatch):
  monkeypatch.setitem(sys.modules, 'mctx', None)
  section = sample_sections.search()
  with pytest.raises(errors.ConfigError, match=r'r1jax\[search\]'):
    search.tree_settings(section, PLAIN, (6,))
  section.simulations = 0
  assert search.tree_settings(section, PLAIN, (6,)).stop_ids == (6,)


@pytest.mark.parametrize('same', [dict(temperature=0.), dict(top_k=1)], ids=str)
def test_a_tree_whose_steps_are_all_the_same_is_refused(same):
  section, plain = sample_sections.search(), PLAIN._replace(**same)
  with pytest.raises(errors.ConfigError, match='config.rl.temperature'):
    search.tree_settings(section, plain, (6,))
  section.width = 1
  assert search.tree_settings(section, plain, (6,)).width == 1
  section.update(width=2, simulations=0)
  assert search.tree_settings(section, plain, (6,)).simulations == 0
