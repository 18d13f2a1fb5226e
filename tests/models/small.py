"""Every system at sizes that take milliseconds: constructor arguments by name."""

SIZES = {
    "adaattn": dict(widths=(4, 6, 8, 10)),
    "adaconv": dict(widths=(4, 6, 8, 10), groups=(10, 4, 2, 2), style_size=64),
    "adain": dict(widths=(4, 6, 8, 10)),
    "avatar_net": dict(widths=(4, 6, 8, 10), method="newton_schulz"),
    "cin": dict(styles=3, contract=(4, 5, 6), residual_blocks=2, expand=(4, 2)),
    "din": dict(widths=(3, 4, 6), style_widths=(4, 6, 8, 10), hidden_channels=5),
    "diversified": dict(styles=3, channels=8),
    "ghiasi": dict(
        style_network="mobilenet", embedding=7, contract=(3, 4, 6), residual_blocks=2, expand=(4, 3), stem=4, head=9, style_size=16,
        blocks=((1, 4, 1, 1), (2, 5, 2, 2), (2, 6, 1, 2)),
    ),
    "johnson": dict(widths=(4, 5, 6), residual_blocks=2),
    "mgans": dict(encoder_widths=(4, 6, 8, 10), widths=(7, 6, 5)),
    "sanet": dict(widths=(4, 6, 8, 10)),
    "style_bank": dict(styles=3, widths=(4, 6)),
    "super_resolution": dict(scale=2, width=6, residual_blocks=2),
    "texture_networks": dict(scales=3, channels=4),
    "wct": dict(widths=(4, 5, 6), levels=(3, 2, 1), method="newton_schulz"),
}  # fmt: skip
