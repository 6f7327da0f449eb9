"""The report of an RL stage: the paper's two curves first."""

from collections.abc import Mapping
import json
import os
import pathlib
import platform
import shlex
import sys
from typing import Any

import flax
import jax

from r1jax.training import charts
from r1jax.training import files
from r1jax.training import report

_NOTES = (
    'Accuracy over training is that of the sampled training prompts, each '
    'seen once; the marks at the ends are held-out problems.',
    'On-policy, the ratio is 1 and a group\'s advantages sum to zero, so the '
    'loss stays near 0 while its gradient does not: watch the gradient norm '
    'and the entropy.',
)


def write(config: Mapping[str, Any], workdir: str,
          summary: Mapping[str, Any]) -> str:
  """Writes report.html into `workdir`; returns the closing words."""
  folder = pathlib.Path(workdir)
  before, after = summary['before'], summary['after']
  if before is None:  # no step was taken
    return (f'measured: pass@1 {_percent(after, "pass@1")} (greedy '
            f'{_percent(after, "greedy")}) on {after["n"]} problems')
  name = config['name']
  report.write(
      folder / 'report.html', title=f'{name}: reasoning learned by RL alone',
      subtitle=f'{summary["steps"]} steps of {config["rl"]["prompts"]} prompts '
      f'× {config["rl"]["group"]} responses in '
      f'{summary["seconds"] / 60:.1f} minutes on '
      f'{jax.device_count()} {jax.devices()[0].device_kind} device(s).',
      rows=files.read_rows(folder / 'metrics.jsonl'),
      curves=_curves(before, after), panels=_panels(), summary=summary,
      samples=_samples(folder), config=config, command=command(),
      facts=_facts(summary), notes=_NOTES)
  return (
      f'learned: pass@1 {_percent(before, "pass@1")} → '
      f'{_percent(after, "pass@1")} (greedy {_percent(before, "greedy")} → '
      f'{_percent(after, "greedy")}) on {after["n"]} held-out problems, format '
      f'{_percent(before, "format")} → {_percent(after, "format")}, length '
      f'{before["response_length"]:.0f} → {after["response_length"]:.0f} '
      f'tokens\nreport: {folder / "report.html"}\n'
      'next: the same from another seed: ' + command({
          'workdir': f'{workdir}_seed{config["seed"] + 1}',
          'config.seed': config['seed'] + 1}))


def _percent(figures: Mapping[str, Any], name: str) -> str:
  return f'{100 * figures[name]:.1f} %'


def _mark(figures: Mapping[str, Any], name: str) -> charts.Figure:
  low, high = figures['ci95'] if name == 'pass@1' else (None, None)
  return charts.Figure(figures[name], low, high)


def _curves(before, after) -> list[charts.Curve]:
  return [
      charts.Curve('Accuracy', 'reward/accuracy', percent=True,
                   dots='eval/pass@1',
                   before=_mark(before, 'pass@1'),
                   after=_mark(after, 'pass@1')),
      charts.Curve('Mean response length', 'response_length/mean', 'tokens',
                   before=_mark(before, 'response_length'),
                   after=_mark(after, 'response_length')),
  ]


def _panels() -> list[charts.Curve]:
  return [
      charts.Curve('Reward', 'reward/mean'),
      charts.Curve('Format', 'reward/format', percent=True),
      charts.Curve('KL to the reference', 'kl/ref', 'nats a token'),
      charts.Curve('Entropy', 'policy/entropy', 'nats a token'),
      charts.Curve('Gradient norm', 'optim/grad_norm'),
      charts.Curve('Groups that teach nothing', 'reward/frac_zero_std',
                   percent=True, caption='all rewards of the group equal'),
  ]


def _samples(folder: pathlib.Path) -> list[dict[str, Any]]:
  sides = [json.loads((folder / f'evaluation_{side}.json').read_text('utf-8'))
           for side in ('before', 'after')]
  return [{'prompt': b['prompt'], 'answer': b['answer'], 'before': b,
           'after': a} for b, a in zip(*(side['samples'] for side in sides))]


def command(flags: Mapping[str, Any] | None = None) -> str:
  """How this process was started, or how to start it with other `flags`."""
  flags, kept, rest = flags or {}, [], iter(sys.argv[1:])
  for arg in rest:
    name, equals, _ = arg.lstrip('-').partition('=')
    if name not in flags:
      kept.append(arg)
    elif not equals:
      next(rest)  # its value
  new = [f'--{name}={value}' for name, value in flags.items()]
  return shlex.join(['python', '-m', 'r1jax.main', *kept, *new])


def _facts(summary: Mapping[str, Any]) -> dict[str, Any]:
  return {
      'seed': summary['seed'], 'config digest': summary['config_digest'],
      'jax': jax.__version__, 'flax': flax.__version__,
      'python': platform.python_version(),
      'machine': f'{os.cpu_count()} CPU cores, {platform.machine()}, '
                 f'{jax.device_count()} × {jax.devices()[0].device_kind}',
  }
