"""Accelerators: peak speeds, memory, links and prices, each with its source.

Figures are of a chip, as data sheets have them; of a chip with two cores, each
of which is a device of its own, `Chip.device` has the half.
"""

from typing import NamedTuple

GIB = 2 ** 30
_TPU = 'docs.cloud.google.com/tpu/docs/'
_HBM = 'HBM: what libtpu 0.0.42 grants a program'
_LIST = ('cloud.google.com/tpu/pricing, on demand, {}, 2025: as remembered, '
         'not read again')
_BLOCKS = ('aws.amazon.com/ec2/capacityblocks/pricing, {}, 2024-12: p5 and '
           'p5e.48xlarge')


class Chip(NamedTuple):
  """An accelerator."""
  name: str
  flops: float  # per second, bfloat16, dense
  hbm: float  # bytes
  bandwidth: float  # of HBM, bytes per second
  link: float  # bytes per second that it can send to others, all links together
  torus: int  # dimensions of the torus that links form; 0: a switch
  devices: int  # of a chip: its cores, where each is one
  price: float | None  # dollars per hour; None: not known
  source: str
  price_source: str = ''
  platform: str = 'tpu'
  node: int = 0  # chips behind one switch
  network: float = 0.  # bytes per second that each can send beyond it

  def device(self) -> 'Chip':
    """The figures of one of the chip's devices."""
    n = self.devices
    return self._replace(
        flops=self.flops / n, hbm=self.hbm / n, bandwidth=self.bandwidth / n,
        link=self.link / n, network=self.network / n)


CHIPS = {chip.name: chip for chip in (
    Chip('v4', 275e12, 30.75 * GIB, 1.2e12, 300e9, 3, 1, 3.22,
         f'{_TPU}v4; links: arXiv 2304.01433, table 4, six of 50 GB/s; {_HBM}',
         _LIST.format('us-central2')),
    Chip('v5e', 197e12, 15.75 * GIB, 0.819e12, 200e9, 2, 1, 1.20,
         f'{_TPU}v5e: 197 TFLOPs, 819 GB/s, links 400 GB/s both ways; {_HBM}',
         _LIST.format('us-central1')),
    Chip('v5p', 459e12, 95.74 * GIB, 2.765e12, 600e9, 3, 1, 4.20,
         f'{_TPU}v5p: 459 TFLOPs, 2,765 GB/s, links 1,200 GB/s both ways; '
         f'{_HBM}', _LIST.format('us-east5')),
    Chip('v6e', 918e12, 31.25 * GIB, 1.638e12, 400e9, 2, 1, 2.70,
         f'{_TPU}v6e: 918 TFLOPs, 1,638 GB/s, links 800 GB/s both ways; '
         f'{_HBM}', _LIST.format('us-east5')),
    Chip('v7x', 2307e12, 189.5 * GIB, 7.38e12, 600e9, 3, 2, 12.0,
         f'{_TPU}tpu7x: 2,307 TFLOPs, 7,380 GB/s, links 1,200 GB/s both ways; '
         f'{_HBM}', _LIST.format('us-central1')),
    Chip('h100', 989.4e12, 80e9, 3.35e12, 450e9, 0, 1, 4.916,
         'NVIDIA H100 data sheet, SXM, without sparsity; NVLink 900 GB/s both '
         'ways; DGX H100: 400 Gbit/s of InfiniBand a GPU',
         _BLOCKS.format('us-east-1'), 'cpu', 8, 50e9),
    # The GPUs of the paper; links: DeepSeek-V3, arXiv 2412.19437, 3.1.
    Chip('h800', 989.4e12, 80e9, 3.35e12, 200e9, 0, 1, 2.0,
         'as H100, NVLink 400 GB/s both ways', 'arXiv 2412.19437, table 1',
         'cpu', 8, 50e9),
    Chip('h200', 989.4e12, 141e9, 4.8e12, 450e9, 0, 1, 5.408,
         'NVIDIA H200 data sheet, SXM, without sparsity; links as H100',
         _BLOCKS.format('us-east-2'), 'cpu', 8, 50e9),
    Chip('b200', 2250e12, 180e9, 7.7e12, 900e9, 0, 1, None,
         'NVIDIA DGX B200 data sheet, an eighth, without sparsity; NVLink '
         '1,800 GB/s both ways; 400 Gbit/s of InfiniBand a GPU', '', 'cpu', 8,
         50e9),
)}

KINDS = {  # as JAX names devices, of the boards that the table means
    'TPU v4': 'v4', 'TPU v5 lite': 'v5e', 'TPU v5e': 'v5e', 'TPU v5': 'v5p',
    'TPU v5p': 'v5p', 'TPU v6 lite': 'v6e', 'TPU v6e': 'v6e', 'TPU7x': 'v7x',
    'NVIDIA H100 80GB HBM3': 'h100', 'NVIDIA H800': 'h800',
    'NVIDIA H200': 'h200', 'NVIDIA B200': 'b200'}


def of_device(kind: str, cores: int = 1) -> Chip | None:
  """The figures of a device that is there; None: it is not in the table.

  Args:
    kind: its `device_kind`.
    cores: its `num_cores`: of a TPU, those that work as one device.
  """
  if kind not in KINDS:
    return None
  chip = CHIPS[KINDS[kind]]
  return chip if cores >= chip.devices else chip.device()


class Published(NamedTuple):
  """What a training has taken, as its authors say."""
  what: str
  hours: float  # of a chip
  chip: str
  price: float  # dollars an hour, theirs
  source: str


PUBLISHED = (
    Published('DeepSeek-V3-Base, all training', 2.788e6, 'H800', 2.,
              'arXiv 2412.19437, table 1'),
    Published('R1-Zero, 64 x 8 GPUs in 198 hours', 101e3, 'H800', 2.,
              'arXiv 2501.12948v2, table 7'),
    Published('R1, 64 x 8 GPUs in 80 hours', 41e3, 'H800', 2.,
              'arXiv 2501.12948v2, table 7'),
    Published("R1's SFT data", 5e3, 'H800', 2.,
              'arXiv 2501.12948v2, table 7'),
)
