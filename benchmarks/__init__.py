"""What each operator and network is measured against; installed as `fastnorm.benchmarks`, and run by `fastnorm bench`.

The room of an operator has three functions:

    arguments(make, shape)   the call: keyword arguments for the function of that name in `fastnorm.functional`;
                             `make(*shape)` returns a random tensor
    eager(...)               the same by torch's own operators, as fast as they go
    idiom(...)               the same as published code writes it; torch.compile is given this one

and its docstring says what was learned about the kernels. A room whose call comes in several kinds names them in KINDS,
and `arguments` has one as its third argument. SHAPES holds the maps of each kind, where they are others than usual.

The room of a network has

    System                     its class in `fastnorm.models`, called as (content, style)
    SHAPES                     the pictures
    style(model)               a style for all samples, as System takes it
    plain(model, **sizes)      the same network as people write it in torch, sharing the weights of `model`; called alike
    published(content, style)  the published ONNX file and its inputs by name, where that runs at any size; without it
                               the runtimes get an export of the plain network
"""
