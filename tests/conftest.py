"""Settings that must stand before jax is imported: 8 fake CPU devices."""

import os

_DEVICES = '--xla_force_host_platform_device_count'

if _DEVICES not in os.environ.get('XLA_FLAGS', ''):
  os.environ['XLA_FLAGS'] = (
      f"{os.environ.get('XLA_FLAGS', '')} {_DEVICES}=8".strip())
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ.setdefault('TOKENIZERS_PARALLELISM', 'false')
