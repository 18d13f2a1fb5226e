"""dynamic_instance_norm: a convolution, with a filter per sample, of the instance-normalised input.

At least, per element: one read and one write, and one read more for the statistics; 4 flops more than the convolution.
Backward: two reads and one write.

`instance_stats.py` finds the statistics; `dynamic_conv2d.py` normalises what it reads, in both directions; and the
gradient goes on through the norm as in `instance_norm.py`.
"""

from . import dynamic_conv2d, instance_norm, instance_stats


def forward(input, weight, bias, eps, correction, eps_on_std, *settings):
    mean, rstd = instance_stats.forward(input, eps, correction, eps_on_std)
    return dynamic_conv2d.forward(input, weight, bias, *settings, mean, rstd), mean, rstd


def backward(grad, input, mean, rstd, weight, eps, correction, eps_on_std, *settings):
    mean, rstd = mean.contiguous(), rstd.contiguous()
    grad_normed, *others = dynamic_conv2d.backward(grad, input, weight, *settings, mean, rstd)
    if not grad_normed.numel():
        return grad_normed, *others
    norm = None, None, None, None, eps, correction, eps_on_std, 1.0, 0, 0.0
    grad_input, *_ = instance_norm.backward(grad_normed, input, mean, rstd, *norm)
    return grad_input, *others
