"""The generated shop's catalogue: categories, attributes, the words for them, and titles that leave some out.

Half of the categories are Fashion: colour, pattern, sleeve and shape can be seen, and a title names each of
them with probability `NAMED` only. The other half is Not-fashion: capacity, length, voltage, power decide, a
title always names them, and the pictures of one category look alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

NAMED = 0.35
"""How often a title names an attribute that the picture shows."""
VISIBLE = ("colour", "pattern", "sleeve", "shape")
"""Attributes that a picture of a Fashion item shows."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "black": (45, 45, 50),
    "white": (252, 252, 250),
    "grey": (150, 153, 158),
    "red": (205, 52, 52),
    "blue": (58, 124, 214),
    "navy": (34, 50, 96),
    "green": (62, 146, 88),
    "yellow": (243, 201, 62),
    "orange": (238, 132, 48),
    "pink": (240, 148, 178),
    "purple": (128, 80, 168),
    "brown": (125, 84, 54),
}
COLOUR_SHARES = (0.13, 0.12, 0.08, 0.09, 0.10, 0.07, 0.08, 0.06, 0.06, 0.08, 0.06, 0.07)
PATTERN_SHARES = {"plain": 0.44, "striped": 0.16, "dotted": 0.13, "checked": 0.13, "floral": 0.14}

# Attribute value -> the words for it; the first two may stand in a title, any may stand in a query.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "grey": ("grey", "gray"),
    "red": ("red", "scarlet", "crimson"),
    "blue": ("blue", "azure"),
    "navy": ("navy", "midnight", "marine"),
    "green": ("green", "emerald"),
    "yellow": ("yellow", "lemon"),
    "orange": ("orange", "tangerine"),
    "pink": ("pink", "rose"),
    "purple": ("purple", "violet"),
    "brown": ("brown", "chocolate"),
    "plain": ("plain", "solid"),
    "striped": ("striped", "stripe", "stripes"),
    "dotted": ("dotted", "polka dot", "spotted"),
    "checked": ("checked", "plaid", "checkered"),
    "floral": ("floral", "flower print", "flowery"),
    "sleeveless": ("sleeveless", "no sleeve"),
    "short sleeve": ("short sleeve", "half sleeve", "short-sleeved"),
    "long sleeve": ("long sleeve", "full sleeve", "long-sleeved"),
    "maxi": ("maxi", "floor length", "full length"),
    "mini": ("mini", "above knee", "thigh length"),
    "wide": ("wide", "wide leg", "baggy"),
    "slim": ("slim", "slim fit", "skinny"),
    "v-neck": ("v-neck", "v neck"),
    "crew neck": ("crew neck", "round neck"),
    "turtleneck": ("turtleneck", "roll neck", "high neck"),
    "tote": ("tote bag", "tote", "shopper"),
    "backpack": ("backpack", "rucksack"),
    "clutch": ("clutch", "envelope clutch"),
    "sneaker": ("sneakers", "trainers"),
    "boot": ("boots", "ankle boots"),
    "heel": ("heels", "high heels", "pumps"),
}
UNIT_WORDS: dict[str, tuple[str, ...]] = {
    "l": ("{} L", "{}l", "{} l", "{} litre"),
    "W": ("{} W", "{}w", "{} watt"),
    "V": ("{} V", "{}v", "{} volt"),
    "m": ("{} m", "{}m", "{} meter"),
    "mAh": ("{} mAh", "{}mah"),
    "cm": ("{} cm", "{}cm"),
    "Nm": ("{} Nm", "{}nm"),
}


@dataclass(frozen=True)
class Category:
    """One category: its nouns (first = in titles) and, per attribute, the values an item may have.

    `noun_shapes`: the shape's word replaces the noun (a backpack is not called "backpack bag").
    """

    name: str
    group: str
    nouns: tuple[str, ...]
    price: float
    values: Mapping[str, tuple[str, ...]]
    noun_shapes: bool = False


