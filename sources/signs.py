"""Words as they appear on signs, and photographs: material for the demo and the benches that needs no download."""

from collections.abc import Iterator
from importlib.util import find_spec
from itertools import product
from pathlib import Path

from cache.errors import WrongUse
from sources.photos import photos

FIRST = """
old new royal city park lake river garden green blue red golden silver happy lucky sunny urban royal grand
little market harbour station church castle bridge mountain ocean island summer winter spring north south west
east central union liberty victoria albert windsor oxford paris london vienna berlin tokyo delhi
"""
SECOND = """
cafe bakery hotel bar pizza sushi grill kitchen books shop market motors taxi bank school college theatre
cinema museum pharmacy dental clinic salon barber laundry florist travel tours fitness yoga records music toys
shoes fashion jewellers optics phones computers furniture hardware garage parking station gallery lounge
"""
PHOTOGRAPHS = """
astronaut.png brick.png camera.png chelsea.png coffee.png coins.png grass.png gravel.png hubble_deep_field.jpg
moon.png motorcycle_left.png motorcycle_right.png retina.jpg rocket.jpg
"""


def signs() -> Iterator[str]:
    """Text of signs: names of shops in three cases, house numbers and years, prices, opening hours, roads."""
    names = [first + second for first, second in product(FIRST.split(), SECOND.split())]
    yield from (shown for name in names for shown in (name, name.capitalize(), name.upper()))
    yield from (str(number) for number in [*range(1, 400), *range(1850, 2030)])
    yield from (f"${whole}.{cents:02}" for whole, cents in product(range(1, 30), (25, 49, 50, 75, 90, 95, 99)))
    yield from (f"{hour}:{minute:02}" for hour, minute in product(range(24), range(0, 60, 5)))
    yield from (f"{letter}{number}" for letter, number in product("ABM", range(1, 120)))


def photographs() -> Iterator[tuple[str, bytes]]:
    """The photographs in scikit-image's package. WrongUse if it is not installed."""
    package = find_spec("skimage")
    if package is None or package.origin is None:
        raise WrongUse("the demo's photographs come with scikit-image: pip install 'dptr[demo]'.")
    folder = Path(package.origin).parent / "data"
    for name in PHOTOGRAPHS.split():
        if (folder / name).exists():
            yield from photos(str(folder / name))
