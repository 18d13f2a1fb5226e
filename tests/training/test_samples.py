import torch

from fastnorm.training.samples import grid


def test_a_grid_is_rows_of_pictures_with_white_between():
    first = torch.rand(2, 3, 4, 5)
    second = torch.rand(3, 3, 4, 5) * 3 - 1  # Out of range, and one more.
    larger = torch.rand(1, 3, 8, 10)
    picture = grid([first, second, larger])
    assert picture.shape == (3, 3 * 4 + 2 * 2, 3 * 5 + 2 * 2)
    expected = torch.ones_like(picture)
    for j in range(2):
        expected[:, 0:4, 7 * j : 7 * j + 5] = first[j]
    for j in range(3):
        expected[:, 6:10, 7 * j : 7 * j + 5] = second[j].clamp(0, 1)
    # Half as large: the mean of each 2x2 pixels.
    expected[:, 12:16, 0:5] = larger[0].view(3, 4, 2, 5, 2).mean((2, 4))
    assert torch.allclose(picture, expected, rtol=0, atol=1e-6)