def _fashion(name: str, nouns: tuple[str, ...], price: float, noun_shapes: bool = False, **values: str) -> Category:
    shown = {"colour": tuple(COLOURS), "pattern": tuple(PATTERN_SHARES)}
    own = {key: tuple(text.split("|")) for key, text in values.items()}
    return Category(name, "Fashion", nouns, price, shown | own, noun_shapes)


def _tool(name: str, nouns: tuple[str, ...], price: float, **values: str) -> Category:
    return Category(name, "Not-fashion", nouns, price, {key: tuple(text.split("|")) for key, text in values.items()})


_ALL_SLEEVES = "sleeveless|short sleeve|long sleeve"
CATEGORIES: tuple[Category, ...] = (
    _fashion(
        "T-shirt",
        ("T-shirt", "tee"),
        19,
        sleeve=_ALL_SLEEVES,
        shape="crew neck|v-neck",
        material="cotton|jersey|bamboo",
    ),
    _fashion(
        "Shirt",
        ("shirt", "button shirt"),
        35,
        sleeve="short sleeve|long sleeve",
        material="cotton|linen|silk",
    ),
    _fashion("Dress", ("dress",), 49, sleeve=_ALL_SLEEVES, shape="mini|maxi", material="cotton|linen|silk|viscose"),
    _fashion("Skirt", ("skirt",), 32, shape="mini|maxi", material="cotton|wool|viscose"),
    _fashion("Sweater", ("sweater", "jumper"), 45, shape="crew neck|turtleneck", material="wool|cotton|cashmere"),
    _fashion("Trousers", ("trousers", "pants"), 42, shape="slim|wide", material="cotton|linen|wool"),
    _fashion("Bag", ("bag",), 55, True, shape="tote|backpack|clutch", material="leather|canvas|nylon"),
    _fashion("Shoes", ("shoes",), 65, True, shape="sneaker|boot|heel", material="leather|canvas|suede"),
    _tool(
        "Kettle",
        ("kettle", "electric kettle"),
        35,
        size="0.8 l|1.0 l|1.2 l|1.5 l|1.7 l|2.0 l",
        power="1500 W|2200 W|3000 W",
    ),
    _tool(
        "Charger",
        ("charger", "wall charger"),
        25,
        power="20 W|30 W|45 W|65 W|100 W|140 W",
        plug="USB-C|USB-A|MagSafe",
    ),
    _tool(
        "Cable",
        ("cable", "cord"),
        12,
        size="0.5 m|1 m|1.5 m|2 m|3 m|5 m",
        plug="USB-C|Lightning|HDMI|DisplayPort",
    ),
    _tool(
        "Power bank",
        ("power bank", "portable charger"),
        30,
        size="5000 mAh|10000 mAh|20000 mAh|27000 mAh",
        power="15 W|22 W|45 W|100 W",
    ),
    _tool("Light bulb", ("light bulb", "led bulb"), 8, power="4 W|6 W|9 W|13 W|18 W", plug="E14|E27|B22"),
    _tool(
        "Vacuum flask",
        ("vacuum flask", "thermos"),
        24,
        size="0.35 l|0.5 l|0.75 l|1.0 l|1.5 l",
        steel="304 steel|316 steel|titanium",
    ),
    _tool(
        "Drill",
        ("drill", "cordless drill"),
        89,
        size="12 V|14 V|18 V|24 V|36 V",
        torque="30 Nm|45 Nm|60 Nm|80 Nm",
    ),
    _tool(
        "Desk fan",
        ("desk fan", "table fan"),
        38,
        size="15 cm|20 cm|25 cm|30 cm|40 cm",
        power="20 W|30 W|45 W|60 W",
    ),
)
BRANDS = {
    "Fashion": (
        "Norvia",
        "Lumeth",
        "Casteva",
        "Oriele",
        "Tamsin & Co",
        "Velmora",
        "Hadriel",
        "Solenne",
        "Brixley",
    ),
    "Not-fashion": (
        "Voltaro",
        "Kelmix",
        "Dynaro",
        "Ampello",
        "Tekwell",
        "Zenbro",
        "Corvatec",
        "Halden",
        "Ionix",
    ),
}
_SYLLABLES = [
    "bri",
    "dal",
    "fen",
    "lo",
    "lun",
    "mar",
    "nis",
    "ori",
    "quo",
    "ra",
    "sel",
    "tal",
    "tor",
    "ven",
    "wyn",
    "zan",
]


