"""Every system at sizes that take milliseconds: constructor arguments by name."""

SIZES = {
    "adain": dict(widths=(4, 6, 8, 10)),
    "cin": dict(styles=3, contract=(4, 5, 6), residual_blocks=2, expand=(4, 2)),
    "din": dict(widths=(3, 4, 6), style_widths=(4, 6, 8, 10), hidden_channels=5),
    "ghiasi": dict(
        embedding=7, contract=(3, 4, 6), residual_blocks=2, expand=(4, 3), stem=4, head=9, style_size=16,
        blocks=((1, 4, 1, 1), (2, 5, 2, 2), (2, 6, 1, 2)),
    ),
}  # fmt: skip
