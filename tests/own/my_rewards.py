"""Reward functions: (response, record) -> a number, or it and columns."""

import asyncio
import re


def brief(response, record):
  """-1 for a response as long as the limit, near 0 for a short one."""
  del record
  return -min(len(response) / 500, 1.)


def close(response, record):
  """How near the last number is to the answer; which one is logged."""
  numbers = re.findall(r'-?\d+', response)
  if not numbers:
    return 0., {'guess': None, 'numbers': 0}
  error = abs(int(numbers[-1]) - int(record['answer']))
  return 1 / (1 + error), {'guess': numbers[-1], 'numbers': len(numbers)}


async def polite(response, record):
  """What a server would say of it: all responses of a batch wait at once."""
  await asyncio.sleep(.1)  # a request
  return float('please' in response.lower()), {'level': record['level']}
