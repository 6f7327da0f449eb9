"""The training loop that every stage runs in: resume, step, evaluate, save.

A stage is a `Stage`: a few functions of the `TrainState`. The files that a run
leaves in its workdir are listed in r1jax/README.md.

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
from r1jax.training import record
from r1jax.training import timing

TrainState = types.TrainState
Metrics = dict[str, Any]  # name -> number
Rows = list[dict[str, Any]]  # JSON-able

_ROLLOUTS, _SECONDS = 'rollouts.jsonl', 'seconds.json'


class Stage(NamedTuple):
  """What differs from one kind of training to another."""
  # Steps of the loop in all; 0 for a stage that only evaluates.
  steps: int
  # () -> the sharded state at step 0.
  init: Callable[[], TrainState]
  # ShapeDtypeStructs with shardings, what a checkpoint is restored into.
  abstract: TrainState
  # (state, step) -> new state, metrics (on the device or the host), rows for
  # rollouts.jsonl. `step` equals state.step; the state may be donated. The
  # function need not wait for the work that it dispatches (training/timing.py).
  # None in a stage of no steps.
  step: Callable[[TrainState, int],
                 tuple[TrainState, Metrics, Rows]] | None
  # state -> results, samples for the report. Called before the first and after
  # the last step and every `eval_every_steps`; it does not change the state.
  evaluate: Callable[[TrainState], tuple[Metrics, Rows]] | None = None
  # summary -> closing words for the terminal; writes the report.
  finish: Callable[[Metrics], str] | None = None
  # {metric: its label on the progress line}
  progress: Mapping[str, str] = {}


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
    config: Mapping[str, Any],
    inputs: Mapping[str, Mapping[str, str]] | None = None,
) -> Metrics | None:
  """Runs `stage` to its end, from the latest checkpoint if there is one.

  Args:
    stage: what to run.
    settings: when to save, evaluate and log.
    workdir: the run's own directory.
    config: the whole configuration as nested plain data, kept there.
    inputs: digests of what it names (stages/inputs.py), kept there, too.

  Returns:
    The summary; None if SIGTERM or SIGINT stopped the run, which has then
    saved its state and resumes when started again.

  Raises:
    ConfigError: `workdir` cannot be written, or holds a run with another
      configuration or other inputs.
    Diverged: `max_skipped_steps` updates in a row were skipped.
  """
  workdir = pathlib.Path(workdir).absolute()
  _claim(workdir, config)
  record.check_inputs(workdir, inputs or {})
  clock = timing.Clock(_seconds_before(workdir))
  with StopSignal() as stop, _checkpoints(stage, settings, workdir) as saved:
    run = _Run(stage, settings, workdir, clock, saved, stop)
    state, start = (saved and saved.restore_latest(stage.abstract)
                    or (stage.init(), 0))
    before = None
    if stage.steps:
      before = _evaluate(run, state, start, 0, 'evaluation_before.json')
    state, done = _take_steps(run, state, start)
    if done < stage.steps:
      distributed.say(
          f'stopped after step {done} of {stage.steps}, state saved in '
          f'{workdir}; start the same command again to resume')
      return None
    after = _evaluate(run, state, done, done, 'evaluation_after.json')
  _save_seconds(run)
  summary = {
      'stage': config.get('stage'),
      'config_digest': files.config_digest(config),
      'seed': config.get('seed'),
      'seconds': round(clock.seconds(), 1),
      'steps': done,
      'before': before,
      'after': after,
  }
  _conclude(run, summary)
  return summary


class _Run(NamedTuple):
  """A run of a stage in its workdir."""
  stage: Stage
  settings: Settings
  workdir: pathlib.Path
  clock: timing.Clock
  checkpointer: checkpoint.Checkpointer | None  # None for a stage of no steps
  stop: 'StopSignal'


def _take_steps(run: _Run, state: TrainState, start: int
                ) -> tuple[TrainState, int]:
  """Steps from `start` to the end or a stop signal; (state, steps done)."""
  stage, settings = run.stage, run.settings
  if start >= stage.steps:
    return state, start
  _begin_files(run, start)
  log = logger.Log(
      run.workdir, stage.progress, clock=run.clock, start_step=start,
      total_steps=stage.steps, max_skipped_steps=settings.max_skipped_steps,
      tensorboard=settings.tensorboard)
  with contextlib.closing(log):
    for step in range(start, stage.steps):
      state, metrics, rows = stage.step(state, step)
      _log_rollouts(run, step, rows)
      done = step + 1
      log.take(step, metrics, state, _due_evaluation(run, state, done))
      last = distributed.any_process(run.stop.asked) or done == stage.steps
      if last or done % settings.checkpoint_every_steps == 0:
        with log.aside(state):
          run.checkpointer.save(done, state)
          _save_seconds(run)
      if last:
        break
  run.checkpointer.wait()
  return state, done


def _begin_files(run: _Run, start: int):
  """Drops rollouts of steps that will be taken again; says where it starts."""
  if distributed.is_main():
    files.truncate_rows(run.workdir / _ROLLOUTS, start)
  if not start and (run.workdir / 'metrics.jsonl').exists():
    distributed.say(
        'no checkpoint was saved yet: starting again from step 0; one is saved '
        f'every {run.settings.checkpoint_every_steps} steps '
        '(checkpoint.every_steps)')
  distributed.say(f'steps {start} to {run.stage.steps} in {run.workdir}; the '
                  'first one compiles')


def _log_rollouts(run: _Run, step: int, rows: Rows):
  every = run.settings.rollouts_every_steps
  if rows and every and not step % every and distributed.is_main():
    files.append_rows(run.workdir / _ROLLOUTS,
                      [{'step': step, **row} for row in rows])


def _due_evaluation(run: _Run, state: TrainState, done: int
                    ) -> Callable[[], Metrics] | None:
  """A function that evaluates, if that is due after `done` steps; else None."""
  stage, every = run.stage, run.settings.eval_every_steps
  if stage.evaluate is None or not every or done % every or (
      done == stage.steps):
    return None

  def evaluate():
    results, _ = stage.evaluate(state)
    return {f'eval/{name}': value for name, value in results.items()
            if isinstance(value, (int, float))}
  return evaluate


def _evaluate(run: _Run, state: TrainState, done: int, at_step: int, name: str
              ) -> Metrics | None:
  """The results after `at_step` steps, read from file `name` if they are there.

  None without an evaluation, or if they are not there and `done` is another
  step.
  """
  if run.stage.evaluate is None:
    return None
  path = run.workdir / name
  evaluation = files.read_json(path)
  known = evaluation is not None and evaluation['step'] == at_step
  if not distributed.any_process(known):
    if done != at_step:
      return None
    results, samples = run.stage.evaluate(state)
    evaluation = {'step': at_step, 'figures': results, 'samples': samples}
    if distributed.is_main():
      files.write_json(path, evaluation)
  return evaluation['figures']


def _conclude(run: _Run, summary: Metrics):
  """Writes the summary and the stage's report, and says what comes next."""
  if not distributed.is_main():
    return
  files.write_json(run.workdir / 'summary.json', summary)
  if run.stage.steps:
    distributed.say(f'checkpoint: {run.workdir}/checkpoints/{summary["steps"]}')
  if run.stage.finish is not None:
    distributed.say(run.stage.finish(summary))


def _claim(workdir: pathlib.Path, config: Mapping[str, Any]):
  """Writes the config into a new workdir; refuses one of another config."""
  path, problem = workdir / 'config.json', None
  try:
    known = files.read_json(path)
    fields = config_lib.changed(known, config) if known else []
    if distributed.is_main() and not fields:
      workdir.mkdir(parents=True, exist_ok=True)
      files.write_json(path, config)
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
      workdir / 'checkpoints', keep=settings.keep))


def _seconds_before(workdir: pathlib.Path) -> float:
  """Seconds that this run took before, up to its last checkpoint."""
  saved = files.read_json(workdir / _SECONDS)
  return saved['seconds'] if saved else 0.


def _save_seconds(run: _Run):
  if distributed.is_main():
    files.write_json(
        run.workdir / _SECONDS, {'seconds': run.clock.seconds()})


class StopSignal:
  """Notes SIGTERM or SIGINT in `asked`; a second one ends the program."""

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
