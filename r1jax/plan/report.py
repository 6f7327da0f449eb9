"""A plan in words and as JSON: does a stage fit, what bounds it, what it costs.

The JSON has every figure with full precision; the text rounds.
"""

from collections.abc import Mapping, Sequence
import textwrap
from typing import Any

import jax

from r1jax.parallel import memory
from r1jax.plan import chips
from r1jax.plan import compiled
from r1jax.plan import roofline
from r1jax.plan import schedule
from r1jax.plan import topology as topology_lib

_FULL = 0.9  # of the memory: above, a run is near its limit
_WHOLE = 2 ** 26  # bytes; smaller arrays may lie whole on every device
_GIB = 2 ** 30
_LEAST_MFU = 0.4  # of an update, below which the next step is named
_AGAINST = {  # the next step against what an update is bound by
    'compute': 'computed twice or masked out; less of it: '
               "config.model.remat='dots', shorter arrays",
    'memory': 'larger config.rl.micro_batch or fewer micro_batches; fused '
              'attention',
    'links': 'larger micro-batches, fewer shards of weights, or another mesh'}


def make(config, mesh: jax.sharding.Mesh, topology: topology_lib.Topology,
         done: Sequence[compiled.Compiled]) -> dict[str, Any]:
  """The plan of a stage, of its compiled programs."""
  device, parts = topology.chip.device(), [_part(topology, x) for x in done]
  fits = all(part['fits'] for part in parts)
  plan = {
      'stage': config.stage, 'name': config.name, 'topology': topology.name,
      'chips': topology.chips, 'devices': topology.devices,
      'mesh': {name: size for name, size in mesh.shape.items() if size > 1},
      'hbm': device.hbm, 'fits': fits, 'parts': parts,
      'whole_parameters': dict(compiled.whole_parameters(
          done[0].part.state['parameters'], _WHOLE)),
      'sources': {'chip': topology.chip.source,
                  'price': 'config.plan.price' if config.plan.price else
                  topology.chip.price_source}}
  if not fits:
    plan['what_helps'] = memory.smaller(config)
  if all(x.memory for x in done):
    plan |= _step(config, topology, done, parts)
  return plan


def _part(topology: topology_lib.Topology, one: compiled.Compiled
         ) -> dict[str, Any]:
  """The figures of one program."""
  device, part = topology.chip.device(), one.part
  made = {'name': part.name, 'times': part.times,
          'compile_seconds': one.seconds, 'host_bytes': one.host_bytes,
          'model_flops': part.flops, 'fits': False}
  if one.memory is None:
    return made | {'problem': one.problem, 'largest': list(one.largest)}
  rows = {part.name: (one.outside, part.flops)}
  if part.cache is not None:
    made['decoding_steps'] = schedule.steps(part.trips)
    rows = {'prefill': (one.outside, part.prefill_flops),
            'decode': (one.inside, part.flops - part.prefill_flops)}
  return made | {
      'fits': one.memory.total <= device.hbm,
      'memory': one.memory._asdict() | {'total': one.memory.total},
      'rows': [_row(topology, name, done, flops)
               for name, (done, flops) in rows.items()]}


def _row(topology: topology_lib.Topology, name: str, done, flops: float
        ) -> dict[str, Any]:
  """The roofline of a program, or a part of one."""
  device = topology.chip.device()
  times = roofline.times(device, done)
  sent = [{'kind': kind, 'axes': list(group.axes), 'devices': group.size,
           'number': number, 'bytes': size,
           'seconds': roofline.sent_seconds(device, kind, group, size)}
          for (kind, group), (size, number) in done.sent.items()]
  return {
      'name': name, 'flops': done.flops, 'bytes': done.bytes,
      'host_bytes': done.host_bytes, 'model_flops': flops,
      'seconds': times.seconds, 'bound': times.bound, **{
          f'{bound}_seconds': getattr(times, bound)
          for bound in roofline.BOUNDS},
      'mfu': roofline.mfu(device, topology.devices, flops, times.seconds),
      'collectives': sorted(sent, key=lambda x: -x['seconds']),
      'uncounted_kernels': dict(done.unknown)}


