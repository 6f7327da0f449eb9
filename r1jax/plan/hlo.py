"""The text of a compiled program (HLO), parsed: `compiled.as_text()`.

XLA writes a program as computations, one of which is the entry; a computation
is a list of instructions in the order in which they run,

    %name = f32[8,64]{1,0:T(8,128)S(1)} fusion(%a, %b), kind=kLoop, calls=%c

each with its result, an array or a tuple, its operands by name, and attributes.
S(n) is the memory space of an array; without it, it lies in the device's main
memory (HBM).
"""

from collections.abc import Iterator
import functools
import math
import re
from typing import NamedTuple

_BITS = {  # of an element; float8 and int4 by their names
    'pred': 8, 'token': 0, 'opaque': 0, 's2': 2, 'u2': 2, 's4': 4, 'u4': 4,
    'f4': 4, 'f8': 8, 's8': 8, 'u8': 8, 's16': 16, 'u16': 16, 'f16': 16,
    'bf16': 16, 's32': 32, 'u32': 32, 'f32': 32, 's64': 64, 'u64': 64,
    'f64': 64, 'c64': 64, 'c128': 128}

# A line break in what a kernel says of itself, within its attributes.
_WITHIN = re.compile(r'(?<=[{,])\n(?=")|(?<=")\n(?=\}\})')
_COMMENT = re.compile(r'/\*.*?\*/')
_HEAD = re.compile(r'(ENTRY )?%?([\w.$-]+) \(.*\{$')
_INSTRUCTION = re.compile(r'\s+(ROOT )?%?([\w.$-]+) = (.*)$')
_ARRAY = re.compile(r'([a-z]\w*)\[([\d,<=]*)\](?:\{([^}]*)\})?')
_OPERATION = re.compile(r'\s*([a-z][\w-]*)\(')
_NAME = re.compile(r'%([\w.$-]+)')
_SPACE = re.compile(r'S\((\d+)\)')


class Array(NamedTuple):
  """An array: a result, or a part of one that is a tuple."""
  dtype: str
  dims: tuple[int, ...]
  space: int = 0  # 0: HBM; others are on the chip, or the host's

  @property
  def bytes(self) -> int:
    known = self.dtype if self.dtype in _BITS else self.dtype[:2]
    return math.prod(self.dims) * _BITS[known] // 8


class Instruction(NamedTuple):
  """One instruction; a tuple's arrays are listed one after the other."""
  name: str
  opcode: str
  arrays: tuple[Array, ...]
  operands: tuple[str, ...]
  argument: str  # what the parentheses hold, as of constant(30)
  attributes: str
  root: bool

  @property
  def array(self) -> Array:
    """The result, where it is one array."""
    return self.arrays[0]

  def called(self, name: str) -> str | None:
    """The computation that an attribute such as `body` or `calls` names."""
    found = re.search(rf'\b{name}=%?([\w.$-]+)', self.attributes)
    return found and found[1]

  @property
  def scope(self) -> str:
    """The jax.named_scope directly around a loop, or of what it is a part."""
    found = re.search(r'op_name="(?:[^"]*/)?([^/"]+)/while"', self.attributes)
    return found[1] if found else ''


class Computation(NamedTuple):
  """The instructions of a computation by name, in their order."""
  name: str
  instructions: dict[str, Instruction]

  @property
  def root(self) -> Instruction:
    return next(x for x in self.instructions.values() if x.root)

  def parameters(self) -> dict[int, Instruction]:
    """The parameters by their index."""
    return {int(x.argument): x for x in self.instructions.values()
            if x.opcode == 'parameter'}

  @functools.cache
  def users(self) -> dict[str, list[Instruction]]:
    """The instructions that read each one, by its name."""
    found = {}
    for instruction in self.instructions.values():
      for name in instruction.operands:
        found.setdefault(name, []).append(instruction)
    return found

  __hash__ = object.__hash__
  __eq__ = object.__eq__


class Program(NamedTuple):
  """A compiled program, of one device."""
  computations: dict[str, Computation]
  entry: Computation


def parse(text: str) -> Program:
  """Parses `compiled.as_text()`.

  Raises:
    ValueError: a line is not understood, or there is no entry.
  """
  computations, entry, current = {}, None, None
  for line in _WITHIN.sub(' ', text).splitlines():
    if current is None:
      found = _HEAD.match(line)
      if found:
        current = Computation(found[2], {})
        computations[found[2]] = current
        entry = current if found[1] else entry
    elif line.startswith('}'):
      current = None
    else:
      found = _INSTRUCTION.match(line)
      if found:
        one = _instruction(found[2], found[3], bool(found[1]))
        current.instructions[one.name] = one
  if entry is None:
    raise ValueError('no entry computation in this text of a program')
  return Program(computations, entry)


def _instruction(name: str, text: str, root: bool) -> Instruction:
  """An instruction from what follows its name."""
  text = _COMMENT.sub('', text)
  end = _end(text) if text.startswith('(') else text.index(' ')
  operation = _OPERATION.match(text, end)
  if not operation:
    raise ValueError(f'no operation in the instruction {name} = {text[:200]}')
  close = _end(text, operation.end() - 1)
  argument = text[operation.end():close - 1]
  return Instruction(
      name, operation[1], tuple(arrays(text[:end])),
      tuple(_NAME.findall(argument)), argument, text[close:], root)


def _end(text: str, start: int = 0) -> int:
  """The index after the bracket that closes the one at `start`."""
  depth = 0
  for found in re.compile(r'[()]').finditer(text, start):
    depth += 1 if found[0] == '(' else -1
    if not depth:
      return found.end()
  raise ValueError(f'an open bracket in {text[:200]}')


def arrays(text: str) -> Iterator[Array]:
  """The arrays that the text of a type names."""
  for dtype, dims, layout in _ARRAY.findall(text):
    space = _SPACE.search(layout)
    yield Array(dtype, tuple(int(n.lstrip('<=')) for n in dims.split(',') if n),
                int(space[1]) if space else 0)
