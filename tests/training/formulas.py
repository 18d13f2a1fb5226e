"""What a batch's losses are, from the papers' formulas: plain operators of torch in float64, no loss under test.

Each is a function of the recipe, for its networks and VGG-19, the phase, the batch and the weights. What is compared with is
computed without a graph.
"""

import torch
from torch.nn.functional import interpolate

FIRSTS = "relu1_1", "relu2_1", "relu3_1", "relu4_1"
GRAMS = "relu1_2", "relu2_2", "relu3_3", "relu4_3"


def apart(x, y):
    return ((x - y) ** 2).mean()


def deviation(x, unbiased=False):
    """Of the planes of (N, C, H, W), (N, C, 1, 1)."""
    squares = ((x - mean(x)) ** 2).sum((2, 3), keepdim=True)
    return (squares / (x.shape[2] * x.shape[3] - unbiased) + 1e-5) ** 0.5


def mean(x):
    return x.sum((2, 3), keepdim=True) / (x.shape[2] * x.shape[3])


def normalised(x):
    return (x - mean(x)) / deviation(x, unbiased=True)


def statistics_apart(x, y, layers, unbiased=False):
    return sum(
        apart(mean(x[layer]), mean(y[layer])) + apart(deviation(x[layer], unbiased), deviation(y[layer], unbiased))
        for layer in layers
    )


def products(x, scale=1.0):
    """Of each pair of channels, averaged over positions: (N, C, C)."""
    rows = x.flatten(2) * scale
    return rows @ rows.transpose(1, 2) / rows.shape[2]


def gram(x):
    return products(x) / x.shape[1]


def covariance(x):
    return gram(x - mean(x))


def variation(picture):
    down, across = picture[:, :, 1:] - picture[:, :, :-1], picture[..., 1:] - picture[..., :-1]
    return (down**2).mean() + (across**2).mean()


def hinge(score, sign):
    return torch.where(sign * score < 1, 1 - sign * score, 0.0).mean()


def goals(recipe, styles, batch, layers, of=gram):
    """By layer, of each sample's style; of the only one where styles have no numbers."""
    numbers = [0] * len(batch.content) if batch.index is None else batch.index.tolist()
    with torch.no_grad():
        each = [recipe.vgg.features(styles[number]) for number in numbers]
    return {layer: torch.cat([of(features[layer]) for features in each]) for layer in layers}


def from_goals(features, goals, of=gram):
    return sum(apart(of(features[layer]), goal) for layer, goal in goals.items())


# Any painting.


def adain(recipe, phase, batch, styles, content_weight, style_weight):
    encoder = recipe.model.encoder
    with torch.no_grad():
        content, style = encoder.features(batch.content), encoder.features(batch.style)
        x, y = content["relu4_1"], style["relu4_1"]
        spread = y.var((2, 3), keepdim=True, correction=1) ** 0.5
        goal = spread * (x - mean(x)) / deviation(x) + mean(y)
    output = encoder.features(recipe.model.decoder(goal))
    return dict(
        content=content_weight * apart(output["relu4_1"], goal),
        style=style_weight * statistics_apart(output, style, FIRSTS),
    )


def adaconv(recipe, phase, batch, styles, content_weight, style_weight):
    model = recipe.model
    painted = lambda content, style: model.decoded(content, model.encode(batch.style))
    return _perceptual(model.encoder, painted, batch, content_weight, style_weight)


def din(recipe, phase, batch, styles, content_weight, style_weight):
    model = recipe.model
    painted = lambda content, style: model.stylize(batch.content, model.filters(style))
    return _perceptual(model.style_encoder, painted, batch, content_weight, style_weight)


def _perceptual(vgg, painted, batch, content_weight, style_weight):
    """Of what a style makes of a content, by relu4_1 of both."""
    with torch.no_grad():
        content, style = vgg.features(batch.content), vgg.features(batch.style)
    output = vgg.features(painted(content["relu4_1"], style["relu4_1"]))
    return dict(
        content=content_weight * apart(output["relu4_1"], content["relu4_1"]),
        style=style_weight * statistics_apart(output, style, FIRSTS),
    )


