"""The rules of the source tree: who imports whom, what the core needs, size."""

import ast
import graphlib
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / 'r1jax').rglob('*.py'))

# A module may import what stands in its own line or above it.
LAYERS = (
    ('types', 'errors', 'config', 'resuming', 'fields', 'interrupts',
     'terminal', 'workdir', 'objects', 'digests', 'cache', 'buckets'),
    ('kernels', 'rewards', 'data', 'mini', 'parallel', 'training'),
    ('models',),
    ('reports',),
    ('stages',),
)
TENSORFLOW = {'tensorflow', 'tensorflow_datasets', 'seqio', 'tensorflow_text'}
JAX = {'jax', 'jaxlib', 'flax', 'optax', 'orbax', 'chex'}
# Not needed to import and train; jax, flax, optax, orbax, ml-collections,
# numpy and absl are.
OPTIONAL = TENSORFLOW | {
    'gcsfs', 'gguf', 'gin', 'jinja2', 'mctx', 'mpmath', 'reasoning_gym',
    'pyarrow', 's3fs', 'safetensors', 'sentencepiece', 'simplemma',
    'tensorboard', 'tokenizers'}
TASKS = {'r1jax.data.seqio_tasks', 'r1jax.data.tfds_source'}
MATHEMATICS = 'r1jax.rewards.mathematics'  # which verifying workers import
MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_COLUMNS = 400, 60, 80
MAX_README_LINES = 170


def _name(path):
  parts = path.relative_to(ROOT).with_suffix('').parts
  return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


MODULES = {_name(path): path for path in FILES}


def _tree(path):
  return ast.parse(path.read_text(encoding='utf-8'), filename=str(path))


def _imports(path):
  """Full names of all modules that a file imports, inside functions too."""
  names = set()
  for node in ast.walk(_tree(path)):
    if isinstance(node, ast.Import):
      names.update(alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}:{node.lineno}: relative import'
      full = {f'{node.module}.{alias.name}' for alias in node.names}
      ours = node.module.split('.')[0] == 'r1jax'
      names |= full if ours else {node.module}
  return names


IMPORTS = {name: _imports(path) for name, path in MODULES.items()}


def _ours(names):
  return {name for name in names if name.split('.')[0] == 'r1jax'}


def _part(name):
  """r1jax.kernels.masked -> kernels; the package itself -> ''."""
  return (name.split('.') + [''])[1]


def _layer(name):
  """Index into LAYERS; main and whatever else stands beside it come last."""
  for index, parts in enumerate(LAYERS):
    if _part(name) in parts:
      return index
  return len(LAYERS) if _part(name) else 0


def test_imports_point_one_way():
  wrong = [
      f'{name} imports {used}' for name, names in IMPORTS.items()
      for used in _ours(names) if _layer(used) > _layer(name)]
  assert not wrong


def _module(name):
  """The module that a full name is, or is defined in."""
  return name if name in MODULES else name.rpartition('.')[0]


def test_imports_have_no_cycle():
  graphlib.TopologicalSorter(
      {name: set(map(_module, _ours(names))) for name, names in IMPORTS.items()}
  ).prepare()


def test_our_own_imports_are_modules():
  packages = {name.rpartition('.')[0] for name in MODULES}
  wrong = [
      f'{name} imports {used}' for name, names in IMPORTS.items()
      for used in _ours(names)
      if used not in packages | set(MODULES)
      # As with typing, the names of r1jax.types stand alone in annotations;
      # and a package's __init__ may re-export.
      and not used.startswith('r1jax.types.') and name not in packages]
  assert not wrong


def test_a_kernel_knows_nothing_but_arrays():
  wrong = [
      f'{name} imports {used}' for name, names in IMPORTS.items()
      for used in _ours(names)
      if _part(name) == 'kernels'
      and _part(used) not in ('kernels', 'types', 'parallel')]
  assert not wrong


def test_rewards_and_data_stay_on_the_host():
  wrong = [
      f'{name} imports {used}' for name, names in IMPORTS.items()
      for used in names if _part(name) in ('rewards', 'data', 'mini')
      and (used.split('.')[0] in JAX or used.split('.')[0] == 'r1jax'
           and _part(used) not in ('rewards', 'data', 'mini', 'config', 'errors',
                                   'interrupts', 'buckets', 'cache', 'digests'))]
  assert not wrong


def test_tensorflow_is_imported_where_a_dataset_is_read_only():
  wrong = [
      f'{name} imports {used}' for name, names in IMPORTS.items()
      for used in names
      if used.split('.')[0] in TENSORFLOW and name not in TASKS]
  assert not wrong


def test_the_core_imports_without_the_optional_packages():
  # None in sys.modules is how Python marks a module that cannot be found.
  program = '\n'.join([
      'import importlib, sys',
      f'sys.modules.update(dict.fromkeys({sorted(OPTIONAL)}))',
      f'for name in {sorted(set(MODULES) - TASKS)}:',
      f'  if name.startswith({MATHEMATICS!r}): continue',
      '  importlib.import_module(name)'])
  done = subprocess.run(
      [sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True,
      check=False)
  assert done.returncode == 0, done.stderr


def test_files_are_short_and_say_what_they_are():
  wrong = []
  for path in (*FILES, *(ROOT / 'experiments').glob('*.py')):
    lines = path.read_text(encoding='utf-8').splitlines()
    if len(lines) > MAX_FILE_LINES and path in FILES:
      wrong.append(f'{path}: {len(lines)} lines')
    wrong += [f'{path}:{number}: {len(line)} columns'
              for number, line in enumerate(lines, 1)
              if len(line) > MAX_COLUMNS]
    if lines and not ast.get_docstring(_tree(path)):
      wrong.append(f'{path}: no docstring')
  assert not wrong, '\n'.join(wrong)


def test_the_readme_is_a_front_page():
  lines = (ROOT / 'README.md').read_text(encoding='utf-8').splitlines()
  assert len(lines) <= MAX_README_LINES


def test_functions_are_short():
  wrong = []
  for path in FILES:
    if path == ROOT / 'r1jax/main.py':
      continue
    for node in ast.walk(_tree(path)):
      if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        lines = node.end_lineno - node.lineno + 1
        if lines > MAX_FUNCTION_LINES:
          wrong.append(f'{path}:{node.lineno}: {node.name} has {lines} lines')
  assert not wrong, '\n'.join(wrong)
