"""Checks this machine's accelerator in four minutes; prints one JSON object.

    python -m tests.accelerator > accelerator.json

in the folder of the clone. It runs, one after the other, each a process of its
own, so that one that fails leaves the others:

  kernels  attention's kernel against XLA's and float32; the sampler against the
           scorer (on_accelerator.py)
  model    random parameters of a published shape in bfloat16, on one device:
           sampling, scoring, update (on_accelerator.py)
  tiny, smollm2  experiments/bench.py
  suite    tests of the suite that one device can run, in full float32

What has not ended after --seconds in all is given up, and named. The status is
1 if something failed or missed its target. `--small` checks this program itself
on a CPU: tiny shapes, no targets.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
PARTS = ('kernels', 'model', 'tiny', 'smollm2', 'suite')
TARGETS = {'decode': .6, 'update': .5}  # of the bandwidth, and MFU
SUITE = (  # files, and which of their tests: those that need no mesh
    ('tests/kernels/test_attention.py', ''),
    ('tests/kernels/test_grouped_matmul.py', 'numpy or kernel or bfloat16'),
    ('tests/kernels/test_group_sampling.py',
     'scorer or truncation or end or chunks or probability'),
    ('tests/kernels/test_logprobs.py', 'hand or chunks'),
    ('tests/models/test_moe.py', 'numpy or all_experts_masked'),
    ('tests/models/test_transformer.py', 'numpy or decoding'))
_SMALL_BENCH = {
    'model.width': 16, 'model.layers': 1, 'model.mlp': 24, 'bench.matmul': 32,
    'rl.prompts': 4, 'rl.group': 4, 'rl.prompt_tokens': 4,
    'rl.response_tokens': 4, 'rl.micro_batch': 8, 'rl.sample_chunk': 4,
    'rl.logp_chunk': 4}


def say(words: str) -> None:
  print(words, file=sys.stderr, flush=True)


###############################################################################
# The parts
###############################################################################


def command(part: str, args) -> tuple[list[str], dict[str, str]]:
  """The command of a part, and what its environment has beside this one's."""
  python = [sys.executable, '-m']
  if part == 'suite':
    files = [one for one in SUITE if 'logprobs' in one[0] or not args.small]
    chosen = ' or '.join(
        f'({name.rpartition("/")[2]} and ({words or "test"}))'
        for name, words in files)
    return [*python, 'pytest', '-v', '-n', '0', '-p', 'no:cacheprovider', '-k',
            chosen, *(name for name, _ in files)], {
                'JAX_DEFAULT_MATMUL_PRECISION': 'highest', 'COLUMNS': '200'}
  if part in ('tiny', 'smollm2'):
    changes = {'bench.steps': 4, 'bench.warmup': 1} | (
        _SMALL_BENCH if args.small else {})
    return [*python, 'r1jax.main', f'--config=experiments/bench.py:{part}',
            *(f'--config.{name}={value}' for name, value in changes.items())
            ], {}
  flags = [f'--{name}={value}' for name, value in vars(args).items()
           if name not in ('small', 'parts', 'seconds') and value is not None]
  return [*python, 'tests.on_accelerator', part, *flags,
          *(['--small'] if args.small else [])], {
              'XLA_PYTHON_CLIENT_MEM_FRACTION': '.92'}


def figures(part: str, output: str, ended: bool) -> dict:
  """What a part has printed, whether or not it came to its end."""
  if part == 'suite':
    return suite_figures(output)
  if part in ('tiny', 'smollm2'):
    return bench_figures(output.splitlines()[-1]) if ended else {}
  found = {}
  for line in output.splitlines():
    if line.startswith('{') and line.endswith('}'):  # not cut as it was killed
      found |= json.loads(line)
  return found


def bench_figures(line: str) -> dict:
  """What is kept of the line of stages/bench.py."""
  found = json.loads(line)
  return {name: found[name] for name in (
      'workload', 'devices', 'first_update', 'matmul_gflop_per_second',
      'rollout', 'reference', 'update', 'step', 'peak_memory_mib')}


def suite_figures(output: str) -> dict:
  """Of the output of `pytest -v`: how many passed, and who did not."""
  rows = re.findall(r'^(tests/\S+::.*?) (PASSED|FAILED|ERROR|SKIPPED)(.*)$',
                    output, re.MULTILINE)
  failed = [name for name, said, _ in rows if said in ('FAILED', 'ERROR')]
  return {
      'ok': bool(rows) and not failed,
      'passed': sum(said == 'PASSED' for _, said, _ in rows), 'failed': failed,
      'skipped': {name: why.partition('(')[2].partition(')')[0]
                  for name, said, why in rows if said == 'SKIPPED'}}


