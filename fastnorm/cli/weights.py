"""Public weights of networks that losses look with, or that a model begins with."""

from .. import models
from .errors import UserError


def load_public(option, path, networks):
    """Fill networks from the file that an option names, None for the one that torchvision keeps; random is left as it is."""
    if path == "random":
        return
    for network in networks:
        try:
            network.load_public(path)
        except models.MissingWeights as error:
            raise UserError(f"{option}: {error}; or {option} random to try out") from None
