"""How often a loop of a compiled program runs."""

from collections.abc import Iterator
import re

from r1jax.plan import hlo


def trip_count(program: hlo.Program, computation: hlo.Computation,
               loop: hlo.Instruction) -> int | None:
  """How often a loop runs; None if it ends by its data.

  It is what XLA notes; or else follows from the constant that the counter is
  compared with, its start, and its step, which is 2 in a loop that XLA unrolls
  once.
  """
  noted = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes)
  if noted:
    return int(noted[1])
  condition = program.computations[loop.called('condition')]
  compared = next((
      (inside, one) for inside in _computations(program, condition)
      for one in inside.instructions.values()
      if one.opcode == 'compare' and 'direction=LT' in one.attributes), None)
  if compared is None:
    return None
  inside, compare = compared
  counter, end = (_operand(condition, inside, x) for x in compare.operands)
  bound, root = _constant(computation, loop, end), condition.root
  direct = root.opcode == 'compare' or (
      root.opcode == 'fusion' and program.computations[
          root.called('calls')].root.opcode == 'compare')
  if not direct or bound is None or _index(counter) is None:
    return None
  start = _constant(computation, loop, counter) or 0
  step = _step(program.computations[loop.called('body')], counter)
  return -(-(bound - start) // step)


def _computations(program: hlo.Program, computation: hlo.Computation
                 ) -> Iterator[hlo.Computation]:
  """A computation and those of its fusions."""
  yield computation
  for one in computation.instructions.values():
    if one.opcode == 'fusion':
      yield program.computations[one.called('calls')]


def _operand(condition: hlo.Computation, inside: hlo.Computation, name: str
            ) -> hlo.Instruction:
  """An operand of the comparison, as the condition computes it."""
  one = inside.instructions[name]
  if one.opcode != 'parameter' or inside is condition:
    return _original(inside, one)
  caller = next(x for x in condition.instructions.values()
                if x.called('calls') == inside.name)
  return _original(condition, condition.instructions[
      caller.operands[int(one.argument)]])


def _original(computation: hlo.Computation, one: hlo.Instruction
             ) -> hlo.Instruction:
  while one.opcode in ('copy', 'bitcast'):
    one = computation.instructions[one.operands[0]]
  return one


def _index(one: hlo.Instruction) -> int | None:
  """The place of a part in what a loop carries."""
  found = re.search(r'index=(\d+)', one.attributes)
  return int(found[1]) if one.opcode == 'get-tuple-element' else None


def _constant(computation: hlo.Computation, loop: hlo.Instruction,
              one: hlo.Instruction) -> int | None:
  """The integer that `one` is, or that the loop starts with in its place."""
  if _index(one) is not None:
    start = computation.instructions[loop.operands[0]]
    if start.opcode != 'tuple':
      return None
    one = _original(computation, computation.instructions[
        start.operands[_index(one)]])
  number = re.fullmatch(r'-?\d+', one.argument)
  return int(number[0]) if one.opcode == 'constant' and number else None


def _step(body: hlo.Computation, counter: hlo.Instruction) -> int:
  """What an iteration adds to the counter; 1 where the body hides it."""
  if body.root.opcode != 'tuple':
    return 1
  one = _original(body, body.instructions[body.root.operands[_index(counter)]])
  if one.opcode != 'add':
    return 1
  added = [int(x.argument) for x in map(body.instructions.get, one.operands)
           if x.opcode == 'constant']
  return added[0] if added else 1
