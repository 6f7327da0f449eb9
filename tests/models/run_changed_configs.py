"""What transformers makes of changed config.json files; a process of its own.

    python run_changed_configs.py CASES.json FOLDER

CASES is a list of config.json files; number n gets a folder FOLDER/n with the
file itself and either

    model.safetensors, tokens.npy i32[T], logits.npy f32[T, V]: random weights
      of the shapes of the model, and what it computes with them in float32; or
    raised.txt: why there is no such model, or 'ValueError: large'.

In place of a config.json there may be the name of a GGUF file in FOLDER/n,
which has weights of its own.
"""

import json
import pathlib
import sys
import zlib

import numpy as np
import torch
import transformers

import run_transformers

MOST_PARAMETERS = 2_000_000
LENGTH = 44  # more than the windows and llama3's original length


def main(cases: str, folder: str) -> None:
  transformers.logging.set_verbosity(transformers.logging.CRITICAL)
  transformers.logging.disable_progress_bar()
  for number, case in enumerate(json.loads(pathlib.Path(cases).read_text())):
    out = pathlib.Path(folder) / str(number)
    out.mkdir(parents=True, exist_ok=True)
    try:
      if isinstance(case, str):
        _compute(out, run_transformers.load(out / case))
      else:
        _compute_random(out, json.dumps(case))
    except Exception as problem:  # pylint: disable=broad-exception-caught
      (out / 'raised.txt').write_text(f'{type(problem).__name__}: {problem}')


def _compute_random(out: pathlib.Path, text: str) -> None:
  """The model of a config.json, with random weights, which are saved."""
  (out / 'config.json').write_text(text)
  config = transformers.AutoConfig.from_pretrained(out)
  build = lambda: transformers.AutoModelForCausalLM.from_config(
      config, dtype=torch.float32, attn_implementation='eager',
      experts_implementation='eager')
  if config.num_hidden_layers > 100:
    raise ValueError('large')
  with torch.device('meta'):
    size = sum(x.numel() for x in build().parameters())
  if size > MOST_PARAMETERS:
    raise ValueError('large')
  model = build().eval()
  _randomize(model)
  _compute(out, model)
  model.generation_config = transformers.GenerationConfig()
  model.save_pretrained(out)
  (out / 'config.json').write_text(text)  # not as transformers saves it


@torch.no_grad()
def _compute(out: pathlib.Path, model: transformers.PreTrainedModel) -> None:
  size = model.config.vocab_size
  tokens = np.random.default_rng(0).integers(0, size, LENGTH)
  logits = model(torch.from_numpy(tokens)[None], use_cache=False).logits[0]
  np.save(out / 'tokens.npy', tokens.astype(np.int32))
  np.save(out / 'logits.npy', logits.numpy())


@torch.no_grad()
def _randomize(model: transformers.PreTrainedModel) -> None:
  """Weights of a size at which every part shows in the logits."""
  for name, x in [*model.named_parameters(), *model.named_buffers()]:
    if 'inv_freq' in name or 'embed_scale' in name:
      continue
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    noise = rng.normal(size=x.shape)
    if 'norm' in name:
      noise = 0.3 * noise + (model.config.model_type != 'gemma3_text')
    elif name.endswith('bias'):
      noise *= 0.3
    else:
      noise *= 1.2 * x.shape[-1] ** -0.5
    x.copy_(torch.from_numpy(noise))


if __name__ == '__main__':
  main(*sys.argv[1:])
