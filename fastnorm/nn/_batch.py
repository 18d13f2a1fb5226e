"""Maps with or without a batch, as torch.nn.InstanceNorm2d takes them."""

from torch import Tensor, nn

from .._checks import check_same_shape, check_tensor


def to_batch(
    module: nn.Module,
    input: Tensor,
    residual: Tensor | None,
    spatial_dims: int,
    num_features: int | None,
    argument: str = "input",
) -> tuple[Tensor, Tensor | None, bool]:
    """`input` and `residual` as (N, C, *), and whether they came as (C, *); what is neither is refused in the module's name.

    `num_features` is None where any number of channels will do; `argument` is what the caller knows `input` by.
    """
    name = type(module).__name__
    # A nested tensor has no shape to ask for. What else may be wrong with a batch, the function says.
    if not isinstance(input, Tensor) or input.is_nested:
        check_tensor(name, argument, input)
    batched, unbatched = spatial_dims + 2, spatial_dims + 1
    dims = input.dim()
    if dims != batched and dims != unbatched:
        raise ValueError(f"{name}: {argument}: expected {unbatched} or {batched} dimensions, got {tuple(input.shape)}")
    if num_features is not None and input.shape[-unbatched] != num_features:
        raise ValueError(f"{name}: {argument}: expected {num_features} channels, got {input.shape[-unbatched]}")
    if dims == batched:
        return input, residual, False
    check_tensor(name, argument, input)
    if residual is not None:
        residual = check_same_shape(name, "residual", residual, input).unsqueeze(0)
    return input.unsqueeze(0), residual, True