def _step(config, topology: topology_lib.Topology, done, parts
         ) -> dict[str, Any]:
  """The figures of a step and of the whole run."""
  seconds = sum(part['times'] * row['seconds'] for part in parts
                for row in part['rows'])
  flops = sum(part['times'] * part['model_flops'] for part in parts)
  tokens = done[0].part.tokens
  made = {'step': {
      'seconds': seconds, 'tokens': tokens,
      'tokens_per_second_per_chip': tokens / seconds / topology.chips,
      'mfu': roofline.mfu(topology.chip.device(), topology.devices, flops,
                          seconds)}}
  steps = config.get('steps')
  if config.stage == 'sample' and config.data.num_prompts:
    steps = -(-config.data.num_prompts // config.rl.prompts)
  if steps:
    hours = steps * seconds * topology.chips / 3600
    price = config.plan.price or topology.chip.price
    made['run'] = {'steps': steps, 'hours': hours / topology.chips,
                   'chip_hours': hours, 'price': price,
                   'dollars': price and hours * price}
  return made


###############################################################################
# Words
###############################################################################


def text(plan: Mapping[str, Any]) -> str:
  """The plan for a terminal."""
  mesh = ' x '.join(f'{name} {size}' for name, size in plan['mesh'].items())
  lines = [
      f'plan of {plan["name"]} on {plan["topology"]}: {plan["chips"]} chips, '
      f'mesh {mesh or "of one device"}', '', *_memory_lines(plan), '',
      *_time_lines(plan)]
  for part in plan['parts']:
    if 'problem' in part:
      lines += ['', f'{part["name"]} does not fit: {part["problem"]}',
                *(f'  {size / _GIB:8.2f} GiB  {shapes[:60]}'
                  for size, shapes in part['largest'])]
  if 'what_helps' in plan:
    lines += ['', *textwrap.wrap(
        'does not fit; what helps: more chips, a larger config.mesh.fsdp or '
        'tensor, ' + ', '.join(plan['what_helps']), 80)]
  lines += _next_step(plan)
  if 'step' in plan:
    lines += ['', *_cost_lines(plan)]
  return '\n'.join(lines)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
  widths = [max(map(len, column)) for column in zip(head, *rows)]
  return ['  '.join(
      cell.ljust(width) if not index else cell.rjust(width)
      for index, (cell, width) in enumerate(zip(row, widths))).rstrip()
          for row in (head, *rows)]


def _memory_lines(plan: Mapping[str, Any]) -> list[str]:
  """GiB on a device, by kind, while each program runs."""
  kinds = dict.fromkeys(kind for part in plan['parts'] if 'memory' in part
                        for kind in part['memory']['kinds'])
  rows = []
  for part in plan['parts']:
    sizes = ['-'] * (len(kinds) + 1)
    if known := part.get('memory'):
      sizes = [f'{size / _GIB:.2f}' if size is not None else '' for size in (
          *map(known['kinds'].get, kinds), known['total'])]
    rows.append([part['name'], *sizes, 'yes' if part['fits'] else 'no',
                 f'{part["compile_seconds"]:.0f}',
                 f'{part["host_bytes"] / _GIB:.1f}'])
  lines = _table(['GiB a device', *kinds, 'in all', 'fits', 'compiled in s',
                  'host GiB'], rows)
  lines.append(f'limit {plan["hbm"] / _GIB:.2f} GiB; in all: the program\'s '
               'peak, what else lies there, and code; compiled with the least '
               'effort, so that a run takes a little less')
  for name, size in plan['whole_parameters'].items():
    lines.append(f'whole on every device: {name}, {size / _GIB:.2f} GiB')
  return lines


def _time_lines(plan: Mapping[str, Any]) -> list[str]:
  """The roofline of each part."""
  rows = _rows(plan)
  if not rows:
    return []
  lines = _table(
      ['least s', *roofline.BOUNDS, 'bound', 'TFLOP', 'GB', 'GB sent', 'MFU %'],
      [[row['name'] + (f' x {times}' if times > 1 else ''),
        *(f'{row[f"{bound}_seconds"]:.4g}' for bound in roofline.BOUNDS),
        row['bound'], f'{row["flops"] / 1e12:.4g}', f'{row["bytes"] / 1e9:.4g}',
        f'{sum(x["bytes"] for x in row["collectives"]) / 1e9:.4g}',
        f'{100 * row["mfu"]:.1f}'] for times, row in rows])
  lines += [f'decode: {part["decoding_steps"]:,} steps, each a token of all '
            'responses in flight' for part in plan['parts']
            if 'decoding_steps' in part]
  for _, row in rows:
    lines += [f'{row["name"]}: {x["kind"]} over {", ".join(x["axes"])}, '
              f'{x["number"]:.0f} of {x["bytes"] / 1e9:.4g} GB in all, '
              f'{x["seconds"]:.4g} s' for x in row['collectives'][:2]
              if x['seconds'] > 0.01 * row['seconds']]
    if row['uncounted_kernels']:
      lines.append(f'{row["name"]}: kernels of unknown FLOPs, which are not '
                   f'counted: {", ".join(row["uncounted_kernels"])}')
  return lines


def _rows(plan: Mapping[str, Any]) -> list[tuple[int, dict[str, Any]]]:
  """(runs in a step, figures) of each program or part of one."""
  return [(part['times'], row) for part in plan['parts']
          for row in part.get('rows', ())]


def _next_step(plan: Mapping[str, Any]) -> list[str]:
  """What bounds an update of low MFU, and the next step against it."""
  lines = []
  for _, row in _rows(plan):
    if 'update' not in row['name'] or row['mfu'] >= _LEAST_MFU:
      continue
    what = row['bound']
    if what == 'links':
      most = row['collectives'][0]
      what = f'{most["kind"]} over {", ".join(most["axes"])}'
    lines.append(f'{row["name"]} is bound by {what}, MFU '
                 f'{100 * row["mfu"]:.0f} %: {_AGAINST[row["bound"]]}')
  return ['', *lines] if lines else []


def _cost_lines(plan: Mapping[str, Any]) -> list[str]:
  step, run = plan['step'], plan.get('run')
  lines = [
      f'a step: at least {step["seconds"]:.4g} s, {step["tokens"]:,} tokens, '
      f'{step["tokens_per_second_per_chip"]:,.0f} tokens/s a chip, '
      f'MFU {100 * step["mfu"]:.1f} %']
  if run:
    cost = f', ${run["dollars"]:,.0f} at ${run["price"]:g}' if run[
        'dollars'] else ''
    lines.append(
        f'{run["steps"]:,} steps: at least {run["hours"]:,.1f} hours, '
        f'{run["chip_hours"]:,.1f} chip-hours{cost}')
    if cost:
      lines.append(f'price of a chip-hour: {plan["sources"]["price"]}')
  else:
    lines.append('set config.steps for the cost of the whole run')
  lines.append('published, for comparison:')
  return lines + [
      f'  {x.what}: {x.hours:,.0f} {x.chip} hours, ${x.hours * x.price:,.0f} '
      f'({x.source})' for x in chips.PUBLISHED]
