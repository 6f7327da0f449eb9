r"""Runs a config: python -m r1jax.main --config=FILE:ARG --workdir=DIR.

    python -m r1jax.main --config=experiments/r1_zero.py:mini \
        --workdir=/tmp/r1_zero --config.optim.lr=1e-4

The workdir is what the run leaves; `bench.py` and plans that are only printed
need none. Every field of the config can be overridden; with --help the command
prints them all and runs nothing. The same command, started again, resumes the
run. The exit status is 0 when everything has ended, 1 when training diverged or
the machine failed, 2 for a refused configuration, 75 (EX_TEMPFAIL of
sysexits.h) when SIGTERM, SIGINT or SIGHUP stopped it, or the loss of one of
several processes; a second signal ends it at once.
"""

from r1jax import interrupts
from r1jax import terminal

if __name__ == '__main__':  # before the imports, which take their time
  interrupts.install()
  terminal.secure()

# pylint: disable=wrong-import-position
import importlib

from absl import app
from absl import flags as absl_flags
from ml_collections import config_flags

from r1jax import command
from r1jax import errors
from r1jax import flags
from r1jax import workdir as workdir_lib

_CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'Experiment, e.g. experiments/r1_zero.py:mini')
_WORKDIR = absl_flags.DEFINE_string(
    'workdir', None, "The run's own directory, seen by every host; bench.py "
    'and plans need none')
_GIN_FILE = absl_flags.DEFINE_multi_string(
    'gin_file', [], "gin file for seqio's configurables; may be repeated")
_GIN_BINDINGS = absl_flags.DEFINE_multi_string(
    'gin_bindings', [], "gin binding for seqio's configurables; repeatable")
_WRITE_NOTHING = ('--help', '-help', '-h', '--config.dry_run')


def main(argv: list[str]) -> int:
  """Runs what the flags say; returns the exit status."""
  with command.reported():
    interrupts.begin()
    if argv[1:]:
      raise errors.ConfigError(
          '', f'unexpected argument {argv[1]!r}; every setting is a '
          '--flag=value')
    config = _CONFIG.value
    workdir = _workdir(config)
    command.import_jax()
    run = importlib.import_module('r1jax.run')
    ended = run.run(config, workdir, _GIN_FILE.value, _GIN_BINDINGS.value)
  if not ended:
    command.end_stopped()
  return 0


def parse(argv: list[str]) -> list[str]:
  """Parses the flags, as flags.parse; tries the workdir before the config.

  A pipeline's config takes seconds to make.
  """
  given = flags.value_of('workdir', argv)
  with command.reported():
    for before, arg in zip(argv, argv[1:]):
      flag = (arg if arg.startswith('-') else before).partition('=')[0]
      errors.check_text(flag, arg)
    if given and not any(
        arg.partition('=')[0] in _WRITE_NOTHING for arg in argv):
      workdir_lib.check(given)
  return flags.parse(argv)


def _workdir(config) -> str | None:
  """The run's directory; `parse` has tried it."""
  if config.get('stage') == 'bench':
    return None
  if not _WORKDIR.value:
    plan = config.get('plan', {})
    if plan.get('topology') is not None or plan.get('sweep'):
      return None
    raise errors.ConfigError('--workdir', 'expected a directory for this run')
  return workdir_lib.absolute(_WORKDIR.value)


if __name__ == '__main__':
  app.run(main, flags_parser=parse)
