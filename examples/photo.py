"""Write astronaut.jpg, a public-domain photo that comes with scikit-image, beside this file."""

from pathlib import Path

from PIL import Image
from skimage import data


def main(folder=Path(__file__).parent):
    path = folder / "astronaut.jpg"
    Image.fromarray(data.astronaut()).save(path, quality=90)
    print(path)


if __name__ == "__main__":
    main()
