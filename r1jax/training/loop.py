"""The training loop that every stage runs in: resume, step, evaluate, save.

A stage is a `Stage`: a few functions of the `TrainState`. The files that a run
leaves in its workdir are listed in r1jax/README.md.

A run killed at any moment and started again ends in bitwise the same state:
the step index alone decides what a step sees, so there is nothing else to lose.
The workdir is one that every host sees, or that a bucket follows (mirror.py).
"""

from collections.abc import Callable, Mapping
import contextlib
import pathlib
from typing import Any, NamedTuple

from r1jax import buckets
from r1jax import errors
from r1jax import interrupts
from r1jax import types
from r1jax.parallel import distributed
from r1jax.parallel import roll_call
from r1jax.training import checkpoint
from r1jax.training import files
from r1jax.training import hanging
from r1jax.training import history
from r1jax.training import lock
from r1jax.training import logger
from r1jax.training import record
from r1jax.training import surroundings
from r1jax.training import timing

TrainState = types.TrainState
Metrics = dict[str, Any]  # name -> number
Rows = list[dict[str, Any]]  # JSON-able

_EVALUATION = {'step': int, 'figures': dict, 'samples': list}  # in its file


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
  # It may raise interrupts.Stopped while nothing of the state is donated, on
  # all processes alike. None in a stage of no steps.
  step: Callable[[TrainState, int],
                 tuple[TrainState, Metrics, Rows]] | None
  # state -> results, samples for the report. Called before the first and after
  # the last step and every `eval_every_steps`; it does not change the state.
  evaluate: Callable[[TrainState], tuple[Metrics, Rows]] | None = None
  # () -> the results after the last step, from what the steps have left in the
  # workdir: of a stage whose steps are the evaluation. In the main process.
  results: Callable[[], Metrics] | None = None
  # summary -> closing words for the terminal; writes the report.
  finish: Callable[[Metrics], str] | None = None
  # Whether rollouts.jsonl is what the stage is for: no row of it may be gone.
  makes_rollouts: bool = False
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
  hang_seconds: float = 0.  # that a step may take of several processes; 0: any


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
    The summary; None if a signal stopped the run (interrupts.py), which has
    then saved its state and resumes when started again.

  Raises:
    ConfigError: `workdir` cannot be written, is in use, or holds a run with
      another configuration or other inputs.
    RunError: a file of the run cannot be written, or all its checkpoints are
      damaged.
    Diverged: `max_skipped_steps` updates in a row were skipped, or the last.
  """
  workdir = pathlib.Path(workdir).absolute()
  with interrupts.handled(), distributed.signals_noted(), lock.held(workdir):
    try:
      return _train(stage, settings, workdir, config, inputs or {})
    except interrupts.Stopped:
      distributed.say(_stopped_words(stage, workdir))
      return None


def _train(stage: Stage, settings: Settings, workdir: pathlib.Path,
           config: Mapping[str, Any],
           inputs: Mapping[str, Mapping[str, str]]) -> Metrics:
  """As `train`, in a workdir that no other process uses.

  Raises:
    Stopped: a signal stopped the run; what it has to save is saved.
  """
  history.claim(workdir, config)
  record.check_inputs(workdir, inputs)
  clock = timing.Clock(history.seconds_before(workdir))
  checkpoints = contextlib.nullcontext() if not stage.steps else (
      contextlib.closing(checkpoint.Checkpointer(
          workdir / 'checkpoints', keep=settings.keep)))
  with checkpoints as saved, roll_call.held_on_error():
    run = _Run(stage, settings, workdir, config, clock, saved)
    state, start = _begin(run)
    if start < stage.steps or not stage.steps:
      surroundings.note(workdir, resumed=bool(start))
    before = None
    if stage.steps:
      before = _evaluate(run, state, start, 0, 'evaluation_before.json')
    with _noting_divergence(run):
      state, done = _take_steps(run, state, start)
    if done < stage.steps:
      raise interrupts.Stopped
    distributed.check_stopped()
    after = _evaluate(run, state, done, done, 'evaluation_after.json')
    if stage.results is not None:
      after = distributed.in_main(stage.results)
  history.save_seconds(run.workdir, run.clock.seconds())
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
  config: Mapping[str, Any]
  clock: timing.Clock
  checkpointer: checkpoint.Checkpointer | None  # None for a stage of no steps


def _begin(run: _Run) -> tuple[TrainState, int]:
  """The state to go on from and its step, and the files as they were then."""
  stage, restored, step = run.stage, None, 0
  if run.checkpointer is not None:
    restored = run.checkpointer.restore_latest(stage.abstract)
    step = restored[1] if restored else 0
    history.take_up(
        run.workdir, step, run.checkpointer.record,
        rollouts_every=run.settings.rollouts_every_steps,
        product=stage.makes_rollouts)
    run.checkpointer.record = None  # what is gone has been said
  return restored or (stage.init(), 0)


def _take_steps(run: _Run, state: TrainState, start: int
                ) -> tuple[TrainState, int]:
  """Steps from `start` to the end or a stop signal; (state, steps done)."""
  stage, settings = run.stage, run.settings
  if start >= stage.steps:
    return state, start
  distributed.say(f'steps {start} to {stage.steps} in {run.workdir}; the first '
                  'one compiles')
  log = logger.Log(
      run.workdir, stage.progress, clock=run.clock, total_steps=stage.steps,
      max_skipped_steps=settings.max_skipped_steps,
      tensorboard=settings.tensorboard)
  watch = hanging.Watch(settings.hang_seconds, run.clock, roll_call.hold)
  with contextlib.closing(log), watch, contextlib.ExitStack() as noted:
    _make_up_evaluation(run, state, start)
    due = False  # a save, which waits for an update that is made
    for step in range(start, stage.steps):
      done, stopped = step, False
      watch.begin(step)
      try:
        state, metrics, rows = stage.step(state, step)
      except interrupts.Stopped:
        if step == start:
          raise  # and nothing is to be saved
        stopped = True
      else:
        if step == start:  # now there is
          noted.enter_context(interrupts.noted())
        _log_rollouts(run, step, rows)
        done = step + 1
        log.take(step, metrics, state, _due_evaluation(run, state, done))
      stopped = any(distributed.together(
          lambda stopped=stopped: _look(run) or stopped))
      last = stopped or done == stage.steps
      due = due or done % settings.checkpoint_every_steps == 0
      if last or due:
        with log.aside(state):
          due = not _save(run, done, state, last)
      if last:
        break
    with run.clock.aside():
      distributed.together(run.checkpointer.wait)
  return state, done


def _look(run: _Run) -> bool:
  """Raises what went on in the background met; whether a signal was met."""
  run.checkpointer.poll()
  return interrupts.asked()


def _save(run: _Run, done: int, state: TrainState, last: bool) -> bool:
  """Saves a state; True if it has.

  A state whose last updates were skipped may be ruined, and takes the place of
  no good one: it is saved where the run stops, beside those before it.

  Args:
    run: of the state.
    done: steps.
    state: after them.
    last: whether no step follows.

  Raises:
    Diverged: its last updates were skipped, and it is the last of the stage.
      From a state of that step no other learning rate could go on.
  """
  skipped = logger.skipped(state)
  if skipped and done == run.stage.steps:
    raise logger.Diverged(
        f'the last {skipped} updates had numbers that are not finite and '
        'were skipped')
  if skipped and not last:
    return False
  seconds = run.clock.seconds()
  distributed.together(run.checkpointer.wait)  # for the one before
  run.checkpointer.save(
      done, state, replace=not skipped,
      record=distributed.in_main(lambda: history.record(
          run.workdir, done, run.config, run.checkpointer.record)),
      then=lambda: history.save_seconds(run.workdir, seconds))
  return True


def _kept(run: _Run) -> str:
  """The state that a resume goes on from, in words."""
  step = run.checkpointer.last
  return 'no state saved' if step is None else f'the state of step {step} saved'


def _without(run: _Run) -> str:
  """What helps where the state that is saved is ruined, in words."""
  step, place = run.checkpointer.last, buckets.named(run.workdir)
  return '' if step is None else (
      '; if it diverges again at once, that state is ruined: remove '
      f'{place}/checkpoints/{step} to go on from before it')


@contextlib.contextmanager
def _noting_divergence(run: _Run):
  """Says how a run that diverges inside can go on; its workdir remembers it."""
  try:
    yield
  except logger.Diverged as problem:
    try:
      distributed.in_main(
          lambda: history.note_divergence(run.workdir, str(problem)))
    except (errors.ConfigError, errors.RunError) as other:
      distributed.say(f'warning: that the run diverged is not kept: {other}')
    raise logger.Diverged(
        f'{problem}; {_kept(run)}: start the same command again with a lower '
        'config.optim.lr (clip_norm, warmup_steps and max_skipped_steps may '
        'change, too), or look at optim/grad_norm in metrics.jsonl'
        + _without(run)) from problem


def _log_rollouts(run: _Run, step: int, rows: Rows):
  every = run.settings.rollouts_every_steps
  if rows and every and not step % every:
    rows = [{'step': step, **row} for row in rows]
    distributed.in_main(
        lambda: files.append_rows(run.workdir / history.ROLLOUTS, rows))


def _due_evaluation(run: _Run, state: TrainState, done: int
                    ) -> Callable[[], Metrics] | None:
  """A function that evaluates, if that is due after `done` steps; else None.

  A signal that stops it stops the run after this step; the resumed run makes up
  for it (`_make_up_evaluation`).
  """
  stage, every = run.stage, run.settings.eval_every_steps
  if stage.evaluate is None or not every or done % every or (
      done == stage.steps):
    return None

  def evaluate():
    try:
      results, _ = stage.evaluate(state)
    except interrupts.Stopped:
      return {}
    return {f'{history.EVAL}{name}': value for name, value in results.items()
            if isinstance(value, (int, float))}
  return evaluate


def _make_up_evaluation(run: _Run, state: TrainState, done: int):
  """Evaluates now if a signal kept this run from that after its last step.

  Its row of metrics becomes the one that it would have been.
  """
  evaluate = done and _due_evaluation(run, state, done)
  if not evaluate:
    return
  path = run.workdir / history.METRICS
  last = distributed.in_main(lambda: next(files.stream_backwards(path), {}))
  if last.get('step') != done - 1 or any(
      name.startswith(history.EVAL) for name in last):
    return
  figures = evaluate()
  distributed.check_stopped()

  def write():
    step, *row = last.items()
    timed = next(n for n, (name, _) in enumerate(row)
                 if name.startswith(('time/', 'timing/')))
    row[:timed] = sorted([*row[:timed], *figures.items()])  # as jax has them
    files.replace_last_row(path, dict([step, *row]))
  distributed.in_main(write)


def _evaluate(run: _Run, state: TrainState, done: int, at_step: int, name: str
              ) -> Metrics | None:
  """The results after `at_step` steps, read from file `name` if they are there.

  None without an evaluation, or if they are not there and `done` is another
  step.
  """
  if run.stage.evaluate is None:
    return None
  path = run.workdir / name
  evaluation = distributed.in_main(lambda: files.read_json(path, _EVALUATION))
  if evaluation is None or evaluation['step'] != at_step:
    if done != at_step:
      distributed.say(
          f'warning: {path} is gone and cannot be made again at step {done}: '
          'the run goes on, without a report of what has changed since')
      return None
    results, samples = run.stage.evaluate(state)
    evaluation = {'step': at_step, 'figures': results, 'samples': samples}
    distributed.in_main(lambda: files.write_json(path, evaluation))
  return evaluation['figures']


def _conclude(run: _Run, summary: Metrics):
  """Writes the summary and the stage's report, and says what comes next."""
  def write():
    files.write_json(run.workdir / 'summary.json', summary)
    history.note_end(run.workdir, summary['steps'])
    return run.stage.finish(summary) if run.stage.finish else None
  closing = distributed.in_main(write)
  if run.stage.steps:
    distributed.say(f'checkpoint: {buckets.named(run.workdir)}/checkpoints/'
                    f'{summary["steps"]}')
  if closing is not None:
    distributed.say(closing)


def _stopped_words(stage: Stage, workdir: pathlib.Path) -> str:
  """What a run says that a signal has stopped: what there is to go on from."""
  saved = files.saved_steps(workdir / 'checkpoints')
  if not saved:
    return ('stopped before the first step; nothing to save' if stage.steps else
            str(interrupts.Stopped()))
  return (f'stopped after step {saved[-1]} of {stage.steps}, state saved in '
          f'{workdir}; start the same command again to resume')
