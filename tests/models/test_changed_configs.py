"""A changed config.json is what transformers makes of it, or one line."""

import collections
import dataclasses
import functools
import json
import subprocess

import numpy as np
import pytest

import config_changes
import gguf_files
import released
from r1jax import errors
from r1jax import models
from r1jax.models import hf
from r1jax.models import hf_config


def _refusal(read, *args):
  """The line that refuses, or None and what was read."""
  try:
    return None, read(*args)
  except errors.ConfigError as problem:
    line = str(problem)
    assert '\n' not in line and len(line) < 1200, line
    return line, None


@pytest.mark.parametrize('name', config_changes.NAMES)
def test_every_change_is_read_or_refused_in_a_line(name):
  fields, refused = config_changes.read(name), 0
  for change in config_changes.changes(name):
    changed = json.loads(json.dumps(change.applied(fields)))
    line, config = _refusal(hf_config.from_json, changed, 'FOLDER')
    if line is None:
      written = json.loads(json.dumps(hf_config.to_json(config)))
      assert hf_config.from_json(written, '') == dataclasses.replace(
          config, scalar=False), change
    else:
      assert line.startswith('config.init_from: FOLDER: '), line
      refused += 1
  assert 40 < refused < 160


@pytest.mark.parametrize('number', range(len(config_changes.PLAIN)))
def test_what_is_plain_is_read(number):
  _, fields = list(config_changes.plain())[number]
  config = hf_config.from_json(fields, 'FOLDER')
  written = json.loads(json.dumps(hf_config.to_json(config)))
  assert hf_config.from_json(written, '') == config


@pytest.fixture(name='computed', scope='module')
def _computed(tmp_path_factory):
  """{name: [(change, folder with what transformers makes of it)]}."""
  folder = tmp_path_factory.mktemp('changed')
  cases = [(name, str(change), change.applied(config_changes.read(name)))
           for name in config_changes.NAMES
           for change in config_changes.changes(name)]
  cases += [('plain', f'{name}: {changed}', fields)
            for (name, changed), (_, fields) in zip(
                config_changes.PLAIN, config_changes.plain())]
  return _by_name(folder, cases)


@pytest.fixture(name='computed_gguf', scope='module')
def _computed_gguf(tmp_path_factory):
  """`computed`, of GGUF headers."""
  folder, cases = tmp_path_factory.mktemp('changed_gguf'), []
  for kind in gguf_files.KINDS:
    for change, values, arrays in gguf_files.changes(kind):
      path = folder / str(len(cases)) / 'x.gguf'
      path.parent.mkdir()
      gguf_files.write(path, values, arrays)
      cases.append((kind, change, path.name))
  return _by_name(folder, cases)


def _by_name(folder, cases):
  """Has transformers compute (name, change, config.json or GGUF file)."""
  (folder / 'cases.json').write_text(json.dumps(
      [fields for _, _, fields in cases]))
  program = released.FOLDER.with_name('run_changed_configs.py')
  done = subprocess.run(
      [released.python_with_transformers(), str(program),
       str(folder / 'cases.json'), str(folder)],
      capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  found = collections.defaultdict(list)
  for number, (name, change, _) in enumerate(cases):
    found[name].append((change, folder / str(number)))
  return found


@functools.lru_cache(maxsize=None)
def _model(config):
  model = models.build(config)
  return model, released.like(model)


def _path(folder):
  """The GGUF file of a folder that has one, or the folder."""
  return str(next(folder.glob('*.gguf'), folder))


def _logits(folder):
  """What we compute; max_len and the like change nothing of it."""
  config = hf.read_config(_path(folder))
  model, like = _model(dataclasses.replace(config, max_len=64))
  params = hf.load_params(_path(folder), model.config, like)
  tokens = np.load(folder / 'tokens.npy')[None]
  return released.logits(model, params, tokens, None,
                         released.positions(tokens))[0]


def _outcome(folder):
  """What has become of a case, and how far off it is."""
  raised = folder / 'raised.txt'
  if raised.exists():
    line, _ = _refusal(hf.read_config, _path(folder))
    large = raised.read_text() == 'ValueError: large'
    return (f'{"too large" if large else "raised"} there, '
            f'{"refused" if line else "read"}'), 0.
  line, logits = _refusal(_logits, folder)
  if line:
    return 'refused', 0.
  wanted = np.load(folder / 'logits.npy')
  off = np.abs(logits - wanted).max() / max(1, np.abs(wanted).max())
  return 'equal' if off <= released.TOLERANCE else 'different', off


@pytest.mark.slow
@pytest.mark.parametrize('name', [*config_changes.NAMES, 'plain'])
def test_every_change_is_as_in_transformers_or_refused(name, computed):
  _compare(name, computed[name], 'equal' if name == 'plain' else 'refused')


@pytest.mark.slow
@pytest.mark.parametrize('kind', gguf_files.KINDS)
def test_every_header_is_as_in_transformers_or_refused(kind, computed_gguf):
  """It knows no rope.scaling, and reads less of Gemma's keys; the others are
  compared with a config.json, in test_gguf_config.py."""
  _compare(f'{kind}.gguf', computed_gguf[kind], 'refused')


def _compare(name, computed, other):
  """Prints what has become of the cases; each must be equal, or the `other`."""
  found = {change: _outcome(folder) for change, folder in computed}
  count = collections.Counter(outcome for outcome, _ in found.values())
  print(f'\n{name}: {dict(sorted(count.items()))}')
  wrong = [f'{change}: {outcome}, off by {off:.1e}' for change, (
      outcome, off) in found.items()
      if outcome not in ('equal', other) and (
          other == 'equal' or ' there' not in outcome)]
  assert not wrong, '\n'.join(wrong)
