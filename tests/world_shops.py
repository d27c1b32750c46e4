"""Shops of 200 items in five languages: titles by small grammars of product words, written for the tests.

What a shopper types differs from the title as it does in life: another order, some of the words, the other spelling.
"""

import itertools
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

ITEMS = 200
RGB = ("red", "blue", "black", "white", "green", "yellow")


@dataclass(frozen=True)
class Shop:
    """`brands`, `things` and `colours` hold the spellings of one thing in each line, ``/`` between them.

    A title takes any of them, and so does a query. `template` makes the title, `blank` stands between a query's words.
    """

    brands: str
    things: str
    colours: str
    template: str
    language: str | None = None
    blank: str = " "

    def lists(self) -> dict[str, list[list[str]]]:
        """Attribute -> its values, each with its spellings."""
        return {
            name: [value.split("/") for value in getattr(self, name).split()]
            for name in ("brands", "things", "colours")
        }


SHOPS: Mapping[str, Shop] = {
    "chinese": Shop(
        brands="Nike/ＮＩＫＥ/nike 优衣库/優衣庫 华为/華為 Adidas/ADIDAS 李宁/李寧",
        things="连衣裙/連衣裙 运动鞋/運動鞋 牛仔裤/牛仔褲 羽绒服/羽絨服 手机壳/手機殼 保温杯/保溫杯 双肩包/雙肩包",
        colours="红色/紅色 蓝色/藍色 黑色 白色 绿色/綠色 黄色/黃色",
        template="2026新款{brands}{colours}{things}L码",
        blank="",
    ),
    "japanese": Shop(
        brands="UNIQLO/ＵＮＩＱＬＯ アシックス/ｱｼｯｸｽ 無印良品 パナソニック/ﾊﾟﾅｿﾆｯｸ タイガー/ﾀｲｶﾞｰ",
        things="ワンピース/ﾜﾝﾋﾟｰｽ スニーカー ペットベッド/ﾍﾟｯﾄﾍﾞｯﾄﾞ 長袖シャツ 炊飯器 水筒 腕時計",
        colours="赤 青 黒 白 緑 ネイビー/ﾈｲﾋﾞｰ",
        template="【{brands}】{things}（{colours}）新作 送料無料",
    ),
    "german": Shop(
        brands="Müller/MÜLLER/Mu\u0308ller/Muller Böhm/Bo\u0308hm/Bohm Strauß/STRAUSS Bosch Größer/Grosser",
        things="Kleid/Kleider Hose/Hosen Gürtel/Gurtel Rucksack Kaffeemaschine/Kaffeemaschinen Töpfe/Topfe Stiefel",
        colours="rot/rote/rotes blau/blaue schwarz/schwarzes weiß/weiss/weißes grün/grun/grünes gelb/gelbe",
        template="{brands} {things} in {colours}, Größe 38",
        language="german",
    ),
    "arabic": Shop(
        brands="نايكي زارا أديداس/اديداس إيكيا/ايكيا سامسونج/سامسونـــج",
        things="حقيبة/حقيبه فستان/فُسْتَان حذاء قميص/قَمِيص ساعة/ساعه معطف/معطـــف كرسي/كرسى",
        colours="أحمر/احمر أزرق/ازرق أسود/أَسْوَد أبيض/ابيض أخضر/اخضر أصفر/اصفر",
        template="{things} {colours} من {brands} مقاس ٣٨",
    ),
    "hindi": Shop(
        brands="बाटा टाइटन रेमंड नाइकी फैबइंडिया",
        things="साड़ी/सा\u095cी कुर्ता जूते चप्पल घड़ी/घ\u095cी कमीज़/कमी\u095b दुपट्टा",
        colours="लाल नीला काला सफ़ेद/स\u095eेद हरा पीला",
        template="{brands} {colours} {things} साइज़ ३८",
    ),
}


def write_shop(shop: Shop, folder: Path, seed: int = 0) -> None:
    """Write ``items.jsonl`` (200 items, every fourth without picture), ``clicks.jsonl`` and the pictures.

    A query names two or three attributes; who asks it clicks every item that has them, ten at most.
    """
    rng = random.Random(seed)
    lists = shop.lists()
    combinations = rng.sample(list(itertools.product(*(range(len(values)) for values in lists.values()))), ITEMS)
    (folder / "images").mkdir(parents=True)
    for name in RGB:
        Image.new("RGB", (32, 32), name).save(folder / "images" / f"{name}.png")
    items = [_item(shop, at, dict(zip(lists, chosen, strict=True)), rng) for at, chosen in enumerate(combinations)]
    clicks, asked = [], set()
    while len(asked) < 150:
        wanted = dict(zip(lists, rng.choice(combinations), strict=True))
        names = rng.sample(list(lists), rng.choice([2, 3]))
        query = shop.blank.join(rng.choice(lists[name][wanted[name]]) for name in names)
        if query not in asked:
            asked.add(query)
            fits = [
                at for at, own in enumerate(combinations) if _fits(dict(zip(lists, own, strict=True)), wanted, names)
            ]
            clicks += [{"query": query, "item_id": f"{at}"} for at in fits]
    for name, rows in (("items", items), ("clicks", clicks)):
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        (folder / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")


def _item(shop: Shop, at: int, chosen: dict[str, int], rng: random.Random) -> dict[str, str | None]:
    said = {name: rng.choice(values[chosen[name]]) for name, values in shop.lists().items()}
    picture = None if at % 4 == 3 else f"images/{RGB[chosen['colours']]}.png"
    return {"item_id": f"{at}", "title": shop.template.format(**said), "brand": said["brands"], "image": picture}


def _fits(own: dict[str, int], wanted: dict[str, int], names: list[str]) -> bool:
    return all(own[name] == wanted[name] for name in names)
