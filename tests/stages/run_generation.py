"""Greedy answers of transformers' `generate`, timed; a process of its own.

    python run_generation.py MODEL QUESTIONS.npz ANSWERS.npz

QUESTIONS has prompts i32[B, P], right-padded, length i32[B], new, the most
tokens of an answer, ends, the ids of which each ends one, and batches, the
sizes to try. ANSWERS has for each batch size seconds f64[S] of all answers, and
tokens i64[S, B, new], 0 after the end. The prompts of a batch are padded at
their left, as `generate` wants it; those of like length come together. Each
size is warmed up by its first batch, which is not timed.
"""

import pathlib
import sys
import time

import numpy as np
import torch
import transformers


def main(path: str, questions: str, answers: str) -> None:
  transformers.logging.set_verbosity_error()
  path = pathlib.Path(path)
  model = transformers.AutoModelForCausalLM.from_pretrained(
      path.parent, gguf_file=path.name, dtype=torch.float32).eval()
  with np.load(questions) as file:
    asked = dict(file)
  ends, new = asked['ends'].tolist(), int(asked['new'])
  seconds, tokens = [], []
  for size in asked['batches'].tolist():
    order = np.argsort(asked['length'], kind='stable')
    parts = [order[start:start + size] for start in range(0, len(order), size)]
    found = np.zeros((len(order), new), np.int64)
    answer(model, asked, parts[0], ends, min(new, 8))
    begin, used = time.perf_counter(), time.process_time()
    for rows in parts:
      ids = answer(model, asked, rows, ends, new)
      found[rows, :ids.shape[1]] = ids
    seconds.append(time.perf_counter() - begin)
    tokens.append(_until_the_end(found, ends))
    print(f'batches of {size}: {seconds[-1]:.1f} s, '
          f'{time.process_time() - used:.1f} of a core', flush=True)
  np.savez(answers, seconds=seconds, tokens=tokens)


def answer(model, asked, rows, ends: list[int], new: int) -> np.ndarray:
  """The new tokens of some rows."""
  width = asked['length'][rows].max()
  ids = np.full((len(rows), width), ends[0], np.int64)
  mask = np.zeros((len(rows), width), np.int64)
  for row, number in enumerate(rows):
    length = asked['length'][number]
    ids[row, width - length:] = asked['prompts'][number, :length]
    mask[row, width - length:] = 1
  out = model.generate(
      input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask),
      max_new_tokens=new, do_sample=False, eos_token_id=ends,
      pad_token_id=ends[0])
  return out[:, width:].numpy()


def _until_the_end(tokens: np.ndarray, ends: list[int]) -> np.ndarray:
  """The tokens with 0 after the first end token of a row."""
  is_end = np.isin(tokens, ends)
  return np.where(np.cumsum(is_end, 1) - is_end > 0, 0, tokens)


if __name__ == '__main__':
  main(*sys.argv[1:])