@dataclass(frozen=True)
class Item:
    """One generated item. `attributes` is the truth; `named` says which of them the title names."""

    item_id: str
    title: str
    category: Category
    brand: str
    price: float
    in_stock: bool
    attributes: Mapping[str, str]
    named: frozenset[str]

    def lacks(self, attribute: str) -> bool:
        """Whether the title leaves out this attribute although the picture shows it."""
        return attribute in VISIBLE and attribute in self.attributes and attribute not in self.named


def words(value: str) -> tuple[str, ...]:
    """The words that say an attribute's value; the first is the usual one."""
    number, _, unit = value.partition(" ")
    if unit in UNIT_WORDS:
        return tuple(form.format(number) for form in UNIT_WORDS[unit])
    return SYNONYMS.get(value, (value,))


def _draw_attributes(category: Category, rng: np.random.Generator) -> dict[str, str]:
    shares = {"colour": COLOUR_SHARES, "pattern": tuple(PATTERN_SHARES.values())}
    return {
        name: str(values[int(rng.choice(len(values), p=shares.get(name)))]) for name, values in category.values.items()
    }


def _title(
    category: Category, brand: str, attributes: Mapping[str, str], rng: np.random.Generator
) -> tuple[str, frozenset[str]]:
    """A merchant's title, and which attributes it names."""
    hidden = {name for name in attributes if name in VISIBLE and rng.random() >= NAMED}
    # "plain" is what nobody writes: a title says it half as often as any other pattern.
    if attributes.get("pattern") == "plain" and rng.random() < 0.5:
        hidden.add("pattern")
    said = {name: words(value)[:2] for name, value in attributes.items() if name not in hidden}
    told = {name: forms[int(rng.random() < 0.2) % len(forms)] for name, forms in said.items()}
    noun = category.nouns[0]
    if category.noun_shapes and "shape" in told:
        noun = told.pop("shape")
    series = "".join(rng.choice(_SYLLABLES, size=int(rng.integers(2, 4)), replace=False)).capitalize()
    model = f"{series} {int(rng.integers(10, 1000))}"
    order = ("size", "power", "torque", "plug", "steel", "colour", "pattern", "material", "sleeve", "shape")
    middle = [_capital(told[name]) for name in order if name in told]
    forms = (
        f"{brand} {model} {' '.join(middle)} {_capital(noun)}",
        f"{brand} {_capital(noun)} {model} {' '.join(middle)}",
        f"{_capital(noun)} {model} by {brand}, {', '.join(middle)}",
    )
    return forms[int(rng.choice(3, p=(0.55, 0.25, 0.2)))], frozenset(set(attributes) - hidden)


def _capital(text: str) -> str:
    """Capitals as merchants write them; what starts with a number ("1.7 L") stays as it is."""
    if text[:1].isdigit() and "steel" not in text:
        return text
    return " ".join(word[:1].upper() + word[1:] for word in text.split(" "))


def draw_items(count: int, rng: np.random.Generator) -> list[Item]:
    """Draw `count` items, every category equally often, in a shuffled order."""
    categories = [CATEGORIES[i % len(CATEGORIES)] for i in range(count)]
    width = len(str(count))
    items = []
    for number, at in enumerate(rng.permutation(count)):
        category = categories[int(at)]
        brands = BRANDS[category.group]
        place = int(rng.integers(len(brands)))
        attributes = _draw_attributes(category, rng)
        title, named = _title(category, brands[place], attributes, rng)
        price = category.price * (0.7 + 0.1 * place) * float(np.exp(rng.normal(0, 0.25)))
        item_id = f"{'F' if category.group == 'Fashion' else 'N'}{number + 1:0{width}d}"
        stock = bool(rng.random() < 0.93)
        items.append(Item(item_id, title, category, brands[place], round(price, 2), stock, attributes, named))
    return items
