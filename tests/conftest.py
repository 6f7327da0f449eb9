"""Settings that must stand before jax is imported.

8 fake CPU devices, which on a busy machine may wait for each other for longer
than the 40 s after which XLA ends the process; and programs compiled fast
rather than to run fast, since a test makes many small ones and runs each a few
times. Processes that tests start inherit both.
"""

import os

_FLAGS = ('--xla_force_host_platform_device_count=8',
          '--xla_cpu_collective_call_terminate_timeout_seconds=180',
          '--xla_backend_optimization_level=0',
          '--xla_llvm_disable_expensive_passes=true')

_given = os.environ.get('XLA_FLAGS', '')
os.environ['XLA_FLAGS'] = ' '.join(
    [_given, *(f for f in _FLAGS if f.partition('=')[0] not in _given)]).strip()
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ.setdefault('TOKENIZERS_PARALLELISM', 'false')
