"""A plan: a stage compiled ahead of time for a machine that is not there.

Set by `config.plan.topology`, it takes the place of the run: nothing is read
but the config. `programs` has the stage's programs with abstract arguments,
`schedule` says how often they go through loops that end by their data,
`compiled` compiles them, `hlo` and `counts` measure what they do, `roofline`
says how long that takes at least, and `report` what it means.
"""

import pathlib

from r1jax import config as config_lib
from r1jax import errors
from r1jax import terminal
from r1jax.parallel import sharding
from r1jax.plan import compiled
from r1jax.plan import programs
from r1jax.plan import report
from r1jax.plan import sweep
from r1jax.plan import topology as topology_lib
from r1jax.training import files


def run(config, workdir: str | None) -> None:
  """Plans the stage of `config`: prints it, and writes plan.json.

  Args:
    config: of a stage; config.plan.topology names the machine.
    workdir: for plan.json; None: it is only printed.

  Raises:
    ConfigError: the config cannot run there; or there is no such machine, or
      no plan for such a stage.
  """
  topology = topology_lib.parse(config.plan.topology)
  if config.stage not in programs.KINDS:
    raise errors.expected(
        'plan.topology', 'unset, or a stage of kind '
        f'{", ".join(programs.KINDS)}; this is of kind {config.stage!r} (of a '
        'pipeline, plan each stage by its own experiment)',
        config.plan.topology)
  config_lib.check_fields(config)  # a resolved copy has no bounds
  _check_lengths(config)
  log_folder = topology_lib.prepare(topology)
  config = described(config)
  devices = topology_lib.devices(topology)

  def plan(config):
    config_lib.check(config, topology.devices)
    mesh, done = sharding.make_mesh(config.mesh, devices), []
    for one in compiled.stage(config, mesh, topology, log_folder):
      terminal.say(f'compiled {one.part.name} in {one.seconds:.0f} s'
                   + (f': {one.problem}' if one.problem else ''))
      done.append(one)
    return report.make(config, mesh, topology, done)

  if config.plan.sweep:
    ways = sweep.run(config, plan, terminal.say)
    made = {'ways': [{'change': way, 'plan': made} for way, made in ways]}
    words = '\n'.join(['the best first:', *(
        sweep.line(way, made) for way, made in ways)])
  else:
    made = plan(config)
    words = report.text(made)
  if workdir:
    folder = pathlib.Path(workdir)
    files.make_folder(folder)
    files.write_json(folder / 'plan.json', made)
  terminal.say(words)


def _check_lengths(config) -> None:
  mean, most = config.plan.mean_response_tokens, (
      config.rl.response_tokens if 'rl' in config else 0)
  if mean is not None and mean > most:
    raise errors.expected(
        'plan.mean_response_tokens', f'at most rl.response_tokens = {most}'
        if most else 'unset in a plan of a stage that samples nothing', mean)


def described(config):
  """The config without the models that it starts from, if it has their shape.

  A plan needs no parameters, and these models need not be there.
  """
  config = config.copy_and_resolve_references()
  if 'preset' in config.model or 'vocab' in config.model:
    with config.unlocked():
      config.init_from = None
      if 'critic' in config:
        config.critic.init_from = None
  return config
