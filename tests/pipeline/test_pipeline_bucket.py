"""A pipeline in a bucket goes on elsewhere, and its stages find each other."""

import json
import pathlib
import shutil
import sys
import types

import pytest

import memory_bucket
import test_pipeline
from r1jax import buckets
from r1jax import pipeline
from r1jax import stages
from r1jax.training import mirror

URL = memory_bucket.URL


def _build(config, mesh, workdir):
  """The toy stage of test_pipeline, which opens files by their paths."""
  config = config.copy_and_resolve_references()
  named.append((config.out, *config.inputs.values()))
  config.out = buckets.model(config.out)
  for name, path in config.inputs.items():
    config.inputs[name] = buckets.model(path)
  return test_pipeline._build(config, mesh, workdir)


named = []  # what the stages were told of where they are


@pytest.fixture(name='machine', autouse=True)
def _machine(monkeypatch, tmp_path):
  module = types.ModuleType('toy_stage')
  module.build = _build
  monkeypatch.setitem(sys.modules, 'toy_stage', module)
  monkeypatch.setitem(stages.KINDS, 'toy', 'toy_stage')
  test_pipeline.ran.clear()
  return memory_bucket.install(monkeypatch, tmp_path)


def _run(config=None):
  """Runs the pipeline; its folder, and the steps that were taken."""
  test_pipeline.ran.clear()
  named.clear()
  with mirror.mirrored(URL) as workdir:
    assert pipeline.run_pipeline(config or test_pipeline._config(), workdir)
  return pathlib.Path(workdir), ''.join(test_pipeline.ran)


def test_it_goes_on_on_another_machine_and_ends_the_same(machine, tmp_path):
  whole, crashing = tmp_path / 'whole', test_pipeline._config()
  pipeline.run_pipeline(test_pipeline._config(), str(whole))
  crashing.stages.b.fails_at = 1
  with pytest.raises(test_pipeline.Crash):
    _run(crashing)
  machine()
  workdir, ran = _run()
  # The config of b is another one: it begins anew, and what it had is kept.
  assert ran == 'bbcc' and (workdir / 'b.old1').is_dir()
  assert named[0] == (f'{URL}/b', f'{URL}/a')
  shutil.rmtree(workdir / 'b.old1')
  assert test_pipeline._manifests(workdir) == test_pipeline._manifests(whole)
  machine()
  again, ran = _run()
  assert again != workdir and not ran
  assert test_pipeline._manifests(again) == test_pipeline._manifests(whole)


def test_a_stage_that_was_cut_short_is_resumed(machine):
  steps = iter(range(3))
  class Killed(Exception):
    pass
  class Ran(list):
    def append(self, name):
      if next(steps, None) is None:
        raise Killed
      super().append(name)
  before, test_pipeline.ran = test_pipeline.ran, Ran()
  try:
    with pytest.raises(Killed):
      _run()
    assert list(test_pipeline.ran) == ['a', 'a', 'b']
  finally:
    test_pipeline.ran = before
  machine()
  workdir, ran = _run()
  assert ran == 'bcc'
  assert [test_pipeline._number(workdir, name) for name in 'abc'] == [2, 4, 8]
  assert json.loads((workdir / 'b/config.json').read_text())['inputs'] == {
      'a': f'{URL}/a'}
