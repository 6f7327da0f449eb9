"""A process reward model's scores: which tokens it reads, how they combine."""

import pytest

from r1jax.rewards import process


def _encode(prompt, steps):
  return list(map(ord, prompt)), [list(map(ord, step)) for step in steps]


def _model(chances=None, batches=None, **changes):
  """Its chance of a step is the share of all tokens that it has read."""
  def plain(batch):
    if batches is not None:
      batches.append(batch)
    return (batch.end + 1) / 100
  return process.ProcessReward(
      'prm', lambda task: dict(double=2.).get(task, 0.), _encode,
      chances or plain, **dict(cut='lines', combination='min', max_len=64,
                               batch=4) | changes)


@pytest.mark.parametrize('how, expected', [
    ('min', .25), ('last', .5), ('product', .25 * .8 * .5)])
def test_steps_become_one_number(how, expected):
  assert process.combine([.8, .25, .5], how) == pytest.approx(expected)
  assert process.combine([], how) == 0.


def test_each_step_is_read_at_its_end_after_all_before_it():
  seen = []
  found, cut = _model(batches=seen).score(
      ['ab', 'c'], [['1\n', '22\n'], ['333\n']])
  assert found == [[pytest.approx(.04), pytest.approx(.07)],
                   [pytest.approx(.05)]]
  assert cut == 0
  batch, = seen
  assert batch.tokens.shape == (4, 64) and batch.end.shape == (4, 8)
  assert ''.join(map(chr, batch.tokens[0, :7])) == 'ab1\n22\n'
  assert batch.tokens[0, batch.end[0, 1]] == ord('\n')


def test_any_number_of_responses_in_batches_of_one_size():
  seen = []
  found, _ = _model(batches=seen).score(
      ['p'] * 9, [['1' * n] for n in range(1, 10)])
  assert [batch.tokens.shape[0] for batch in seen] == [4, 4, 4]
  assert found == [[pytest.approx((1 + n) / 100)] for n in range(1, 10)]


def test_a_long_prompt_loses_its_beginning_and_a_long_response_its_end():
  seen = []
  found, cut = _model(batches=seen, max_len=6).score(
      ['abcdef', 'abc', 'x', 'c'],
      [['1', '2'], ['1234', '5678'], [], ['12345', '6']])
  assert cut == 3
  assert [''.join(map(chr, row)).rstrip('\0') for row in seen[0].tokens[:3]
          ] == ['cdef12', 'c12345', 'x']
  assert found[0] == [pytest.approx(.05), pytest.approx(.06)]
  assert found[1] == [pytest.approx(.05), 0.]  # the second was not read whole
  assert found[2] == [] and found[3] == [pytest.approx(.06), 0.]


def test_scores_are_columns_and_the_weighted_sum_has_them():
  rows = [dict(task=task, response=text, reward=1.) for task, text in (
      ('double', 'a\nb\n'), ('double', ''), ('other', 'c'), ('other', 'd\ne'))]
  counts = _model().apply([dict(prompt='p'), dict(prompt='qq')], rows)
  assert counts == dict(prm_cut=0)
  assert [row['prm/steps'] for row in rows] == [
      [pytest.approx(x) for x in steps]
      for steps in ([.03, .05], [], [.03], [.04, .05])]
  assert [row['prm'] for row in rows] == [
      pytest.approx(x) for x in (.03, 0, .03, .04)]
  assert [row['reward'] for row in rows] == [
      pytest.approx(x) for x in (1.06, 1., 1., 1.)]


def test_only_empty_responses_need_no_model():
  assert _model(lambda batch: 1 / 0).score(['p'], [[]]) == ([[]], 0)
