"""Makes training pictures and their prompts out of the packed ones, each from a seed and a number alone.

A spec says what is in a picture (things, style, colours, size, place, background); render draws it, prompt puts
it into words, in English or Chinese, differently for each seed of wording. What a prompt leaves unsaid has one
fixed meaning wherever possible: no background means white, no size and place mean large and in the middle.
"""

import json
import os
import random

import numpy
from PIL import Image, ImageDraw, ImageFilter

SIDE = 128
TILE_SHARE, PIXEL_SHARE, TWO_SHARE = 0.07, 0.06, 0.10

# style → English words, Chinese words
STYLES = {
    "noto": (["classic", "classic emoji"], ["经典"]),
    "blob": (["blob", "blobby"], ["团子"]),
    "fluent3d": (["3D glossy", "3D", "glossy"], ["立体", "3D立体", "光泽"]),
    "fluentflat": (["flat"], ["扁平"]),
    "twemoji": (["simple", "minimal"], ["简约"]),
    "pixel": (["pixel art", "pixelated"], ["像素", "像素画"]),
}  # fmt: skip
STYLE_ORDER = ("noto", "blob", "fluent3d", "fluentflat", "twemoji")
# English, Chinese, RGB
COLOURS = [
    ("white", "白色", (255, 255, 255)), ("black", "黑色", (16, 16, 18)), ("grey", "灰色", (140, 140, 144)),
    ("red", "红色", (220, 40, 40)), ("orange", "橙色", (250, 140, 30)), ("yellow", "黄色", (252, 222, 60)),
    ("green", "绿色", (60, 170, 70)), ("turquoise", "青色", (50, 195, 195)), ("blue", "蓝色", (45, 95, 220)),
    ("light blue", "浅蓝色", (165, 215, 250)), ("purple", "紫色", (140, 70, 200)), ("pink", "粉色", (250, 165, 200)),
    ("brown", "棕色", (125, 80, 50)), ("cream", "米色", (250, 240, 215)), ("navy", "深蓝色", (20, 30, 90)),
    ("light green", "浅绿色", (185, 235, 170)),
]  # fmt: skip
# English, Chinese, hue in degrees: colours a thing can be given by turning its hue
HUES = [
    ("red", "红色", 0), ("orange", "橙色", 28), ("yellow", "黄色", 50), ("green", "绿色", 118), ("turquoise", "青色", 178),
    ("blue", "蓝色", 218), ("purple", "紫色", 275), ("pink", "粉色", 325),
]  # fmt: skip
PLACES = {
    "top left": ("左上角", -1, -1), "top right": ("右上角", 1, -1), "bottom left": ("左下角", -1, 1),
    "bottom right": ("右下角", 1, 1), "left": ("左边", -1, 0), "right": ("右边", 1, 0), "top": ("上方", 0, -1),
    "bottom": ("下方", 0, 1),
}  # fmt: skip
WAYS = {"down": ("从上到下",), "across": ("从左到右",), "diagonal": ("斜向",), "round": ("圆形",)}
PATTERNS = {"stripes": ("striped", "条纹"), "dots": ("dotted", "圆点"), "checks": ("checkered", "格子")}
# Things that a mirror or a turn would make another thing.
DIRECTED = ("left", "right", "arrow", "button", "clock", "up", "down", "back", "end", "soon", "o’clock", "flag", "input", "sign", "letter", "symbol", "keycap", "moon", "index", "point")  # fmt: skip


def article(name):
    if name.startswith(("the ", "a ", "an ")) or name.endswith("s") and not name.endswith("ss"):
        return name
    return ("an " if name[0].lower() in "aeiou" else "a ") + name


def jitter(colour, draw, amount=12):
    return tuple(max(0, min(255, part + draw.randint(-amount, amount))) for part in colour)


