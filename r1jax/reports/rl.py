"""The report of an RL run: accuracy, response length, samples, its command."""

from collections.abc import Mapping
import os
import pathlib
import platform
from typing import Any

import flax
import jax
import numpy as np

from r1jax.reports import charts
from r1jax.reports import intervals
from r1jax.reports import page
from r1jax.rewards import answers
from r1jax.rewards.code import judge as code_judge
from r1jax.training import files

_CARDS = (  # of an evaluation: key, name, unit
    ('pass@1', 'Accuracy, sampled (pass@1)', '%'),
    ('greedy', 'Accuracy, greedy', '%'),
    ('format', 'Format followed', '%'),
    ('response_length', 'Mean response length', 'tokens'))
_PANELS = (  # metric, title, unit, whether it is a fraction, caption
    ('reward/mean', 'Reward', '', False, ''),
    ('reward/format', 'Format', '', True, ''),
    ('kl/ref', 'KL to the reference', 'nats per token', False, ''),
    ('policy/entropy', 'Entropy', 'nats per token', False, ''),
    ('optim/grad_norm', 'Gradient norm', '', False, ''),
    ('reward/frac_zero_std', 'Groups without a gradient', '', True,
     'all rewards of the group equal'))
_FEWEST = 10  # problems; of fewer, a normal interval says little


def write_report(config: Mapping[str, Any], workdir: str,
                 summary: Mapping[str, Any]) -> str:
  """Writes report.html into `workdir`; returns the closing words."""
  folder = pathlib.Path(workdir)
  before, after = summary['before'], summary['after']
  if before is None:  # no step was taken, or its file is gone
    lost = summary['steps'] and (
        f'\nno report is written: {folder / "evaluation_before.json"} is gone, '
        'and with it what the run began from')
    return (f'measured: pass@1 {intervals.percent(after["pass@1"])} (greedy '
            f'{intervals.percent(after["greedy"])}) on {after["n"]} problems'
            + (lost or ''))
  change = _change(folder, summary['steps'])
  rows = files.read_rows(folder / 'metrics.jsonl')
  task = config['data']['task']  # of a mixture the (name, rate) pairs
  names = [task] if isinstance(task, str) else [name for name, _ in task]
  page.render_page(
      folder / 'report.html', 'rl.html.jinja',
      title=f'{config["name"]} · {", ".join(names)}',
      kicker=summary['stage'], config=config, rl=config['rl'], summary=summary,
      devices=_devices(), cards=_cards(before, after), n=after['n'],
      change=change and intervals.text(change, interval=True, signed=True),
      direction=change and intervals.direction(change),
      breakdown=_breakdown(before, after), truncated=after['truncated'],
      curves=_curves(rows, before, after) + _tests(config, rows, before, after),
      panels=[charts.Chart(title, {'': charts.points(rows, key)}, unit,
                           fraction, caption=caption)
              for key, title, unit, fraction, caption in _PANELS],
      samples=_samples(folder, config['rewards']), facts=facts(summary))
  return '\n'.join([
      *_measured(before, after, change), *_lost(folder, summary['steps']),
      f'report: {folder / "report.html"}',
      'next: the same with another seed: ' + page.command_line({
          'workdir': f'{workdir}_seed{config["seed"] + 1}',
          'config.seed': config['seed'] + 1})])


def _change(folder: pathlib.Path, steps: int) -> intervals.Figure | None:
  """The change of pass@1, paired by problem; None if they are few or differ."""
  sides = []
  for step in (0, steps):
    by_problem = {}
    for row in files.read_rows(folder / f'evaluation_{step}.jsonl'):
      by_problem.setdefault(row['id'], []).append(row['accuracy'])
    sides.append({name: np.mean(part) for name, part in by_problem.items()})
  before, after = sides
  if len(before) < _FEWEST or before.keys() != after.keys():
    return None
  return intervals.change(
      np.array(list(before.values())), np.array([after[n] for n in before]))


def _lost(folder: pathlib.Path, steps: int) -> list[str]:
  """Lines for the terminal: what a report lacks, of files that are gone."""
  names = 'metrics.jsonl', 'evaluation_0.jsonl', f'evaluation_{steps}.jsonl'
  return [f'the report lacks what was in {folder / name}, which is gone'
          for name in names if not (folder / name).exists()]


