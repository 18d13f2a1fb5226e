"""The measuring behind `fastnorm bench`: the machine, the contenders, the clock, the table and the file.

What each is measured against is in `benchmarks/` (installed as `fastnorm.benchmarks`), one file per operator and one
per network.
"""

# Feature maps of style-transfer networks on a picture of 512x512, one batch, and a plane that any cache holds.
SHAPES = (
    (1, 64, 512, 512),
    (1, 128, 256, 256),
    (8, 256, 64, 64),
    (1, 512, 64, 64),
    (1, 32, 128, 128),
)

# So little work that only the call itself is left.
TINY = (1, 3, 4, 4)
