"""What transformers makes of a model; tests run it as a process of its own.

    python run_transformers.py MODEL QUESTIONS.npz ANSWERS.npz [SAVED]

MODEL is a folder or a GGUF file of float32; it is also written to the folder
SAVED. QUESTIONS and ANSWERS have, as far as asked:

    dtype of computation, else float32
    tokens [B, T], length [B] -> logits f32[B, T, V] (unless `few` is there),
      logp f32[B, T] of each token given those before it, 0 of the first and
      on padding
    prompts [B, P], prompt_length [B], new -> greedy [B, new], and gap f32[B],
      the least by which a token of it was the likeliest
    attributes -> those of the config that were looked up, there or not, while
      the model was loaded and all this was computed
"""

import pathlib
import sys

import numpy as np
import torch
import transformers


def main(path: str, questions: str, answers: str, saved: str | None = None):
  transformers.logging.set_verbosity_error()
  with np.load(questions) as file:
    asked = dict(file)
  found, names = {}, set()
  if 'attributes' in asked:
    _note(names)
  model = load(pathlib.Path(path))
  if saved is not None:
    _plain(model).save_pretrained(saved)
  model = model.to(getattr(torch, str(asked.get('dtype', 'float32'))))
  if 'tokens' in asked:
    logits, found['logp'] = _scores(model, asked['tokens'], asked['length'])
    if 'few' not in asked:
      found['logits'] = logits
  if 'prompts' in asked:
    found['greedy'], found['gap'] = _greedy(
        model, asked['prompts'], asked['prompt_length'], int(asked['new']))
  if 'attributes' in asked:
    found['attributes'] = sorted(names)
  np.savez(answers, **found)


def _note(names: set[str]) -> None:
  """From now on, adds each attribute of a config to `names` that is read.

  But for methods, what the object has for itself, and settings of generation.
  """
  kind = transformers.PreTrainedConfig
  plain = kind.__getattribute__
  others = set(transformers.GenerationConfig().to_dict())

  def note(self, name):
    if name[0] != '_' and name not in others and not callable(
        getattr(type(self), name, None)):
      names.add(name)
    return plain(self, name)

  kind.__getattribute__ = note


def load(path: pathlib.Path) -> transformers.PreTrainedModel:
  """The model in a folder or a GGUF file, in float32."""
  where = dict(pretrained_model_name_or_path=path)
  if path.suffix == '.gguf':
    where = dict(pretrained_model_name_or_path=path.parent, gguf_file=path.name)
  model, report = transformers.AutoModelForCausalLM.from_pretrained(
      **where, dtype=torch.float32, output_loading_info=True)
  if any(report.values()):
    raise ValueError(f'{path} does not fit the model: {report}')
  return model.eval()


def _plain(model):
  """The same weights, which transformers will not write if from GGUF files."""
  config = model.config.to_dict()
  config.pop('quantization_config', None)
  plain = type(model)(type(model.config).from_dict(config))
  plain.load_state_dict(model.state_dict())
  return plain


@torch.no_grad()
def _scores(model, tokens, length):
  logits = np.zeros((*tokens.shape, model.config.vocab_size), np.float32)
  logp = np.zeros(tokens.shape, np.float32)
  for row, size in enumerate(length):
    ids = torch.from_numpy(tokens[row:row + 1, :size].astype(np.int64))
    out = model(ids, use_cache=False).logits[0]
    logits[row, :size] = out.numpy()
    every = torch.log_softmax(out[:-1], -1)
    logp[row, 1:size] = every.gather(1, ids[0, 1:, None])[:, 0].numpy()
  return logits, logp


@torch.no_grad()
def _greedy(model, prompts, length, new):
  greedy = np.zeros((len(prompts), new), np.int64)
  gap = np.full(len(prompts), np.inf, np.float32)
  for row, size in enumerate(length):
    ids = torch.from_numpy(prompts[row:row + 1, :size].astype(np.int64))
    cache = None
    for index in range(new):
      out = model(ids, past_key_values=cache, use_cache=True)
      cache = out.past_key_values
      (first, second), (token, _) = out.logits[0, -1].topk(2)
      gap[row] = min(gap[row], float(first - second))
      greedy[row, index] = token
      ids = token.reshape(1, 1)
  return greedy, gap


if __name__ == '__main__':
  main(*sys.argv[1:])
