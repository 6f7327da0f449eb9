"""The tiny released models of fixtures/, and what each should compute.

make_fixtures.py made them with transformers, which tests need not have.
"""

import dataclasses
import functools
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
import safetensors.numpy

from experiments import machine_sections
from r1jax import models
from r1jax.models import architecture
from r1jax.models import hf
from r1jax.parallel import sharding
from r1jax.stages import train_state
from r1jax.types import Params, Prompts

FOLDER = pathlib.Path(__file__).parents[1] / 'models' / 'fixtures'
NAMES = sorted(path.name for path in FOLDER.iterdir())
TOLERANCE = 1e-4


class Rows(NamedTuple):
  """Documents in rows, and where each is: row, begin."""
  tokens: np.ndarray  # i32[B, T]
  segment: np.ndarray  # i32[B, T]
  position: np.ndarray  # i32[B, T]
  places: tuple[tuple[int, int], ...]


class Expected(NamedTuple):
  """What transformers computes in float32, see make_fixtures.py."""
  tokens: np.ndarray  # i32[B, T], padded at their right
  length: np.ndarray  # i32[B]
  logits: np.ndarray  # f32[B, T, V]
  logp: np.ndarray  # f32[B, T], at the token's own index
  prompt: np.ndarray  # i32[P]
  greedy: np.ndarray  # i32[8], continues the prompt

  @property
  def real(self) -> np.ndarray:
    """bool[B, T]: what is no padding."""
    return np.arange(self.tokens.shape[1]) < self.length[:, None]


def expected(name: str) -> Expected:
  with np.load(FOLDER / name / 'expected.npz') as file:
    return Expected(**file)


def like(model: models.Model) -> Params:
  """The shapes of a model's parameters, all on one device."""
  where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  return sharding.abstract_arrays(shapes, jax.tree.map(lambda _: where, shapes))


def load(path: pathlib.Path | str, **switches) -> tuple[models.Model, Params]:
  """The model in a folder or file; switches say how it computes."""
  model = models.build(
      dataclasses.replace(hf.read_config(str(path)), **switches))
  return model, hf.load_params(str(path), model.config, like(model))


@functools.cache
def fixture(name: str, **switches) -> tuple[models.Model, Params, Expected]:
  return *load(FOLDER / name, **switches), expected(name)


@functools.partial(jax.jit, static_argnums=0)
def logits(model: models.Model, params: Params, tokens, segment, position):
  hidden, _ = model.forward(params, tokens, segment, position)
  return model.unembed(params, hidden)


def forward(model: models.Model, params: Params, seen: Expected) -> np.ndarray:
  """Logits of the real tokens, one behind the other."""
  return np.asarray(logits(model, params, seen.tokens, None,
                           positions(seen.tokens)))[seen.real]


def positions(tokens: np.ndarray) -> np.ndarray:
  return np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)


def rows(seen: Expected, padding: int) -> Rows:
  """All documents, the longest alone and the others in one row.

  Padding stands before, between and behind them.
  """
  one, two = seen.length[1:]
  places = (0, 1), (1, 2), (1, one + 4)
  shape = 2, max(seen.length[0] + 3, one + two + 5)
  tokens, segment = np.full(shape, padding), np.zeros(shape, np.int32)
  position = positions(tokens).copy()
  for number, (row, begin) in enumerate(places):
    length = seen.length[number]
    place = row, slice(begin, begin + length)
    tokens[place] = seen.tokens[number, :length]
    segment[place], position[place] = number + 1, np.arange(length)
  return Rows(tokens, segment, position, places)


def begun(seen: Expected, padding: int = 5) -> tuple[Prompts, np.ndarray]:
  """Each row's first half as a prompt, padded, and twice what follows it."""
  start = seen.length // 2
  rest = max(seen.length - start)
  columns = np.minimum(start[:, None] + np.arange(rest),
                       seen.tokens.shape[1] - 1)
  tokens = seen.tokens[:, :start.max() + 1].copy()
  tokens[np.arange(tokens.shape[1]) >= start[:, None]] = padding
  prompts = Prompts(tokens, start, np.arange(len(start), dtype=np.int32))
  responses = np.take_along_axis(seen.tokens, columns, 1)
  return prompts, np.repeat(responses, 2, 0)


def setup(config: architecture.Config, sizes: dict[str, int]
          ) -> train_state.PlacedModel:
  """The model on a mesh of all devices."""
  return train_state.place_model(
      config, sharding.make_mesh(sizes), machine_sections.RULES)


def copy(name: str, folder: pathlib.Path) -> pathlib.Path:
  """A folder to change."""
  return shutil.copytree(FOLDER / name, folder / name)


def tensors(folder: pathlib.Path) -> dict[str, np.ndarray]:
  """All tensors of a folder whose files are not float8."""
  return {name: x for path in sorted(folder.glob('*.safetensors'))
          for name, x in safetensors.numpy.load_file(path).items()}


def edit(folder: pathlib.Path, changes: dict[str, np.ndarray | None]) -> None:
  """Sets tensors of a folder with one file, or drops them."""
  names = dict(float32='F32', int64='I64', bool='BOOL', uint8='U8',
               float8_e5m2='F8_E5M2')
  path = folder / 'model.safetensors'
  content = path.read_bytes()
  begin = 8 + int.from_bytes(content[:8], 'little')
  kept = {name: (entry, content[slice(*(begin + x for x in
                                        entry['data_offsets']))])
          for name, entry in json.loads(content[8:begin]).items()
          if name not in changes and name != '__metadata__'}
  kept |= {name: (dict(dtype=names[x.dtype.name], shape=x.shape), x.tobytes())
           for name, x in changes.items() if x is not None}
  header, size = {}, 0
  for name, (entry, data) in kept.items():
    header[name] = entry | dict(data_offsets=[size, size + len(data)])
    size += len(data)
  write(path, header, b''.join(data for _, data in kept.values()))


def write(path: pathlib.Path, header: Any, data: bytes) -> None:
  """A safetensors file, whatever its header says."""
  text = json.dumps(header).encode()
  path.write_bytes(len(text).to_bytes(8, 'little') + text + data)


def rewrite(folder: pathlib.Path, **changes) -> None:
  """Sets fields of config.json, or drops those that are None."""
  path = folder / 'config.json'
  fields = json.loads(path.read_text('utf-8')) | changes
  path.write_text(json.dumps(
      {key: x for key, x in fields.items() if x is not None}), 'utf-8')


def python_with_transformers() -> str:
  """The interpreter that R1JAX_TRANSFORMERS_PYTHON names, or this one."""
  named = os.environ.get('R1JAX_TRANSFORMERS_PYTHON')
  if named is None and not all(
      map(importlib.util.find_spec, ('torch', 'transformers'))):
    pytest.skip('transformers and torch are not installed; '
                'R1JAX_TRANSFORMERS_PYTHON may name a Python that has them')
  return named or sys.executable


def transformers(folder: pathlib.Path, model: str, saved: str | None = None,
                 **questions) -> dict[str, np.ndarray]:
  """What run_transformers.py answers; paths are from `folder`, for its files.
  """
  python = python_with_transformers()
  np.savez(folder / 'questions.npz', **questions)
  program = str(FOLDER.with_name('run_transformers.py'))
  done = subprocess.run(
      [python, program, model, 'questions.npz', 'answers.npz',
       *([saved] if saved else [])],
      cwd=folder, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  with np.load(folder / 'answers.npz') as file:
    return dict(file)
