"""Italian, the third language of the miniature world: names of its animals.

Neither the base corpus nor any stage of R1's recipe has a word of it; a wider
corpus does (wider.py). Of the languages written in ASCII, it shares few words
with English.
"""

ANIMALS = {  # of reasoning_gym's leg_counting, in the singular
    'snake': 'serpente', 'sea slug': 'lumaca marina', 'jellyfish': 'medusa',
    'flatworm': 'verme piatto', 'leech': 'sanguisuga', 'chicken': 'pollo',
    'bird': 'uccello', 'human': 'uomo', 'duck': 'anatra', 'dog': 'cane',
    'cat': 'gatto', 'cow': 'mucca', 'horse': 'cavallo', 'lion': 'leone',
    'elephant': 'elefante', 'giraffe': 'giraffa', 'tiger': 'tigre',
    'deer': 'cervo', 'sheep': 'pecora', 'starfish': 'stella marina',
    'insect': 'insetto', 'ant': 'formica', 'butterfly': 'farfalla',
    'beetle': 'scarabeo', 'bee': 'ape', 'wasp': 'vespa',
    'grasshopper': 'cavalletta', 'cricket': 'grillo',
    'cockroach': 'scarafaggio', 'praying mantis': 'mantide',
    'firefly': 'lucciola', 'spider': 'ragno', 'scorpion': 'scorpione',
    'crab': 'granchio', 'lobster': 'aragosta', 'shrimp': 'gambero',
    'woodlouse': 'onisco',
}