def _measured(before, after, change) -> list[str]:
  """Lines for the terminal."""
  both = lambda name: ' → '.join(
      intervals.percent(side[name]) for side in (before, after))
  found = ''
  if change:
    interval = intervals.text(change, interval=True, signed=True)
    found = f': {intervals.direction(change)}, {interval} paired by problem'
  return [
      f'measured: pass@1 {both("pass@1")} on {after["n"]} held-out problems'
      + found,
      f'greedy {both("greedy")}, format {both("format")}, length '
      f'{before["response_length"]:.0f} → {after["response_length"]:.0f} '
      'tokens']


def _cards(before, after) -> list[dict[str, str]]:
  """The results at the head of the page, as text."""
  text = lambda value, unit: (
      f'{100 * value:.1f}' if unit == '%' else f'{value:.0f}')
  interval = lambda side: '[{:.1f}, {:.1f}]'.format(
      *(100 * edge for edge in side['ci95']))
  return [
      {'name': name, 'unit': unit, 'before': text(before[key], unit),
       'after': text(after[key], unit),
       'intervals': ' → '.join(map(interval, (before, after)))
                    if key == 'pass@1' else ''}
      for key, name, unit in _CARDS]


def _breakdown(before, after) -> list[tuple[str, str, str]]:
  """Accuracy of each task, and the share of responses cut at the limit."""
  both = lambda get: [intervals.percent(get(side)) for side in (before, after)]
  tasks = after['tasks'] if len(after['tasks']) > 1 else ()
  return [
      *((f'pass@1, {task}', *both(lambda side, task=task: side['tasks'][task]))
        for task in tasks),
      ('cut at the token limit', *both(lambda side: side['truncated']))]


def _tests(config, rows, before, after) -> list[charts.Chart]:
  """pass@1 of each of config.tests before, during and after."""
  figure = lambda side, name: intervals.Figure(
      side[f'{name}/pass@1'], *side[f'{name}/ci95'])
  return [
      charts.Chart(f'{name}, pass@1', {}, percent=True,
                   evaluations=charts.points(rows, f'eval/{name}/pass@1'),
                   before=figure(before, name), after=figure(after, name))
      for name in config.get('tests', {}) if f'{name}/pass@1' in before]


def _curves(rows, before, after) -> list[charts.Chart]:
  figure = lambda side, name: intervals.Figure(
      side[name], *(side['ci95'] if name == 'pass@1' else ()))
  chart = lambda title, key, name, **fields: charts.Chart(
      title, {'': charts.points(rows, key)}, before=figure(before, name),
      after=figure(after, name), **fields)
  return [
      chart('Accuracy', 'reward/accuracy', 'pass@1', percent=True,
            evaluations=charts.points(rows, 'eval/pass@1')),
      chart('Mean response length', 'response_length/mean', 'response_length',
            unit='tokens')]


def _samples(folder: pathlib.Path, rewards: Mapping[str, Any]
            ) -> list[dict[str, Any]]:
  """The same prompts with the responses before and after."""
  sides = {name: files.need_json(
      folder / f'evaluation_{name}.json', ['samples'])['samples']
           for name in ('before', 'after')}
  return [{'prompt': first['prompt'], 'answer': first['answer'],
           'responses': [
               part[number] | {'name': name, 'fault': fault(
                   part[number], rewards)} for name, part in sides.items()]}
          for number, first in enumerate(sides['before'])]


def fault(sample: Mapping[str, Any], rewards: Mapping[str, Any]) -> str:
  """Why a wrong response is wrong, other than by its answer; '' if unknown.

  Args:
    sample: {'text', 'finished'}, of an evaluation's samples; 'verdict' of a
      program.
    rewards: the section of the config; a judge needs no marked answer.
  """
  finished = sample.get('finished', True)
  if not finished:
    return 'cut at the token limit'
  if 'verdict' in sample:  # why a program has not passed
    return code_judge.MEANINGS[sample['verdict']]
  judge = rewards.get('judge') or {}
  if (judge.get('init_from') or judge.get('url') or answers.extract_answer(
      sample['text'], rewards['answer'], finished) is not None):
    return ''
  return 'no answer found'


def _devices() -> str:
  count = jax.device_count()
  return (f'{count} {jax.devices()[0].device_kind} device'
          f'{"s" if count > 1 else ""}')


def facts(summary: Mapping[str, Any]) -> dict[str, Any]:
  """Where and with what a run was made, for the foot of its page."""
  return {
      'seed': summary['seed'], 'config digest': summary['config_digest'],
      'jax': jax.__version__, 'flax': flax.__version__,
      'python': platform.python_version(),
      'machine': f'{os.cpu_count()} CPU cores, {platform.machine()}, '
                 f'{_devices()}',
  }
