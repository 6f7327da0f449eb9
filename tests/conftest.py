"""Settings that must stand before jax is imported.

8 fake CPU devices, with threads enough that none waits for another for ever
(see launch/local.sh); and programs compiled fast rather than to run fast, since
a test makes many small ones and runs each a few times: with XLA's older fusion
emitters, in one piece, they compile in a half of the time or less. Processes
that tests start inherit them.
"""

import gc
import os
import sys

import pytest

_FLAGS = ('--xla_force_host_platform_device_count=8',
          '--xla_backend_optimization_level=0',
          '--xla_llvm_disable_expensive_passes=true',
          '--xla_cpu_use_fusion_emitters=false',
          '--xla_cpu_parallel_codegen_split_count=1')

_given = os.environ.get('XLA_FLAGS', '')
os.environ['XLA_FLAGS'] = ' '.join(
    [_given, *(f for f in _FLAGS if f.partition('=')[0] not in _given)]).strip()
os.environ['NPROC'] = '64'
os.environ.setdefault('JAX_ENABLE_COMPILATION_CACHE', 'false')
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ.setdefault('TOKENIZERS_PARALLELISM', 'false')


@pytest.fixture(name='set_traced')
def _set_traced(monkeypatch):
  """monkeypatch.setattr, of what is read while a function is traced."""
  import jax
  def setattr_(*args):
    jax.clear_caches()
    monkeypatch.setattr(*args)
  yield setattr_
  jax.clear_caches()


@pytest.fixture(autouse=True, scope='module')
def _compiled_programs_end_with_their_module():
  """Else a process holds gigabytes of them, and whatever walks through its
  memory takes longer from test to test."""
  yield
  if 'jax' in sys.modules:
    sys.modules['jax'].clear_caches()
  gc.collect()


@pytest.fixture
def token_cache(tmp_path, monkeypatch):
  """The folder of the test's own in which tokens are kept, of small files, too.
  """
  from r1jax.data import kept  # imported here: it waits for what stands above
  monkeypatch.setenv('R1JAX_CACHE', str(tmp_path / 'cache'))
  monkeypatch.setattr(kept, '_LEAST', 1)
  return tmp_path / 'cache' / 'tokens'