class Book:
    """The packed pictures and everything made from them; held=True draws only from what training never sees."""

    def __init__(self, folder, held=False):
        self.stickers = numpy.load(os.path.join(folder, "stickers.npy"), mmap_mode="r")
        self.tiles = numpy.load(os.path.join(folder, "tiles.npy"), mmap_mode="r")
        with open(os.path.join(folder, "entries.json"), encoding="utf-8") as file:
            self.entries = json.load(file)
        with open(os.path.join(folder, "textures.json"), encoding="utf-8") as file:
            self.textures = json.load(file)
        self.held = held
        self.chinese_share, self.keyword_share = 0.3, 0.12  # of the prompts
        usable = [entry for entry in self.entries if entry["held"] == held]
        self.sticker_entries = [entry for entry in usable if entry["kind"] == "sticker"]
        self.tile_entries = [entry for entry in usable if entry["kind"] == "tile"]
        # Stickers may be shown as pixel art unless that pair is held out.
        self.plain = [entry for entry in self.sticker_entries if entry["style"] in ("noto", "twemoji", "fluentflat")]

    # What is in the picture.

    def thing(self, draw):
        """One thing as {entry number, style, colour, outline, mirror, tilt}."""
        choice, entry = draw.random(), None
        if choice < TILE_SHARE:
            entry, style = draw.choice(self.tile_entries), "pixel"
        elif choice < TILE_SHARE + PIXEL_SHARE:
            entry, style = draw.choice(self.plain), "pixel"
            if hash_held(entry["thing"], "pixel") != self.held:
                style = entry["style"]
        else:
            entry = draw.choice(self.sticker_entries)
            style = entry["style"]
        thing = {"entry": entry, "style": style, "colour": None, "turn": 0.0, "outline": False, "mirror": False, "tilt": 0}
        if entry["agreement"] > 0.75:
            nearest = min(HUES, key=lambda hue: abs((entry["hue"] * 360 - hue[2] + 180) % 360 - 180))
            away = abs((entry["hue"] * 360 - nearest[2] + 180) % 360 - 180)
            if draw.random() < 0.22:
                goal = draw.choice([hue for hue in HUES if hue is not nearest])
                thing["colour"], thing["turn"] = goal, goal[2] / 360 - entry["hue"] + draw.uniform(-0.012, 0.012)
            elif away < 14 and draw.random() < 0.15:
                thing["colour"] = nearest
        directed = any(word in entry["name"].lower().split() for word in DIRECTED) or "-" in entry["thing"] or "flag" in entry["name"]
        if entry["kind"] == "sticker" and style != "pixel" and draw.random() < 0.04:
            thing["outline"] = True
        if not directed:
            thing["mirror"] = draw.random() < 0.03
            if draw.random() < 0.03:
                thing["tilt"] = draw.choice((-1, 1)) * draw.uniform(18, 32)
            elif draw.random() < 0.3 and style != "pixel":
                thing["tilt"] = draw.uniform(-6, 6)
        return thing

    def background(self, draw):
        choice = draw.random()
        if choice < 0.44:
            return {"kind": "white", "said": draw.random() < 0.15}
        one, other = draw.sample(COLOURS, 2)
        if choice < 0.80:
            return {"kind": "plain", "colour": one, "rgb": jitter(one[2], draw)}
        if choice < 0.92:
            way = draw.choice(list(WAYS))
            return {"kind": "gradient", "colours": (one, other), "rgb": (jitter(one[2], draw), jitter(other[2], draw)), "way": way}
        if choice < 0.96:
            pattern = draw.choice(list(PATTERNS))
            return {"kind": "pattern", "pattern": pattern, "colours": (one, other), "rgb": (jitter(one[2], draw), jitter(other[2], draw)), "step": draw.choice((16, 24, 32))}  # fmt: skip
        return {"kind": "texture", "texture": draw.choice(self.textures), "scale": draw.choice((2, 4))}

    def spec(self, seed, number):
        """What picture number of the sequence seed shows."""
        draw = random.Random(f"spec {seed} {number} {self.held}")
        spec = {"things": [self.thing(draw)], "relation": None, "size": "normal", "place": None,
                "background": self.background(draw), "grow": draw.uniform(0.88, 0.98), "shift": (draw.uniform(-1, 1), draw.uniform(-1, 1))}  # fmt: skip
        choice = draw.random()
        if choice < TWO_SHARE:
            other = self.thing(draw)
            while other["entry"]["thing"] == spec["things"][0]["entry"]["thing"]:
                other = self.thing(draw)
            spec["things"].append(other)
            spec["relation"] = "beside" if draw.random() < 0.65 else "above"
        elif choice < TWO_SHARE + 0.10:
            spec["size"] = draw.choice(("small", "small", "tiny"))
            if draw.random() < 0.7:
                spec["place"] = draw.choice(list(PLACES))
        elif choice < TWO_SHARE + 0.14:
            spec["size"] = "huge"
        return spec

    # The picture.

    def cutout(self, thing, side):
        """RGBA picture of a thing, its canvas side pixels wide."""
        entry = thing["entry"]
        if entry["kind"] == "tile":
            picture = Image.fromarray(numpy.asarray(self.tiles[entry["index"]]))
            whole = max(1, round(side / 32))
            picture = picture.resize((32 * whole, 32 * whole), Image.NEAREST)
        else:
            picture = Image.fromarray(numpy.asarray(self.stickers[entry["index"]]))
            if thing["style"] == "pixel":
                picture = pixelated(picture).resize((side // 32 * 32, side // 32 * 32), Image.NEAREST)
        if thing["turn"]:
            h, s, v = picture.convert("RGB").convert("HSV").split()
            shift = round(thing["turn"] * 256)
            h = h.point([(value + shift) % 256 for value in range(256)])
            alpha = picture.getchannel("A")
            picture = Image.merge("HSV", (h, s, v)).convert("RGB")
            picture.putalpha(alpha)
        if thing["mirror"]:
            picture = picture.transpose(Image.FLIP_LEFT_RIGHT)
        if thing["style"] == "pixel":
            if thing["tilt"]:
                picture = premultiplied(picture).rotate(thing["tilt"], Image.NEAREST)
                return picture
            return premultiplied(picture)
        picture = premultiplied(picture)
        if thing["outline"]:
            room = Image.new("RGBa", (144, 144))
            room.paste(picture, (8, 8))
            edge = room.getchannel("a").point(lambda value: 255 if value > 100 else 0)
            edge = edge.filter(ImageFilter.MaxFilter(9)).filter(ImageFilter.GaussianBlur(0.7))
            under = Image.merge("RGBa", (edge.point(lambda value: value * 24 // 255),) * 3 + (edge,))
            picture = over(under, room)
        if thing["tilt"]:
            picture = picture.rotate(thing["tilt"], Image.BICUBIC, expand=abs(thing["tilt"]) > 10)
        return picture.resize((side, side), Image.BICUBIC if side >= picture.width else Image.LANCZOS, reducing_gap=2.0)

    def backdrop(self, spec):
        background = spec["background"]
        kind = background["kind"]
        if kind == "white":
            return Image.new("RGB", (SIDE, SIDE), (255, 255, 255))
        if kind == "plain":
            return Image.new("RGB", (SIDE, SIDE), background["rgb"])
        if kind == "gradient":
            y, x = numpy.mgrid[0:SIDE, 0:SIDE] / (SIDE - 1)
            t = {"down": y, "across": x, "diagonal": (x + y) / 2, "round": numpy.minimum(1, numpy.hypot(x - 0.5, y - 0.5) / 0.7)}
            t = t[background["way"]][..., None]
            one, other = (numpy.array(rgb, float) for rgb in background["rgb"])
            return Image.fromarray((one * (1 - t) + other * t + 0.5).astype(numpy.uint8))
        if kind == "pattern":
            image = Image.new("RGB", (SIDE, SIDE), background["rgb"][0])
            pen, step = ImageDraw.Draw(image), background["step"]
            if background["pattern"] == "stripes":
                for start in range(0, SIDE, step):
                    pen.rectangle((start, 0, start + step // 2 - 1, SIDE), fill=background["rgb"][1])
            elif background["pattern"] == "checks":
                for y in range(0, SIDE, step):
                    for x in range((y // step % 2) * step, SIDE, 2 * step):
                        pen.rectangle((x, y, x + step - 1, y + step - 1), fill=background["rgb"][1])
            else:
                for y in range(step // 2, SIDE, step):
                    for x in range(step // 2, SIDE, step):
                        pen.ellipse((x - step // 4, y - step // 4, x + step // 4, y + step // 4), fill=background["rgb"][1])
            return image
        tile = numpy.asarray(self.tiles[background["texture"]["index"]])[..., :3]
        tile = tile.repeat(background["scale"], 0).repeat(background["scale"], 1)
        times = SIDE // tile.shape[0]
        return Image.fromarray(numpy.tile(tile, (times, times, 1)))

    def render(self, spec):
        """uint8 [128, 128, 3]."""
        image = premultiplied(self.backdrop(spec).convert("RGBA"))
        if spec["relation"]:
            sides = [min(64, int(62 * spec["grow"] + 2))] * 2
            gap = 32
            centres = [(64 - gap, 64), (64 + gap, 64)] if spec["relation"] == "beside" else [(64, 64 - gap), (64, 64 + gap)]
        else:
            full = {"normal": 118, "small": 64, "tiny": 42, "huge": 136}[spec["size"]]
            side = round(full * spec["grow"])
            room = max(0, (SIDE - side) / 2 - 3)
            if spec["place"]:
                _, across, down = PLACES[spec["place"]]
                centres = [(64 + across * room, 64 + down * room)]
            else:
                jog = 3
                centres = [(64 + jog * spec["shift"][0], 64 + jog * spec["shift"][1])]
            sides = [side]
        for thing, side, (x, y) in zip(spec["things"], sides, centres):
            if thing["style"] == "pixel":
                side = max(32, min(128, round(side / 32) * 32))
            picture = self.cutout(thing, side)
            layer = Image.new("RGBa", (SIDE, SIDE))
            layer.paste(picture, (round(x - picture.width / 2), round(y - picture.height / 2)))
            image = over(image, layer)
        return numpy.asarray(image)[..., :3]

    # The words.

    def prompt(self, spec, wording):
        """A prompt for spec; wording seeds the choice of words."""
        draw = random.Random(f"prompt {wording}")
        chinese = draw.random() < self.chinese_share and all(thing["entry"]["zh"] for thing in spec["things"])
        return self.chinese(spec, draw) if chinese else self.english(spec, draw)

    def english(self, spec, draw):
        def noun(thing):
            entry, name = thing["entry"], thing["entry"]["name"]
            if entry["keywords"] and draw.random() < self.keyword_share:
                return ", ".join(draw.sample(entry["keywords"], min(len(entry["keywords"]), draw.randint(2, 3))))
            return name

        style = spec["things"][0]["style"]
        same = all(thing["style"] == style for thing in spec["things"])
        style_word = draw.choice(STYLES[style][0]) if same and draw.random() < 0.8 else None
        phrases, before = [], None
        for index, thing in enumerate(spec["things"]):
            name = noun(thing)
            adjectives = []
            if spec["size"] != "normal":
                adjectives.append(draw.choice({"small": ("small", "little"), "tiny": ("tiny",), "huge": ("huge", "big", "large")}[spec["size"]]))  # fmt: skip
            if thing["outline"]:
                adjectives.append("outlined")
            if thing["mirror"]:
                adjectives.append("mirrored")
            if abs(thing["tilt"]) > 10:
                adjectives.append("tilted" if draw.random() < 0.5 else "leaning " + ("left" if thing["tilt"] > 0 else "right"))
            if thing["colour"]:
                adjectives.append(thing["colour"][0])
            if not same and draw.random() < 0.8:
                adjectives.append(draw.choice(STYLES[thing["style"]][0]))
            elif index == 0 and same and style_word and draw.random() < 0.4:
                before = style_word
                adjectives.insert(0, style_word)
            text = " ".join(adjectives + [name])
            plain = "," in name or draw.random() < 0.35
            phrases.append(text if plain else article(text))
        if before:
            style_word = None
        if spec["relation"] == "beside":
            text = draw.choice(("{} next to {}", "{} beside {}", "{} and {}", "{} and {} side by side")).format(*phrases)
        elif spec["relation"] == "above":
            text = draw.choice(("{} above {}", "{} on top of {}", "{} over {}")).format(*phrases)
        else:
            text = phrases[0]
            if "," not in text and draw.random() < 0.25:
                text += draw.choice((" sticker", " icon", " emoji"))
        if style_word:
            text = draw.choice(("{text}, {style}", "{text}, {style} style", "{text} in {style} style", "{style} sticker of {text}")).format(text=text, style=style_word)  # fmt: skip
        if spec["place"]:
            where = spec["place"]
            text += draw.choice((f" in the {where}" + (" corner" if " " in where else ""), f", {where}", f" at the {where}"))
        return self.with_background(text, spec["background"], draw)

    def with_background(self, text, background, draw):
        kind = background["kind"]
        if kind == "white":
            return text + (draw.choice((" on white", ", white background", " on a white background")) if background["said"] else "")
        if kind == "plain":
            colour = background["colour"][0]
            return text + draw.choice((f" on {article(colour)} background", f", {colour} background", f" on {colour}"))
        if kind == "gradient":
            one, other = (colour[0] for colour in background["colours"])
            kinds = {"down": "vertical ", "across": "horizontal ", "diagonal": "diagonal ", "round": "radial "}
            way = kinds[background["way"]] if draw.random() < 0.6 else ""
            return text + draw.choice((f" on a {way}gradient from {one} to {other}", f", {way}{one} to {other} gradient background", f", {one} and {other} {way}gradient"))  # fmt: skip
        if kind == "pattern":
            one, other = (colour[0] for colour in background["colours"])
            return text + draw.choice((", {} and {} {} background", " on a {} and {} {} background")).format(one, other, PATTERNS[background["pattern"]][0])  # fmt: skip
        return text + draw.choice((" on {}", ", {} background")).format(background["texture"]["name"])

    def chinese(self, spec, draw):
        def noun(thing):
            entry = thing["entry"]
            if entry["keywords_zh"] and draw.random() < self.keyword_share:
                return draw.choice(entry["keywords_zh"])
            return entry["zh"]

        style = spec["things"][0]["style"]
        same = all(thing["style"] == style for thing in spec["things"])
        phrases = []
        for thing in spec["things"]:
            adjectives = []
            if spec["size"] != "normal":
                adjectives.append({"small": "小", "tiny": "很小的", "huge": "大"}[spec["size"]])
            if thing["outline"]:
                adjectives.append("描边的")
            if thing["mirror"]:
                adjectives.append("镜像的")
            if abs(thing["tilt"]) > 10:
                adjectives.append(draw.choice(("倾斜的", "向左倾斜的" if thing["tilt"] > 0 else "向右倾斜的")))
            if thing["colour"]:
                adjectives.append(thing["colour"][1] + "的")
            if not same and draw.random() < 0.8:
                adjectives.append(draw.choice(STYLES[thing["style"]][1]) + "风格的")
            phrases.append(draw.choice(("", "", "一个")) + "".join(adjectives) + noun(thing))
        if spec["relation"] == "beside":
            text = draw.choice(("{}和{}", "{}和{}并排", "{}在{}左边")).format(*phrases)
        elif spec["relation"] == "above":
            text = draw.choice(("{}在{}上面", "{}在{}上方")).format(*phrases)
        else:
            text = phrases[0] + (draw.choice(("贴纸", "图标", "表情")) if draw.random() < 0.2 else "")
        if same and draw.random() < 0.8:
            word = draw.choice(STYLES[style][1])
            text = draw.choice(("{text}，{style}风格", "{style}风格，{text}", "{style}风格的{text}", "{text}，{style}")).format(text=text, style=word)  # fmt: skip
        if spec["place"]:
            text += "，在" + PLACES[spec["place"]][0]
        background, kind = spec["background"], spec["background"]["kind"]
        if kind == "white":
            return text + ("，白色背景" if background["said"] else "")
        if kind == "plain":
            return text + "，" + background["colour"][1] + "背景"
        if kind == "gradient":
            one, other = (colour[1] for colour in background["colours"])
            way = WAYS[background["way"]][0] if draw.random() < 0.6 else ""
            return text + f"，{way}{one}到{other}渐变背景"
        if kind == "pattern":
            return text + "，{}和{}{}背景".format(*(colour[1] for colour in background["colours"]), PATTERNS[background["pattern"]][1])
        return text + "，" + background["texture"]["zh"] + "背景"


def hash_held(thing, style):
    import prepare

    return prepare.held_out(thing, style)


def premultiplied(picture):
    return picture if picture.mode == "RGBa" else picture.convert("RGBa")


def over(under, top):
    """top composited over under, both premultiplied RGBa, as RGBa."""
    u, t = numpy.asarray(under, numpy.uint16), numpy.asarray(top, numpy.uint16)
    rest = 255 - t[..., 3:]
    out = t + (u * rest + 127) // 255
    return Image.fromarray(numpy.minimum(out, 255).astype(numpy.uint8), "RGBa")


def pixelated(picture):
    """32x32 RGBA with few colours and no half-transparent pixels."""
    small = picture.convert("RGBa").resize((32, 32), Image.BOX).convert("RGBA")
    alpha = small.getchannel("A").point(lambda value: 255 if value > 127 else 0)
    few = small.convert("RGB").quantize(16, Image.MEDIANCUT, dither=Image.Dither.NONE).convert("RGB")
    few.putalpha(alpha)
    return few
