"""The training loop that every stage runs in: resume, step, evaluate, save.

A stage is a `Stage`: a few functions of the `TrainState`. What the loop leaves
in the workdir:

    config.json                 the configuration; a resumed run must match it
    checkpoints/<step>          the states
    metrics.jsonl, tensorboard  a row a step
    rollouts.jsonl              what was sampled, a row a response
    evaluation_{before,after}.json   figures and samples
    summary.json                when the stage has ended

A run killed at any moment and started again ends in bitwise the same state:
the step index alone decides what a step sees, so there is nothing else to lose.
The workdir must be a file system that every host sees.
"""

from collections.abc import Callable, Mapping
import contextlib
import pathlib
import signal
import time
from typing import Any, NamedTuple

from r1jax import config as config_lib
from r1jax import errors
from r1jax import types
from r1jax.parallel import distributed
from r1jax.training import checkpoint
from r1jax.training import files
from r1jax.training import logger

TrainState = types.TrainState
Figures = dict[str, Any]  # name -> number
Records = list[dict[str, Any]]  # JSON-able


class Stage(NamedTuple):
  """What differs from one kind of training to another."""
  # Steps of the loop in all; 0 for a stage that only evaluates.
  steps: int
  # () -> the sharded state at step 0.
  init: Callable[[], TrainState]
  # ShapeDtypeStructs with shardings, what a checkpoint is restored into.
  abstract: TrainState
  # (state, step) -> new state, metrics {name: scalar, on device or host}, and
  # what was sampled. `step` equals state.step; the state may be donated.
  step: Callable[[TrainState, int], tuple[TrainState, Figures, Records]]
  # state -> figures, samples. Called before the first and after the last step
  # and every `eval_every_steps`; it leaves the state alone.
  evaluate: Callable[[TrainState], tuple[Figures, Records]] | None = None
  # summary -> closing words for the terminal; writes the report.
  finish: Callable[[Figures], str] | None = None
  # {metric: its word on the progress line}
  shown: Mapping[str, str] = {}


class Settings(NamedTuple):
  """How often the loop does what is not training."""
  checkpoint_every_steps: int = 100
  keep: int = 2
  eval_every_steps: int = 0  # 0: only before and after
  rollouts_every_steps: int = 1  # 0: never
  max_skipped_steps: int = 5  # in a row, before the run is stopped
  tensorboard: bool = False


def run(
    stage: Stage,
    settings: Settings,
    workdir: str,
    config: Mapping[str, Any],
) -> Figures | None:
  """Runs `stage` from where `workdir` stands to its end.

  Args:
    stage: what to run.
    settings: when to save, evaluate and log.
    workdir: the run's own directory.
    config: the whole configuration as nested plain data, for the record.

  Returns:
    The summary; None if SIGTERM or SIGINT stopped the run, which has then
    saved its state and goes on when started again.

  Raises:
    ConfigError: `workdir` holds a run with another configuration.
    Diverged: `max_skipped_steps` updates in a row were skipped.
  """
  workdir = pathlib.Path(workdir).absolute()
  _claim(workdir, config)
  clock = _Clock(workdir / 'seconds.json')
  saves = checkpoint.Checkpointer(
      workdir / 'checkpoints', keep=settings.keep,
      every_steps=settings.checkpoint_every_steps)
  with StopSignal() as stop, contextlib.closing(saves):
    state, start = (saves.restore_latest(stage.abstract)
                    or (stage.init(), 0))
    before = None
    if stage.steps:
      before = _evaluation(
          stage, state, start, 0, workdir / 'evaluation_before.json')
    state, done = _train(
        stage, settings, workdir, state, start, saves, clock, stop)
    if done < stage.steps:
      _say(f'stopped after step {done} of {stage.steps}, state saved in '
           f'{workdir}; start the same command again to go on')
      return None
    after = _evaluation(
        stage, state, done, done, workdir / 'evaluation_after.json')
  clock.save()
  figures = {
      'stage': config.get('stage'),
      'config_digest': files.config_digest(config),
      'seed': config.get('seed'),
      'seconds': round(clock.seconds(), 1),
      'steps': done,
      'before': before,
      'after': after,
  }
  _conclude(stage, workdir, figures)
  return figures


