"""The report of process reward models: do they pick, and do they hold?

Four questions, the last three of which are the paper's reasons to give them up
(DeepSeek-R1, arXiv 2501.12948v1, 4.2): does the model choose better among
samples than an outcome model or a vote; is a step defined; is it known whether
a step is right; and does a policy that is trained on the score earn it by right
answers.
"""

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

import numpy as np

from r1jax.mini import arithmetic
from r1jax.reports import best_of
from r1jax.reports import charts
from r1jax.reports import intervals
from r1jax.reports import page
from r1jax.rewards import answers
from r1jax.rewards import process
from r1jax.training import files

_HACKED = 'grpo_process'
_RUNS = {_HACKED: 'GRPO on the PRM', 'grpo_rule': 'GRPO on the rule'}
_SHOWN = 4  # hacked responses
_DRAWN = ('PRM, least', 'ORM', 'majority')  # of the ways to choose
_WINDOW = 5  # steps of training over which a curve is averaged


def write_report(config: Mapping[str, Any], workdir: str) -> str:
  """Writes report.html into a pipeline's workdir; returns the closing words."""
  folder = pathlib.Path(workdir)
  samples = files.need_rows(folder / 'best_of_n' / 'rollouts.jsonl')
  models = {name: files.need_json(folder / name / 'summary.json', ['after'])
            ['after'] for name in ('prm', 'orm')}
  curves = choices(samples)
  labelled = label_quality(
      files.need_rows(folder / 'labels' / 'rollouts.jsonl'))
  metrics = {name: files.need_rows(folder / name / 'metrics.jsonl')
             for name in _RUNS}
  policies = {name: outcome(folder / name, metrics[name]) for name in _RUNS}
  files.write_json(folder / 'summary.json', {
      'best_of_n': {name: dict(part) for name, part in curves.items()},
      'labels': labelled, 'models': models, 'policies': policies})
  said = statements(curves, labelled, policies)
  page.render_page(
      folder / 'report.html', 'prm.html.jinja',
      title='Process reward models in miniature', kicker=config['name'],
      config=config, statements=said, chosen=_choice_rows(curves),
      sizes=list(next(iter(curves.values()))),
      n=len({row['id'] for row in samples}), k=max(
          next(iter(curves.values()))), labels=_label_rows(labelled),
      models=_model_rows(models), best=_best_chart(curves),
      policies=[(_RUNS[name], *_policy_cells(found))
                for name, found in policies.items()],
      curves=_over_steps(metrics), samples=_hacked(folder))
  return '\n'.join([*said, f'report: {folder / "report.html"}'])


###############################################################################
# Best of N
###############################################################################


def choices(rows: Sequence[Mapping[str, Any]]
            ) -> dict[str, dict[int, intervals.Figure]]:
  """The accuracy of each way to choose among N samples, by way and N.

  The interval is over problems.

  Args:
    rows: k logged samples of each problem, with the scores of a process reward
      model 'prm' and of an outcome model 'orm'.
  """
  problems = {}
  for row in rows:
    problems.setdefault(row['id'], []).append(row)
  k = min(map(len, problems.values()))
  sizes = [2 ** i for i in range(k.bit_length())]
  found = {}
  for problem in problems.values():
    right = [float(row['accuracy'] == 1) for row in problem]
    for name, score in _scores(problem).items():
      found.setdefault(name, []).append(
          [best_of.best(score, right, n) for n in sizes])
    said = [answers.extract_answer(row['response'], 'tags') for row in problem]
    found.setdefault('majority', []).append(
        best_of.majority(said, right, sizes))
    found.setdefault('any of them right', []).append(
        [best_of.best(right, right, n) for n in sizes])
  return {name: {n: intervals.mean(column) for n, column in zip(
      sizes, np.array(part).T)} for name, part in found.items()}


