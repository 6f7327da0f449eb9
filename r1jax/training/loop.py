"""The training loop that every stage runs in: resume, step, evaluate, save.

A stage is a `Stage`: a few functions of the `TrainState`. What the loop leaves
in the workdir:

    config.json                 the configuration; a resumed run must match it
    checkpoints/<step>          the states
    metrics.jsonl, tensorboard  a row a step
    rollouts.jsonl              what was sampled, a row a response
    evaluation_{before,after}.json   figures and samples
    seconds.json                what it has taken up to the last checkpoint
    summary.json                when the stage has ended

A run killed at any moment and started again ends in bitwise the same state:
the step index alone decides what a step sees, so there is nothing else to lose.
The workdir must be a file system that every host sees.
"""

from collections.abc import Callable, Mapping
import contextlib
import pathlib
import signal
from typing import Any, NamedTuple

from r1jax import config as config_lib
from r1jax import errors
from r1jax import types
from r1jax.parallel import distributed
from r1jax.training import checkpoint
from r1jax.training import files
from r1jax.training import logger
from r1jax.training import timing

TrainState = types.TrainState
Figures = dict[str, Any]  # name -> number
Records = list[dict[str, Any]]  # JSON-able

_ROLLOUTS, _SECONDS = 'rollouts.jsonl', 'seconds.json'


class Stage(NamedTuple):
  """What differs from one kind of training to another."""
  # Steps of the loop in all; 0 for a stage that only evaluates.
  steps: int
  # () -> the sharded state at step 0.
  init: Callable[[], TrainState]
  # ShapeDtypeStructs with shardings, what a checkpoint is restored into.
  abstract: TrainState
  # (state, step) -> new state, metrics {name: scalar, on device or host}, and
  # what was sampled. `step` equals state.step; the state may be donated. It
  # need not wait for what it dispatches (training/timing.py); None if there
  # are no steps.
  step: Callable[[TrainState, int],
                 tuple[TrainState, Figures, Records]] | None
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


def train(
    stage: Stage,
    settings: Settings,
    workdir: str,
    record: Mapping[str, Any],
) -> Figures | None:
  """Takes `stage` from where `workdir` stands to its end.

  Args:
    stage: what to run.
    settings: when to save, evaluate and log.
    workdir: the run's own directory.
    record: the whole configuration as nested plain data, to be kept there.

  Returns:
    The summary; None if SIGTERM or SIGINT stopped the run, which has then
    saved its state and goes on when started again.

  Raises:
    ConfigError: `workdir` cannot be written, or holds a run with another
      configuration.
    Diverged: `max_skipped_steps` updates in a row were skipped.
  """
  workdir = pathlib.Path(workdir).absolute()
  _claim(workdir, record)
  clock = timing.Clock(_seconds_before(workdir))
  with StopSignal() as stop, _checkpoints(stage, settings, workdir) as saves:
    run = _Run(stage, settings, workdir, clock, saves, stop)
    state, start = (saves and saves.restore_latest(stage.abstract)
                    or (stage.init(), 0))
    before = None
    if stage.steps:
      before = _evaluate(run, state, start, 0, 'evaluation_before.json')
    state, done = _take_steps(run, state, start)
    if done < stage.steps:
      distributed.say(
          f'stopped after step {done} of {stage.steps}, state saved in '
          f'{workdir}; start the same command again to go on')
      return None
    after = _evaluate(run, state, done, done, 'evaluation_after.json')
  _save_seconds(run)
  summary = {
      'stage': record.get('stage'),
      'config_digest': files.config_digest(record),
      'seed': record.get('seed'),
      'seconds': round(clock.seconds(), 1),
      'steps': done,
      'before': before,
      'after': after,
  }
  _conclude(run, summary)
  return summary


class _Run(NamedTuple):
  """A stage in its workdir, from beginning to end."""
  stage: Stage
  settings: Settings
  workdir: pathlib.Path
  clock: timing.Clock
  saves: checkpoint.Checkpointer | None  # None for a stage of no steps
  stop: 'StopSignal'


def _take_steps(run: _Run, state: TrainState, start: int
                ) -> tuple[TrainState, int]:
  """Steps from `start` to the end or a stop signal; (state, steps done)."""
  stage, settings = run.stage, run.settings
  if start >= stage.steps:
    return state, start
  _begin_files(run, start)
  log = logger.Log(
      run.workdir, stage.shown, clock=run.clock, start_step=start,
      total_steps=stage.steps, max_skipped_steps=settings.max_skipped_steps,
      tensorboard=settings.tensorboard)
  with contextlib.closing(log):
    for step in range(start, stage.steps):
      state, metrics, records = stage.step(state, step)
      _keep_rollouts(run, step, records)
      done = step + 1
      log.take(step, metrics, state, _due_evaluation(run, state, done))
      last = distributed.any_process(run.stop.asked) or done == stage.steps
      if last or done % settings.checkpoint_every_steps == 0:
        with log.aside(state):
          run.saves.save(done, state, force=last)
          _save_seconds(run)
      if last:
        break
  run.saves.wait()
  return state, done


