"""What each operator is measured against; installed as `fastnorm.benchmarks`, and run by `fastnorm bench`.

The room of an operator has three functions:

    arguments(make, shape)   the call: keyword arguments for the function of that name in `fastnorm.functional`;
                             `make(*shape)` returns a random tensor
    eager(...)               the same by torch's own operators, as fast as they go
    idiom(...)               the same as published code writes it; torch.compile is given this one

and its docstring says what was learned about the kernels. A room whose call comes in several kinds names them in KINDS,
and `arguments` has one as its third argument. SHAPES holds the maps of each kind, where they are others than usual.
"""