def _scores(problem: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
  names = {'min': 'least', 'last': 'last', 'product': 'product'}
  return {f'PRM, {names[how]}': [process.combine(row['prm/steps'], how)
                                 for row in problem]
          for how in process.COMBINATIONS} | {
              'ORM': [row['orm'] for row in problem]}


def _choice_rows(curves) -> list[list[str]]:
  return [[name, *(intervals.text(figure) for figure in part.values())]
          for name, part in curves.items()]


def _best_chart(curves) -> charts.Chart:
  return charts.Chart(
      'Accuracy of the choice', {
          name: [(np.log2(n), figure.value) for n, figure in part.items()]
          for name, part in curves.items() if name in _DRAWN},
      percent=True, x_label='doublings of N')


###############################################################################
# Labels
###############################################################################


def label_quality(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
  """What the rollouts' labels say of steps whose equations are checked here.

  Over distinct responses, without their last steps, whose label is the rule's:
  'steps'; 'no_equation', the share in which nothing can be checked; of the
  others 'false', the share with an equation that does not hold; of these
  'false_called_right' by the hard label and 'false_soft', the mean soft label;
  the same of the true ones, 'true_called_wrong' and 'true_soft'. Then
  'guessed', the share of right responses among those without any equation.
  """
  distinct = {(row['id'], row['response']): row for row in rows}.values()
  holds, soft, guesses = [], [], []
  for row in distinct:
    holds += map(arithmetic.holds, row['steps'][:-1])
    soft += row['soft'][:-1]
    if arithmetic.holds(row['response']) is None:
      guesses.append(row['accuracy'])
  of = lambda value: np.array(
      [share for share, held in zip(soft, holds) if held is value])
  mean = lambda values: float(np.mean(values)) if len(values) else 0.
  true, false = of(True), of(False)
  return {
      'steps': len(soft), 'no_equation': mean([held is None for held in holds]),
      'false': mean([held is False for held in holds if held is not None]),
      'false_called_right': mean(false > 0), 'false_soft': mean(false),
      'true_called_wrong': mean(true == 0), 'true_soft': mean(true),
      'guessed': mean(guesses)}


def _label_rows(found: Mapping[str, float]) -> list[tuple[str, str]]:
  percent = intervals.percent
  return [
      ('steps before the last, of distinct responses', f'{found["steps"]}'),
      ('without an equation: nothing to check', percent(found['no_equation'])),
      ('false, of those with equations', percent(found['false'])),
      ('false ones that the hard label calls right',
       percent(found['false_called_right'])),
      ('true ones that it calls wrong', percent(found['true_called_wrong'])),
      ('mean soft label of false and of true ones',
       f'{found["false_soft"]:.2f} · {found["true_soft"]:.2f}')]


def _model_rows(models: Mapping[str, Any]) -> list[tuple[str, str]]:
  prm, orm = models['prm'], models['orm']
  figure = lambda found: intervals.text(
      intervals.Figure(found['accuracy'], *found['ci95']), interval=True)
  f1 = '–' if prm['f1'] is None else intervals.percent(prm['f1'])
  return [('PRM: held-out steps on the right side of ½', figure(prm)),
          ('PRM: first wrong step found (F1 of ProcessBench)', f1),
          ('PRM: calibration error', f'{prm["calibration_error"]:.3f}'),
          ('ORM: held-out responses classified correctly', figure(orm))]


###############################################################################
# Policies
###############################################################################


def outcome(folder: pathlib.Path, metrics: Sequence[Mapping[str, Any]]
            ) -> dict[str, dict[str, float]]:
  """The evaluations 'before' and 'after' of an RL run, what of them is shown;
  and its 'best' steps, five in a row by their accuracy in training.
  """
  summary = files.need_json(folder / 'summary.json', ['before', 'after'])
  found = {when: {name: summary[when][name] for name in (
      'pass@1', 'ci95', 'prm', 'response_length', 'format', 'n')}
           for when in ('before', 'after')}
  mean = lambda name, at: float(np.mean(
      [row[name] for row in metrics[at:at + _WINDOW]]))
  at = max(range(max(len(metrics) - _WINDOW + 1, 1)),
           key=lambda at: mean('reward/accuracy', at))
  return found | {'best': {
      'step': at, 'accuracy': mean('reward/accuracy', at),
      'prm': mean('reward/prm', at)}}


def _policy_cells(found: Mapping[str, Mapping[str, float]]) -> list[str]:
  change = lambda name, write: ' → '.join(
      write(found[when][name]) for when in ('before', 'after'))
  return [change('prm', '{:.3f}'.format), change('pass@1', intervals.percent),
          change('response_length', '{:.0f}'.format),
          change('format', intervals.percent)]


def _over_steps(metrics: Mapping[str, Sequence[Mapping[str, Any]]]
                ) -> list[charts.Chart]:
  return [charts.Chart(
      title, {_RUNS[name]: charts.points(rows, key)
              for name, rows in metrics.items()}, percent=percent,
      unit=unit, caption=caption)
          for key, title, percent, unit, caption in (
              ('reward/prm', 'Score of the PRM', False, '',
               'the least chance of a step, mean over responses'),
              ('reward/accuracy', 'Accuracy', True, '',
               'the rule that the score stands for'),
              ('response_length/mean', 'Length', False, 'tokens', ''),
              ('policy/entropy', 'Entropy', False, 'nats per token', ''))]


def _hacked(folder: pathlib.Path) -> list[dict[str, Any]]:
  """Wrong responses with the highest scores of the policy that maximised them.
  """
  run = folder / _HACKED
  done = files.need_json(run / 'summary.json', ['steps'])['steps']
  rows = files.need_rows(run / f'evaluation_{done}.jsonl')
  wrong = {}
  for row in sorted(rows, key=lambda row: -row['prm']):
    if row['accuracy'] < 1:
      wrong.setdefault(row['id'], row)
  return [{'prompt': row['prompt'], 'answer': row['answer'], 'responses': [{
      'name': _RUNS[_HACKED], 'text': row['response'], 'reward': row['prm'],
      'correct': False, 'fault': ''}]}
          for row in list(wrong.values())[:_SHOWN]]


def statements(curves: Mapping[str, Mapping[int, intervals.Figure]],
               labelled: Mapping[str, float],
               policies: Mapping[str, Mapping[str, Mapping[str, float]]]
               ) -> list[str]:
  """What was measured, a sentence for each question of the module."""
  percent, k = intervals.percent, max(curves['majority'])
  at = lambda name, n=k: percent(curves[name][n].value)
  prm = max((name for name in curves if name.startswith('PRM')),
            key=lambda name: curves[name][k].value)
  found = [
      f'best of {k}: {prm} {at(prm)}, ORM {at("ORM")}, majority '
      f'{at("majority")}, a single sample {at(prm, 1)}',
      f'{percent(labelled["no_equation"])} of the steps hold nothing that can '
      'be checked; of those with a false equation the hard label calls '
      f'{percent(labelled["false_called_right"])} right, of those with true '
      f'ones alone {percent(labelled["true_called_wrong"])} wrong']
  for name, part in policies.items():
    before, after = part['before'], part['after']
    found.append(
        f'{_RUNS[name]}: PRM {before["prm"]:.3f} to {after["prm"]:.3f}, '
        f'accuracy {percent(before["pass@1"])} to {percent(after["pass@1"])}, '
        f'in training at best {percent(part["best"]["accuracy"])} at steps '
        f'{part["best"]["step"]} to {part["best"]["step"] + _WINDOW - 1}, '
        f'where the PRM gave {part["best"]["prm"]:.3f}')
  return found
