"""The report of process reward models, from what its stages would leave."""

import pytest

from r1jax.reports import prm
from r1jax.training import files


def _row(n, answer, right, steps, orm, **more):
  return dict(
      id=n // 4, prompt=f'Count <{n // 4}>', answer='7', tokens=9,
      response=f'<answer> {answer} </answer>', accuracy=float(right), orm=orm,
      prm=min(steps), **{'prm/steps': steps}) | more


def _samples():
  """Two problems: the PRM's least step and the ORM choose differently."""
  return [_row(0, 7, True, [.9, .8], -1.), _row(1, 8, False, [.2, .95], 3.),
          _row(2, 8, False, [.1, .1], 0.), _row(3, 9, False, [.3, .3], 1.),
          _row(4, 7, True, [.5, .5], 2.), _row(5, 7, True, [.4, .6], 1.),
          _row(6, 8, False, [.45, .55], 0.), _row(7, 9, False, [.1], -1.)]


def _labels():
  label = lambda n, text, steps, soft, right: dict(
      id=n, response=text, steps=steps, soft=soft, accuracy=right)
  first = label(0, 'a', ['1+1=2.', ' 2+1=4.', ' Easy.', ' x'],
                [.5, .25, 0., 0.], 0.)
  return [first, first,
          label(1, '3+3=6', ['2+2=4.', ' 3+3=6'], [0., 1.], 1.),
          label(2, 'I know', ['I know.', ' 4'], [.5, 1.], 1.),
          label(3, 'Easy', [' 4'], [0.], 0.)]


@pytest.fixture(name='folder')
def _folder(tmp_path):
  for name in ('best_of_n', 'labels', 'prm', 'orm', *prm._RUNS):
    (tmp_path / name).mkdir()
  files.write_rows(tmp_path / 'best_of_n/rollouts.jsonl', _samples())
  files.write_rows(tmp_path / 'labels/rollouts.jsonl', _labels())
  after = dict(accuracy=.9, ci95=[.8, .95], f1=None, calibration_error=.05)
  for name in ('prm', 'orm'):
    files.write_json(tmp_path / name / 'summary.json', {'after': after})
  figures = lambda score, right: {
      'pass@1': right, 'ci95': [0., 1.], 'prm': score, 'response_length': 30.,
      'format': .5, 'n': 2}
  for name in prm._RUNS:
    files.write_json(tmp_path / name / 'summary.json', dict(
        steps=3, before=figures(.25, .2), after=figures(.75, .1)))
    files.write_rows(tmp_path / name / 'metrics.jsonl', [
        {'step': i, 'reward/prm': .1 * i, 'reward/accuracy': right,
         'response_length/mean': 30., 'policy/entropy': 1.}
        for i, right in enumerate((.1, .6, .6, .6, .6, .6, .1))])
    files.write_rows(tmp_path / name / 'evaluation_3.jsonl', _samples())
  return tmp_path


def test_the_choices_of_each_score():
  found = prm.choices(_samples())
  value = {name: [figure.value for figure in part.values()]
           for name, part in found.items()}
  assert list(next(iter(found.values()))) == [1, 2, 4]
  assert all(part[0] == pytest.approx(3 / 8) for part in value.values())
  assert value['PRM, least'][2] == 1. and value['ORM'][2] == .5
  assert value['PRM, last'][2] == .5  # .95 is a wrong response's
  assert value['majority'][2] == .5 and value['any of them right'][2] == 1.


def test_the_labels_beside_what_can_be_checked():
  found = prm.label_quality(_labels())
  assert found == {name: pytest.approx(value) for name, value in dict(
      steps=5, no_equation=2 / 5, false=1 / 3, false_called_right=1.,
      false_soft=.25, true_called_wrong=.5, true_soft=.25, guessed=1 / 3
  ).items()}


def test_the_page_says_what_was_measured_and_shows_what_was_hacked(folder):
  words = prm.write_report({'name': 'prm.py:mini'}, str(folder))
  page = (folder / 'report.html').read_text('utf-8')
  assert page.count('<svg') == 5 and '&lt;0&gt;' in page
  assert 'PRM 0.250 to 0.750, accuracy 20.0 % to 10.0 %' in words
  assert 'best of 4: PRM, least 100.0 %, ORM 50.0 %' in words
  assert page.count('✗ wrong') == 2  # the best one of each problem
  assert ('at best 60.0 % at steps 1 to 5, where the PRM gave 0.300') in words
  kept = files.read_json(folder / 'summary.json')
  assert kept['policies']['grpo_rule']['after']['pass@1'] == .1
  assert kept['labels']['steps'] == 5