def adaattn(recipe, phase, batch, styles, style_weight, local_weight):
    model, vgg = recipe.model, recipe.model.encoder
    with torch.no_grad():
        content, style = vgg.features(batch.content), vgg.features(batch.style)
    output, local = vgg.features(_attending(model, content, style)), 0
    for stage in (3, 4, 5):
        layer = f"relu{stage}_1"
        query, key = (_stacked(features, stage).flatten(2) for features in (content, style))
        attention = torch.softmax(query.transpose(1, 2) @ key, 2)
        value = style[layer].flatten(2).transpose(1, 2)
        first = attention @ value
        second = (attention @ value**2 - first**2).clamp(min=0) ** 0.5
        first, second = (map.transpose(1, 2).reshape(content[layer].shape) for map in (first, second))
        local += apart(output[layer], second * normalised(content[layer]) + first)
    far = statistics_apart(output, style, (*FIRSTS[1:], "relu5_1"), unbiased=True)
    return {"global": style_weight * far, "local": local_weight * local}


def _stacked(features, stage):
    """Features of all layers to that of the stage, at its positions."""
    steps = [2**depth for depth in reversed(range(stage))]
    maps = [features[f"relu{depth}_1"][..., ::step, ::step] for depth, step in enumerate(steps, 1)]
    return normalised(torch.cat(maps, 1))


def _attending(model, content, style):
    return model.decoded(model.attended(content, model.kept(style)))


def sanet(recipe, phase, batch, styles, content_weight, style_weight, identity_weights):
    model, vgg, layers = recipe.model, recipe.model.encoder, (*FIRSTS, "relu5_1")
    with torch.no_grad():
        content, style = vgg.features(batch.content), vgg.features(batch.style)
    output = vgg.features(_attending(model, content, style))
    of_pixels, of_features = identity_weights
    identity = 0
    for picture, own in ((batch.content, content), (batch.style, style)):
        same = _attending(model, own, own)
        again = vgg.features(same)
        identity += of_pixels * apart(same, picture) + of_features * sum(apart(again[layer], own[layer]) for layer in layers)
    known = sum(apart(normalised(output[layer]), normalised(content[layer])) for layer in ("relu4_1", "relu5_1"))
    return dict(
        content=content_weight * known,
        style=style_weight * statistics_apart(output, style, layers, unbiased=True),
        identity=identity,
    )


def ghiasi(recipe, phase, batch, styles, content_weight, style_weight):
    with torch.no_grad():
        style = recipe.vgg.features(batch.style)
    wanted = {layer: products(style[layer], RANGE) for layer in GRAMS}
    return _of_bytes(recipe, batch, recipe.model.stylize(batch.content, batch.style), wanted, content_weight, style_weight)


# The content alone.


def avatar_net(recipe, phase, batch, styles, reconstruction_weight, content_weight, variation_weight):
    model, vgg = recipe.model, recipe.model.encoder
    with torch.no_grad():
        content = vgg.features(batch.content)
        own = {
            f"adain{scale}": (mean(content[layer])[..., 0, 0], deviation(content[layer])[..., 0, 0])
            for scale, layer in ((1, "relu1_1"), (2, "relu2_1"), (3, "relu3_1"))
        }
    picture = model.decoder(content["relu4_1"], own)
    output = vgg.features(picture)
    return dict(
        reconstruction=reconstruction_weight * apart(picture, batch.content),
        content=content_weight * sum(apart(output[layer], content[layer]) for layer in FIRSTS),
        variation=variation_weight * variation(picture),
    )


def wct(recipe, phase, batch, styles, pixel_weight, feature_weight):
    vgg, level = recipe.model.encoder, phase.removeprefix("relu")[0]
    with torch.no_grad():
        features = vgg.features(batch.content)[phase]
    picture = recipe.model.decoders[level](features)
    return dict(
        pixels=pixel_weight * apart(picture, batch.content),
        features=feature_weight * apart(vgg.features(picture)[phase], features),
    )


def super_resolution(recipe, phase, batch, styles, content_weight):
    small = interpolate(batch.content, scale_factor=1 / recipe.model.enlarges, mode="bicubic", antialias=True).clamp(0, 1)
    with torch.no_grad():
        goal = recipe.vgg.features(batch.content)["relu2_2"]
    output = recipe.vgg.features(recipe.model.enlarge(small))["relu2_2"]
    return dict(content=content_weight * apart(output, goal))


# Styles that are learnt.

RANGE = 255 * 0.226  # The paper's VGG sees numbers so many times ours.


def cin(recipe, phase, batch, styles, content_weight, style_weight):
    wanted = goals(recipe, styles, batch, GRAMS, lambda map: products(map, RANGE))
    return _of_bytes(recipe, batch, recipe.model.stylize(batch.content, batch.index), wanted, content_weight, style_weight)