def _begin_files(run: _Run, start: int):
  """Drops the rollouts of steps to be done again, and says where it stands."""
  if distributed.is_main():
    files.truncate_rows(run.workdir / _ROLLOUTS, start)
  if not start and (run.workdir / 'metrics.jsonl').exists():
    distributed.say(
        'no state had been saved yet, it begins again; one is every '
        f'{run.settings.checkpoint_every_steps} steps '
        '(checkpoint.every_steps)')
  distributed.say(f'steps {start} to {run.stage.steps}, kept in {run.workdir}; '
                  'the first one compiles')


def _keep_rollouts(run: _Run, step: int, records: Records):
  every = run.settings.rollouts_every_steps
  if records and every and not step % every and distributed.is_main():
    files.append_rows(run.workdir / _ROLLOUTS,
                      [{'step': step, **row} for row in records])


def _due_evaluation(run: _Run, state: TrainState, done: int
                    ) -> Callable[[], Figures] | None:
  """What gives the evaluation's metrics, if there is one after `done` steps."""
  stage, every = run.stage, run.settings.eval_every_steps
  if stage.evaluate is None or not every or done % every or (
      done == stage.steps):
    return None

  def evaluate():
    figures, _ = stage.evaluate(state)
    return {f'eval/{name}': value for name, value in figures.items()
            if isinstance(value, (int, float))}
  return evaluate


def _evaluate(run: _Run, state: TrainState, done: int, wanted: int, name: str
              ) -> Figures | None:
  """Figures after `wanted` steps, from file `name` if they are known already.

  None if they are neither known nor to be had, for `done` steps are done.
  """
  if run.stage.evaluate is None:
    return None
  path = run.workdir / name
  evaluation = files.read_json(path)
  known = evaluation is not None and evaluation['step'] == wanted
  if not distributed.any_process(known):
    if done != wanted:
      return None
    figures, samples = run.stage.evaluate(state)
    evaluation = {'step': wanted, 'figures': figures, 'samples': samples}
    if distributed.is_main():
      files.write_json(path, evaluation)
  return evaluation['figures']


def _conclude(run: _Run, summary: Figures):
  """Writes the summary and the stage's report, and says what comes next."""
  if not distributed.is_main():
    return
  files.write_json(run.workdir / 'summary.json', summary)
  if run.stage.steps:
    distributed.say(f'checkpoint: {run.workdir}/checkpoints/{summary["steps"]}')
  if run.stage.finish is not None:
    distributed.say(run.stage.finish(summary))


def _claim(workdir: pathlib.Path, record: Mapping[str, Any]):
  """Keeps the config in a new workdir; refuses one begun under another."""
  path, problem = workdir / 'config.json', None
  try:
    known = files.read_json(path)
    fields = config_lib.changed(known, record) if known else []
    if distributed.is_main() and not fields:
      workdir.mkdir(parents=True, exist_ok=True)
      files.write_json(path, record)
  except OSError as error:
    problem = str(error)
  # Where one process must stop, none may wait for it.
  problems = [text for text in distributed.gather(problem) if text]
  if problems:
    raise errors.ConfigError(
        '--workdir', 'expected a directory that can be written, received '
        f'{workdir}: {problems[0]}')
  if fields:
    raise errors.ConfigError(
        '--workdir', f'{workdir} holds a run of another configuration: '
        f'{", ".join(fields)}; give another --workdir, or the same values')


def _checkpoints(stage: Stage, settings: Settings, workdir: pathlib.Path
                 ) -> contextlib.AbstractContextManager:
  """The run's checkpoints; None for a stage of no steps."""
  if not stage.steps:
    return contextlib.nullcontext()
  return contextlib.closing(checkpoint.Checkpointer(
      workdir / 'checkpoints', keep=settings.keep,
      every_steps=settings.checkpoint_every_steps))


def _seconds_before(workdir: pathlib.Path) -> float:
  """What the run has taken before this resume, up to what a kill cost."""
  saved = files.read_json(workdir / _SECONDS)
  return saved['seconds'] if saved else 0.


def _save_seconds(run: _Run):
  if distributed.is_main():
    files.write_json(
        run.workdir / _SECONDS, {'seconds': run.clock.seconds()})


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
