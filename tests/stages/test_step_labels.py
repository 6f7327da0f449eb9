"""Steps are labelled by what they lead to; equal beginnings once; resumed."""

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
from r1jax.data import batches
from r1jax.parallel import sharding
from r1jax.rewards import score
from r1jax.stages import rollouts
from r1jax.stages import sample
from r1jax.stages import scoring
from r1jax.stages import step_labels
from r1jax.training import files
from r1jax.training import loop


class Rule:
  """Right is a response whose numbers have an even sum."""

  def __init__(self):
    self.texts = []

  def score(self, records, responses):
    self.texts += [response.text for response in responses]
    right = np.float32([sum(map(int, r.text.split())) % 2 == 0
                        for r in responses])
    return score.Scores(right, {'accuracy': right}, {'timeouts': 1})


def _complete(begun, size=4, completions=3, rule=None):
  placed = tiny.setup()
  completer = step_labels.Completer(
      rollouts.Sampler(placed, tiny_rl.SETTINGS._replace(group=completions)),
      scoring.RolloutScorer(tiny_rl.Vocab(), rule or Rule()), 12, size, 0)
  batch = batches.slice_of(tiny_rl.prompt_set(), 0, 2)
  return completer(tiny.placed(placed), batch, begun, 5)


def test_the_label_of_a_step_is_the_share_of_right_completions_after_it():
  rule = Rule()
  begun = [[(3,), (3, 5)], [(3,)], [(4,)], []]  # two prompts, groups of two
  shares, spent, counters = _complete(begun, rule=rule)
  assert shares[0][0] == shares[1][0] and list(map(len, shares)) == [2, 1, 1, 0]
  assert len(rule.texts) == 3 * 3  # three distinct beginnings
  for n, (share, start) in enumerate((
      (shares[0][0], '3'), (shares[0][1], '3 5'), (shares[2][0], '4'))):
    texts = rule.texts[3 * n:3 * n + 3]
    assert all(text.split()[:len(start.split())] == start.split()
               for text in texts)
    even = [sum(map(int, text.split())) % 2 == 0 for text in texts]
    assert share == pytest.approx(np.mean(even))
  assert spent >= 9
  assert counters == {'timeouts': 1}  # of one batch


def test_the_batch_changes_no_label():
  begun = [[(3,), (3, 5), (7, 8, 9)], [(3, 6)], [(4,), (4, 4)], [(2,)]]
  *whole, counters = _complete(begun, size=8)
  assert counters == {'timeouts': 1}
  for size, times in ((2, 4), (3, 3)):
    *parts, counters = _complete(begun, size=size)
    assert parts == whole and counters == {'timeouts': times}


def _row(n, response, steps, soft, **more):
  return dict(id=n, prompt=f'p{n}', task='t', response=response, steps=steps,
              soft=soft, accuracy=soft[-1] if soft else 0.) | more


def test_lines_and_their_counts_by_hand():
  rows = [_row(0, 'a b', ['a', ' b'], [.25, 1.]),
          _row(0, ' a b', ['a', ' b'], [.25, 1.]), _row(1, '', [], []),
          _row(1, 'a b', ['a', ' b'], [.5, 0.])]
  lines, counts = step_labels.labelled(rows)
  assert lines == [
      dict(prompt='p0', steps=['a', ' b'], soft=[.25, 1.], task='t',
           accuracy=1., hard=[1., 1.]),
      dict(prompt='p1', steps=['a', ' b'], soft=[.5, 0.], task='t',
           accuracy=0., hard=[1., 0.])]
  assert counts == dict(kept=2, steps=4, repeated=1, empty=1, disagreed=0,
                        no_verdict=0)


@pytest.mark.parametrize('judge, reason', [
    (1, 'kept'), (0, 'disagreed'), (-1, 'disagreed'), (None, 'no_verdict')])
def test_a_judge_must_find_the_same_first_wrong_step(judge, reason):
  row = _row(0, 'a b c', ['a', ' b', ' c'], [.1, 0., 0.], judge=judge)
  assert step_labels.labelled([row])[1][reason] == 1
  right = _row(0, 'a b', ['a', ' b'], [.1, 1.], judge=judge)
  assert (step_labels.labelled([right])[1]['kept'] == 1) == (judge == -1)


def test_the_judge_is_asked_about_steps_alone():
  asked = []

  def ask(texts, attempt):
    asked.extend(texts)
    return ['{"first_wrong_step": 0}'] * len(texts)

  rows = [_row(0, '', [], [], answer=1), _row(1, 'a', ['a'], [1.], answer=1)]
  counters = step_labels._judged(
      types.SimpleNamespace(ask=ask, retries=0), rows)
  assert len(asked) == 1 and not any(counters.values())
  assert [row['judge'] for row in rows] == [None, -1]
  assert step_labels.labelled(rows)[1] == dict(
      kept=1, steps=1, repeated=0, empty=1, disagreed=0, no_verdict=0)


def _stage(workdir, **changes):
  config = common.base(
      'step_labels', init_from='mini', model=common.mini_model(),
      vocab=common.mini_vocab(),
      data=sections.prompts('mini_reasoning', num_prompts=6),
      rl=sections.sampling(prompts=4, group=2, prompt_tokens=32,
                           response_tokens=12, sample_chunk=12),
      rewards=reward_sections.rewards(weights=dict(format=0.)),
      labelling=sample_sections.labelling(
          cut='sentences', completions=2, batch=4))
  config.rl.update(changes)
  mesh = sharding.make_mesh({}, jax.devices()[:1])
  return step_labels.build(config, mesh, str(workdir)), config.to_dict()


def test_resumed_it_ends_with_the_same_labels(tmp_path):
  rows = []
  for name, stops in (('whole', (2,)), ('parts', (1, 2))):
    stage, config = _stage(tmp_path / name)
    assert stage.steps == 2
    for steps in stops:
      last = dict(finish=None) if steps < 2 else {}
      loop.train(stage._replace(steps=steps, **last), loop.Settings(1, 2),
                 str(tmp_path / name), config | dict(steps=steps))
    rows.append(files.read_rows(tmp_path / name / step_labels.STEPS))
  assert rows[0] == rows[1] and rows[0]
  logged = files.read_rows(tmp_path / 'whole' / 'rollouts.jsonl')
  assert len(logged) == 12
  for row in logged:
    assert len(row['soft']) == len(row['steps'])
    assert ''.join(row['steps']) in (row['response'], '')
    assert not row['steps'] or row['soft'][-1] == row['accuracy']
  graded = files.read_rows(tmp_path / 'whole' / sample.PREFERENCES)
  assert sum(len(line['grades']) for line in graded) >= len(rows[0])
  assert {grade for line in graded for grade in line['grades']} <= {0., 1.}


def test_a_model_too_short_for_a_completion_is_refused(tmp_path):
  with pytest.raises(errors.ConfigError, match='2 [*] rl.response_tokens'):
    _stage(tmp_path, response_tokens=120)


def test_samples_and_completions_are_scored_as_the_config_says(
    tmp_path, monkeypatch):
  made = []
  monkeypatch.setattr(
      rollouts, 'Sampler', lambda placed, settings, in_pieces: made.append(
          (settings.group, in_pieces)))
  _stage(tmp_path, score_while_sampling=True)
  assert made == [(2, True), (2, True)]