def run(part: str, args, seconds: float) -> dict:
  """The figures of a part, and its `problem` if it has not ended well."""
  words, variables = command(part, args)
  environment = os.environ | variables | {
      'PYTHONPATH': os.pathsep.join(
          filter(None, (str(ROOT), os.environ.get('PYTHONPATH')))),
      'JAX_ENABLE_COMPILATION_CACHE': 'false'}  # compilation is measured
  started, problem = time.monotonic(), {}
  try:
    done = subprocess.run(words, cwd=ROOT, env=environment, text=True,
                          stdout=subprocess.PIPE, check=False,
                          timeout=max(seconds, .1))
    output, failed = done.stdout, done.returncode and part != 'suite'
    if failed:
      problem = {'problem': f'ended with status {done.returncode}'}
  except subprocess.TimeoutExpired as stopped:
    output = (stopped.stdout or b'').decode(errors='replace')
    problem = {'problem': f'not ended in the {seconds:.0f} s that were left'}
  return figures(part, output, not problem) | problem | {
      'part_seconds': time.monotonic() - started}


###############################################################################
# What they mean
###############################################################################


def verdicts(parts: dict[str, dict]) -> dict[str, bool]:
  """Whether each check passed, and each target with a figure was met."""
  met = {f'{part} ended': 'problem' not in found
         for part, found in parts.items() if 'part_seconds' in found}
  for part, found in parts.items():
    for name, one in ({part: found} | found).items():
      if isinstance(one, dict) and 'ok' in one:
        met[name] = one['ok']
  model = parts.get('model', {})
  for name in TARGETS:
    reached = [one['share'] for key, one in model.items()
               if key.startswith(name) and one.get('share')]
    if reached:
      met[f'{name}, target'] = max(reached) >= TARGETS[name]
  return met


def left_out(parts: dict[str, dict], device: dict | None) -> dict[str, str]:
  """What was not measured or not tested, and why."""
  found = {}
  for part, rows in parts.items():
    if part == 'suite':
      found |= rows['skipped']
    found |= {f'{part}: {name}': one['skipped'] for name, one in rows.items()
              if isinstance(one, dict) and 'skipped' in one and part != 'suite'}
  if device and not device['chip']:
    found['shares of peaks'] = (
        f'{device["kind"]} is not in r1jax/plan/chips.py')
  return found


def report(args) -> dict:
  """Runs the parts, and puts together what they found."""
  started, parts, device = time.monotonic(), {}, None
  for part in args.parts.split(','):
    if args.small and part == 'smollm2':
      parts[part] = {'all': {'skipped': 'too large for --small'}}
      continue
    left = args.seconds - (time.monotonic() - started)
    say(f'{part}: at most {left:.0f} s')
    parts[part] = run(part, args, left)
    device = parts[part].pop('device', device)
  met = verdicts(parts)
  for name, good in met.items():
    say(f'{"ok" if good else "NOT MET"}: {name}')
  return {'device': device, 'targets': TARGETS, 'met': met,
          'skipped': left_out(parts, device), 'parts': parts,
          'seconds': time.monotonic() - started}


def add_sizes(parser: argparse.ArgumentParser) -> None:
  """The flags that say what is measured."""
  parser.add_argument(
      '--preset', help='a shape of models/presets.py; by default qwen2.5_1.5b, '
      'on less than 55 GB qwen2.5_0.5b')
  parser.add_argument('--layers', type=int, help='fewer than the shape has')
  for name, value in (('prompts', 16), ('group', 16), ('prompt_tokens', 512),
                      ('response_tokens', 1024), ('micro_batch', 32),
                      ('repeats', 3)):
    parser.add_argument(f'--{name}', type=int, default=value)
  parser.add_argument('--small', action='store_true',
                      help='tiny shapes, on any device')


def main(words: list[str] | None = None) -> dict:
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  add_sizes(parser)
  parser.add_argument('--seconds', type=int, default=240, help='of all parts')
  parser.add_argument('--parts', default=','.join(PARTS), help='some of them')
  args = parser.parse_args(words)
  if unknown := set(args.parts.split(',')) - set(PARTS):
    parser.error(f'--parts: expected some of {",".join(PARTS)}, received '
                 f'{",".join(sorted(unknown))}')
  found = report(args)
  print(json.dumps(found, indent=1))
  return found


if __name__ == '__main__':
  sys.exit(not all(main()['met'].values()))