def _of_bytes(recipe, batch, picture, wanted, content_weight, style_weight):
    with torch.no_grad():
        content = recipe.vgg.features(batch.content)["relu3_3"]
    output = recipe.vgg.features(picture)
    return dict(
        content=content_weight * apart(RANGE * output["relu3_3"], RANGE * content),
        style=style_weight * from_goals(output, wanted, lambda map: products(map, RANGE)),
    )


def johnson(recipe, phase, batch, styles, content_weight, style_weight, variation_weight):
    picture = recipe.model.stylize(batch.content, batch.index)
    with torch.no_grad():
        content = recipe.vgg.features(batch.content)["relu2_2"]
    output = recipe.vgg.features(picture)
    return dict(
        content=content_weight * apart(output["relu2_2"], content),
        style=style_weight * from_goals(output, goals(recipe, styles, batch, GRAMS)),
        variation=variation_weight * variation(picture),
    )


def style_bank(recipe, phase, batch, styles, identity_weight, **weights):
    if phase == "style":
        return johnson(recipe, phase, batch, styles, **weights)
    decoded = recipe.model.decoder(recipe.model.encoder(batch.content))
    return dict(identity=identity_weight * apart(decoded, batch.content))


def texture_networks(recipe, phase, batch, styles, content_weight, style_weight):
    model, seed = recipe.model, torch.randint(2**31 - 1, ())
    samples, _, height, width = batch.content.shape
    wanted = goals(recipe, styles, batch, (*FIRSTS, "relu5_1"))
    if not model.content:
        noises = model.noises(samples, (height // model.multiple, width // model.multiple), seed)
        return dict(style=style_weight * from_goals(recipe.vgg.features(model.generate(noises)), wanted))
    with torch.no_grad():
        content = recipe.vgg.features(batch.content)["relu4_2"]
    output = recipe.vgg.features(model.generate(model.beside(batch.content, samples, seed)))
    return dict(
        content=content_weight * apart(output["relu4_2"], content),
        style=style_weight * from_goals(output, wanted),
    )


def diversified(recipe, phase, batch, styles, style_weight, content_weight, diversity_weight):
    """Of textures, each sample is unlike the next one of its style; of three, two are of one."""
    model, seed, unit = recipe.model, torch.randint(2**31 - 1, ()), recipe.model.encode(batch.index)
    samples, _, height, width = batch.content.shape
    wanted = goals(recipe, styles, batch, (*FIRSTS, "relu5_1"), covariance)
    if not model.content:
        output = recipe.vgg.features(model.generate_textures(unit, height, width, samples, seed))
        first, second = (batch.index == batch.index.mode().values).nonzero().flatten()
        unlike = (output["relu4_2"][first] - output["relu4_2"][second]).abs().mean()
        return dict(
            style=style_weight * from_goals(output, wanted, covariance), diversity=-diversity_weight * unlike * 2 / 3
        )
    with torch.no_grad():
        content = recipe.vgg.features(batch.content)["relu4_2"]
    output = recipe.vgg.features(model.generate(batch.content, unit, samples, seed))
    return dict(
        style=style_weight * from_goals(output, wanted, covariance),
        content=content_weight * apart(output["relu4_2"], content),
    )


def mgans(recipe, phase, batch, styles, style_weight, content_weight, variation_weight):
    vgg, decoder, score = recipe.model.encoder, recipe.model.decoder, recipe.discriminator
    with torch.no_grad():
        content = vgg.features(batch.content)["relu4_1"]
    if phase == "generator":
        picture = decoder(content)
        output = vgg.features(picture)
        return dict(
            style=style_weight * hinge(score(output["relu3_1"]), 1),
            content=content_weight * apart(output["relu4_1"], content),
            variation=variation_weight * variation(picture),
        )
    with torch.no_grad():
        fake, style = vgg.features(decoder(content))["relu3_1"], vgg.features(styles[0])["relu3_1"]
    samples, _, height, width = fake.shape
    rows, columns = (
        torch.randint(whole - part + 1, (samples,)).tolist() for whole, part in zip(style.shape[2:], (height, width))
    )
    real = [style[..., row : row + height, column : column + width] for row, column in zip(rows, columns)]
    return dict(real=hinge(score(torch.cat(real)), 1), fake=hinge(score(fake), -1))