def _train(stage, settings, workdir, state, start, saves, clock, stop):
  """Steps from `start` to the end or a stop signal; (state, steps done)."""
  if start >= stage.steps:
    return state, start
  rollouts = workdir / 'rollouts.jsonl'
  if distributed.is_main():
    files.truncate_rows(rollouts, start)
  if not start and (workdir / 'metrics.jsonl').exists():
    _say('no state had been saved yet, it begins again; one is every '
         f'{settings.checkpoint_every_steps} steps (checkpoint.every_steps)')
  _say(f'steps {start} to {stage.steps}, kept in {workdir}; the first one '
       'compiles')
  log = logger.Log(
      workdir, stage.shown, start_step=start, total_steps=stage.steps,
      max_skipped_steps=settings.max_skipped_steps,
      tensorboard=settings.tensorboard)
  with contextlib.closing(log):
    for step in range(start, stage.steps):
      state, metrics, records = stage.step(state, step)
      done = step + 1
      every = settings.rollouts_every_steps
      if records and every and not step % every and distributed.is_main():
        files.append_rows(rollouts, [{'step': step, **row} for row in records])
      every = settings.eval_every_steps
      if stage.evaluate and every and not done % every and done < stage.steps:
        with log.aside(state):
          metrics = metrics | _prefixed(stage.evaluate(state)[0])
      log.take(step, metrics, state)
      last = distributed.any_process(stop.asked) or done == stage.steps
      if last or done % settings.checkpoint_every_steps == 0:
        with log.aside(state):
          saves.save(done, state, force=last)
          clock.save()
      if last:
        break
  saves.wait()
  return state, done


class _Clock:
  """Seconds a run has taken over all its resumes, up to what a kill cost."""

  def __init__(self, path: pathlib.Path):
    self._path = path
    self._started = time.monotonic()
    kept = files.read_json(path)
    self._before = kept['seconds'] if kept else 0.0

  def seconds(self) -> float:
    return self._before + time.monotonic() - self._started

  def save(self):
    if distributed.is_main():
      files.write_json(self._path, {'seconds': self.seconds()})


def _claim(workdir: pathlib.Path, config: Mapping[str, Any]):
  """Records the config in a new workdir; refuses one begun under another."""
  path = workdir / 'config.json'
  kept = files.read_json(path)
  fields = config_lib.changed(kept, config) if kept else []
  if fields:
    raise errors.ConfigError(
        f'--workdir={workdir} holds a run of another configuration: '
        f'{", ".join(fields)}; give another --workdir, or the same values')
  if distributed.is_main():
    workdir.mkdir(parents=True, exist_ok=True)
    files.write_json(path, config)


def _evaluation(stage, state, step, wanted, path) -> Figures | None:
  """Figures at step `wanted`, from `path` where they were kept before."""
  if stage.evaluate is None:
    return None
  kept = files.read_json(path)
  known = kept is not None and kept['step'] == wanted
  if not distributed.any_process(known):
    if step != wanted:
      return None
    figures, samples = stage.evaluate(state)
    kept = {'step': wanted, 'figures': figures, 'samples': samples}
    if distributed.is_main():
      files.write_json(path, kept)
  return kept['figures']


def _conclude(stage, workdir, figures):
  if not distributed.is_main():
    return
  files.write_json(workdir / 'summary.json', figures)
  if stage.steps:
    _say(f'checkpoint: {workdir}/checkpoints/{figures["steps"]}')
  if stage.finish is not None:
    _say(stage.finish(figures))


def _prefixed(figures: Figures) -> Figures:
  return {f'eval/{name}': value for name, value in figures.items()
          if isinstance(value, (int, float))}


def _say(text: str):
  if distributed.is_main():
    print(text, flush=True)


class StopSignal:
  """Whether SIGTERM or SIGINT came; a second one ends the program at once."""

  _SIGNALS = (signal.SIGTERM, signal.SIGINT)

  def __enter__(self):
    self.asked = False
    self._before = {number: signal.signal(number, self._ask)
                    for number in self._SIGNALS}
    return self

  def _ask(self, number, frame):
    del number, frame
    self.asked = True
    self._restore()

  def _restore(self):
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def __exit__(self, *exc):
    self._restore()
