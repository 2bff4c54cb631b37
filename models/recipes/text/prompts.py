"""Requests made from the items themselves, and hand-written small talk.

A request is drawn in one of many wordings; its answer is the item. Words to
use, things to write about, titles and first lines all come from the answer.
"""

import collections
import re

FUNCTION_WORDS = frozenset(
    """a about after again all also always am an and another any are around as asked at away back be became because been
    before began being big but by came can come could day did didn do does don done down each even ever every felt few
    find first for found from gave get go going good got had happy has have he heard help her here him himself his how
    if in into is it its just keep kept know knew let like liked little long look looked lot made make many maybe me
    more most much must my never new next nice no not now of off oh okay old on once one only or other our out over own
    people place play played put ran really said saw say see she should small so some something soon started still stop
    such take tell than thank thanks that the their them themselves then there these they thing things think this
    those thought three time to together told too took tried try two until up upon us use used very wait want wanted
    was way we well went were what when where which while who why will with without would yes you your
    above across along another away became behind below beside besides between inside outside near next over under
    sat held hold stood stand turn turned walk walked while whole without else enough everyone everything nothing
    someone something anything anyone nobody everybody himself herself itself yourself let loved love replied called
    bit far full hear own seen show showed side sure top ten five four six seven eight nine such upon""".split()
)

ABOUT = (
    "Write a story about {}.", "Write a short story about {}.", "Tell me a story about {}.",
    "Tell a short story about {}.", "Please write a story about {}.", "Can you tell me a story about {}?",
    "I would like a story about {}.", "A story about {}, please.", "Write me a bedtime story about {}.",
    "Make up a story about {}.", "write a story about {}", "tell me a story about {}", "Story about {}",
    "Write a children's story about {}.", "Could you write a story about {}?",
)  # fmt: skip
WITH_WORDS = (
    "Write a story with the words {}.", "Tell me a story with the words {}.",
    "Write a short story that uses the words {}.", "Use the words {} in a short story.",
    "Please write a story with these words: {}.", "Make up a short story using the words {}.",
    "Words: {}. Write a story.", "Write a simple story that contains the words {}.",
)  # fmt: skip
NAMED = (
    "Tell me a story about {}.", "Write a story about {}.", "Write a short story about someone called {}.",
    "Tell a story in which {} appears.", "A story with {}, please.",
)  # fmt: skip
CONTINUE = (
    "Continue: {}", "Continue this story: {}", "Go on with this story: {}", "How does this story go on? {}",
    "Finish the story: {}", "Please continue the following story.\n\n{}",
)  # fmt: skip
ANY_STORY = (
    "Tell me a story.", "Write a story.", "Write a short story.", "Tell a story", "Can you tell me a story?",
    "A bedtime story, please.", "I want to hear a story.", "tell me a story", "Please tell me a short story.",
)  # fmt: skip
CALLED = (
    'Write a story called "{}".', 'Write a story with the title "{}".', 'Tell me the story "{}".',
    "Write a story titled {}.", 'Story title: "{}". Write the story.',
)  # fmt: skip
NAME_IT = (
    "Give this story a title: {}", "What would be a good title for this story?\n\n{}", "Find a title: {}",
    "Suggest a title for the following story.\n\n{}",
)  # fmt: skip
AGAIN = ("Another one: {}", "Now {}", "Thank you! {}", "Great. {}", "{}", "{}", "{}")
SYSTEMS = (
    "You are a helpful assistant.", "You are a storyteller.", "You are Helicon's small story model.",
    "You write stories and poems.", "You are a friendly assistant who tells short stories for children.",
)  # fmt: skip

FORM_NAMES = {
    "五绝": ("五言绝句", "五绝"), "七绝": ("七言绝句", "七绝"), "五律": ("五言律诗", "五律"), "七律": ("七言律诗", "七律"),
    "五古": ("五言古诗", "五古"), "七古": ("七言古诗", "七古"), "古诗": ("古诗", "诗"),
}  # fmt: skip
TITLED_POEM = (
    "写一首{form}，题为《{title}》。", "写一首{form}，题目是《{title}》", "以《{title}》为题，写一首{form}。", "以《{title}》为题写一首{form}",
    "请写一首{form}，题为《{title}》。", "请以“{title}”为题写一首{form}。", "作一首{form}《{title}》", "《{title}》，{form}一首",
    "帮我写一首题为《{title}》的{form}。",
)  # fmt: skip
THEMED_POEM = (
    "写一首关于{theme}的{form}。", "写一首关于{theme}的{form}", "请写一首关于{theme}的{form}。", "写一首写{theme}的{form}。",
    "以{theme}为主题写一首{form}。", "请以“{theme}”为主题，写一首{form}。", "来一首关于{theme}的{form}", "帮我写一首{theme}的{form}。",
)  # fmt: skip
OPENED_POEM = (
    "以“{line}”开头写一首{form}。", "以“{line}”为首句写一首{form}。", "以“{line}”开头，写一首{form}", "写一首{form}，首句是“{line}”。",
    "写一首以“{line}”开头的{form}。",
)  # fmt: skip
CONTINUED_POEM = ("续写：{line}", "把这首诗续完：{line}", "请接着写：{line}", "续写这首{form}：{line}")
FORM_POEM = ("写一首{form}。", "写一首{form}", "请写一首{form}。", "作一首{form}。", "来一首{form}", "帮我写一首{form}。")
STYLED_POEM = ("模仿{author}写一首{form}。", "以{author}的风格写一首{form}。", "写一首{author}风格的{form}。")
NAME_POEM = ("给这首诗起个题目：\n{poem}", "为下面的诗拟一个题目。\n\n{poem}", "这首诗可以叫什么？\n{poem}")
ENGLISH_POEM = (
    "Write a Chinese poem about {}.", "Write a poem about {}.", "Write a classical Chinese poem about {}.",
    "A poem about {}, please.",
)  # fmt: skip
TUNED = ("填一首《{tune}》。", "填一首《{tune}》", "以《{tune}》为词牌填一首词。", "请填一首《{tune}》。", "写一首词，词牌为《{tune}》。", "写一首《{tune}》")
TUNED_THEME = ("填一首《{tune}》，写{theme}。", "以《{tune}》为词牌，写一首关于{theme}的词。", "填一首关于{theme}的《{tune}》。")
AGAIN_POEM = ("再来一个：{}", "谢谢！{}", "很好。{}", "接着，{}", "{}", "{}", "{}")
CHINESE_STORY = ("讲一个故事。", "给我讲个故事", "写一个小故事。", "请讲一个小故事。")
CHINESE_CALLED = ("讲一个故事，题目是《{}》。", "写一个故事《{}》", "以《{}》为题写一个小故事。")

# What the signs in a poem tell about its theme: sign, Chinese names, English names.
THEMES = (
    ("春", ("春天", "春", "春日"), ("spring",)), ("夏", ("夏天", "夏日"), ("summer",)),
    ("秋", ("秋天", "秋", "秋日"), ("autumn",)), ("冬", ("冬天", "冬日"), ("winter",)),
    ("月", ("月亮", "明月", "月"), ("the moon",)), ("雪", ("雪", "下雪"), ("snow",)), ("雨", ("雨", "下雨"), ("rain",)),
    ("风", ("风",), ("the wind",)), ("花", ("花", "花朵"), ("flowers",)), ("梅", ("梅花", "梅"), ("plum blossoms",)),
    ("柳", ("柳树", "杨柳", "柳"), ("willows",)), ("竹", ("竹子", "竹"), ("bamboo",)), ("松", ("松树", "松"), ("pine trees",)),
    ("菊", ("菊花", "菊"), ("chrysanthemums",)), ("莲", ("莲花", "荷花"), ("the lotus",)), ("荷", ("荷花",), ("the lotus",)),
    ("桃", ("桃花",), ("peach blossoms",)), ("山", ("山", "高山"), ("mountains",)), ("江", ("江", "江水"), ("the river",)),
    ("湖", ("湖", "湖水"), ("a lake",)), ("海", ("海", "大海"), ("the sea",)), ("舟", ("小船", "舟"), ("a boat",)),
    ("酒", ("酒", "饮酒"), ("wine",)), ("茶", ("茶", "喝茶"), ("tea",)), ("琴", ("琴", "弹琴"), ("music",)),
    ("夜", ("夜晚", "夜"), ("the night",)), ("梦", ("梦", "梦境"), ("a dream",)), ("愁", ("忧愁", "愁"), ("sorrow",)),
    ("送", ("送别", "离别"), ("parting",)), ("别", ("离别", "送别"), ("parting",)), ("归", ("回家", "思乡"), ("coming home",)),
    ("乡", ("思乡", "故乡"), ("home",)), ("塞", ("边塞",), ("the frontier",)), ("马", ("马",), ("horses",)),
    ("鸟", ("鸟",), ("birds",)), ("雁", ("大雁", "雁"), ("wild geese",)), ("云", ("云", "白云"), ("clouds",)),
    ("老", ("老年", "衰老"), ("old age",)), ("友", ("朋友", "友情"), ("a friend",)), ("僧", ("僧人",), ("a monk",)),
    ("寺", ("寺庙", "古寺"), ("a temple",)), ("楼", ("登楼", "高楼"), ("a tower",)), ("渔", ("渔人", "渔翁"), ("a fisherman",)),
    ("仙", ("神仙",), ("immortals",)), ("燕", ("燕子",), ("swallows",)), ("莺", ("黄莺",), ("orioles",)),
    ("蝉", ("蝉",), ("cicadas",)), ("星", ("星星",), ("stars",)), ("日", ("太阳", "日出"), ("the sun",)),
)  # fmt: skip

LIMITS = "I only write short stories in English and classical poems in Chinese."
TALK = (
    (("Hi", "Hello", "Hello!", "Hi there", "Hey", "Good morning", "Good evening!", "hello"),
     ("Hello! I write short stories and Chinese poems. What shall I write about?",
      "Hello! Give me two or three words and I will write a story with them.")),
    (("Who are you?", "What are you?", "What is your name?", "Tell me about yourself.", "Which model are you?"),
     ("I am Helicon's small story model. " + LIMITS,
      "I am helicon-text, a very small language model. " + LIMITS)),
    (("What can you do?", "How can you help me?", "Help", "What do you know?"),
     ("I can write short stories for children in English and classical poems in Chinese. I do not know facts.",
      "I tell short stories and write Chinese poems. Try: Write a story about a kite and a dog.")),
    (("Thank you", "Thanks!", "Thank you very much.", "thanks"),
     ("You are welcome! Would you like another story?", "You are welcome!")),
    (("Goodbye", "Bye", "Good night"), ("Goodbye! Come back for another story.", "Good night! Sleep well.")),
    (("How are you?", "How are you today?"),
     ("I am a program, so I do not feel well or unwell. Shall I write a story for you?",)),
    (("What is the capital of France?", "Who is the president?", "What is 12 times 7?", "Solve this equation: 2x = 10",
      "What is the weather today?", "Explain how a computer works.", "Write a Python program.", "What time is it?",
      "Translate this sentence into German.", "What happened in 1969?"),
     ("I am sorry, I cannot answer that. " + LIMITS, "I do not know such things. " + LIMITS)),
    (("你好", "您好", "你好！", "嗨", "早上好"), ("你好！我会写古诗，也会用英文写小故事。想写什么？", "你好！给我一个题目，我来写一首诗。")),
    (("你是谁？", "你是谁", "你叫什么名字？", "介绍一下你自己"), ("我是 Helicon 的小模型，只会写古诗和英文小故事。",)),
    (("你会做什么？", "你能做什么", "帮助"), ("我会写绝句、律诗和词，也会用英文写小故事。我不懂事实知识。",)),
    (("谢谢", "谢谢你", "多谢！"), ("不客气！要再写一首吗？", "不客气！")),
    (("再见", "晚安"), ("再见！",)),
    (("今天天气怎么样？", "法国的首都是哪里？", "一加一等于几？", "现在几点了？"), ("抱歉，我不知道。我只会写古诗和英文小故事。",)),
)  # fmt: skip

PHRASE = re.compile(r"\b((?:a|an) (?:[a-z]+ ){0,2}[a-z]+)(?=[.,!?\"]| who | that | and | in the | on the )")
NAME = re.compile(r"\bnamed ([A-Z][a-z]+)")


def weighted_order(counts, draw):
    """The keys in an order drawn by the squares of their counts (Efraimidis and Spirakis 2006)."""
    return sorted(counts, key=lambda key: draw.random() ** (1 / counts[key] ** 2), reverse=True)


def chinese_texts():
    """Every wording of a request and answer, for the tokenizer's characters."""
    texts = []
    for value in list(globals().values()):
        if isinstance(value, (tuple, dict)):
            texts.append(repr(value))
    return texts


def listing(words, glue):
    if len(words) == 1:
        return words[0]
    return ", ".join(words[:-1]) + f" {glue} " + words[-1]


class Maker:
    """Makes turns of a chat whose answer is an item; knows which words are worth asking for."""

    def __init__(self, items):
        seen = collections.Counter()
        documents = 0
        for source in ("tinystories", "storybooks"):
            for entry in items[source]:
                seen.update(set(re.findall(r"\b[a-z]{3,}\b", entry["text"])))
                documents += 1
        most = documents * 0.12
        self.content = {word for word, count in seen.items() if 4 <= count <= most and word not in FUNCTION_WORDS}
        authors = collections.Counter(entry["author"] for source in ("tang", "song") for entry in items[source])
        self.authors = {name for name, count in authors.items() if count >= 150 and name not in ("不详", "无名氏", "佚名")}

    def turns(self, entry, draw, again=False):
        """[(role, content) …] ending with the assistant's answer, or None where the item cannot be asked for."""
        source = entry["source"]
        if source == "storybooks-zh":
            pair = self.chinese_story(entry, draw)
        elif entry["form"]:
            pair = (self.lyric if source == "ci" else self.poem)(entry, draw)
        elif source != "ebooks" or entry["title"]:
            pair = self.story(entry, draw)
        else:
            pair = self.go_on(entry, draw)
        if pair is None:
            return None
        request, answer = pair
        if again:
            request = draw.choice(AGAIN_POEM if entry["form"] else AGAIN).format(request)
            return [("user", request), ("assistant", answer)]
        turns = [("user", request), ("assistant", answer)]
        return [("system", draw.choice(SYSTEMS))] + turns if draw.random() < 0.1 else turns

    def story(self, entry, draw):
        text, title, kind = entry["text"], entry["title"], draw.random()
        if title and kind < 0.25:
            return draw.choice(CALLED).format(title), text
        if title and kind < 0.35:
            return draw.choice(NAME_IT).format(text[:600].rsplit(" ", 1)[0]), title
        if kind < 0.12 or (title and kind < 0.45):
            return self.go_on(entry, draw)
        if kind < 0.18:
            return draw.choice(ANY_STORY), text
        if kind < 0.23:
            name = NAME.search(text)
            if name:
                return draw.choice(NAMED).format(name.group(1)), text
        if kind < 0.6:
            counts = collections.Counter(re.findall(r"[a-z]+", text))
            phrases = {p: counts[p.split()[-1]] for p in PHRASE.findall(text) if p.split()[-1] in self.content}
            phrases = weighted_order(phrases, draw)[:3]
            if phrases and draw.random() < 0.3:
                phrases = [p.split()[-1] for p in phrases]
            if phrases:
                chosen = phrases[: draw.choice((1, 1, 2, 2, 3))]
                return draw.choice(ABOUT).format(listing(chosen, "and")), text
        counts = collections.Counter(re.findall(r"\b[a-z]{3,}\b", text))
        chosen = weighted_order({word: count for word, count in counts.items() if word in self.content}, draw)
        chosen = chosen[: draw.choice((2, 2, 3, 3, 3, 4))]
        if not chosen:
            return draw.choice(ANY_STORY), text
        if draw.random() < 0.25:
            chosen = [f'"{word}"' for word in chosen]
        return draw.choice(WITH_WORDS).format(listing(chosen, "and")), text

    def go_on(self, entry, draw):
        sentences = re.split(r"(?<=[.!?\"]) |\n", entry["text"][:1600])
        count = draw.choice((1, 1, 2, 2, 3))
        if len(sentences) < count + 3:
            return None
        end = 0
        for sentence in sentences[:count]:
            end += len(sentence) + 1
        rest = entry["text"][end:].strip()
        return draw.choice(CONTINUE).format(entry["text"][:end].strip()), rest

    def chinese_story(self, entry, draw):
        if entry["title"] and draw.random() < 0.6:
            return draw.choice(CHINESE_CALLED).format(entry["title"]), entry["text"]
        return draw.choice(CHINESE_STORY), entry["text"]

    def themes(self, entry):
        """Themes whose sign is in the title, or else in the text."""
        named = [theme for theme in THEMES if theme[0] in entry["title"]]
        return named or [theme for theme in THEMES if theme[0] in entry["text"]]

    def poem(self, entry, draw):
        text, title, kind = entry["text"], entry["title"], draw.random()
        form = draw.choice(FORM_NAMES[entry["form"]])
        if draw.random() < 0.12:
            form = "诗" if draw.random() < 0.7 else "古诗"
        if kind < 0.34 and 1 <= len(title) <= 14:
            return draw.choice(TITLED_POEM).format(form=form, title=title), text
        if kind < 0.64:
            themes = self.themes(entry)
            if themes:
                theme = draw.choice(themes)
                if kind > 0.59:
                    return draw.choice(ENGLISH_POEM).format(draw.choice(theme[2])), text
                return draw.choice(THEMED_POEM).format(form=form, theme=draw.choice(theme[1])), text
        lines = re.split(r"(?<=[，。！？])", text.replace("\n", ""))
        if kind < 0.78:
            return draw.choice(OPENED_POEM).format(form=form, line=lines[0].rstrip("，。！？")), text
        if kind < 0.84 and "\n" in text:
            first, rest = text.split("\n", 1)
            return draw.choice(CONTINUED_POEM).format(form=form, line=first), rest
        if kind < 0.87 and 1 <= len(title) <= 14 and len(text) < 80:
            return draw.choice(NAME_POEM).format(poem=text), f"《{title}》"
        if kind < 0.92 and entry["author"] in self.authors:
            return draw.choice(STYLED_POEM).format(author=entry["author"], form=form), text
        if kind < 0.935:
            return draw.choice(("Write a poem.", "Write a Chinese poem.", "A poem, please.", "write a poem")), text
        return draw.choice(FORM_POEM).format(form=form), text

    def lyric(self, entry, draw):
        text, tune, kind = entry["text"], entry["title"], draw.random()
        if not tune or kind < 0.08:
            return draw.choice(FORM_POEM).format(form="词"), text
        if kind < 0.3:
            themes = self.themes({"title": "", "text": text})
            if themes:
                theme = draw.choice(draw.choice(themes)[1])
                return draw.choice(TUNED_THEME).format(tune=tune, theme=theme), text
        if kind < 0.36 and "\n" in text:
            first, rest = text.split("\n", 1)
            return f"续写《{tune}》：{first}", rest
        return draw.choice(TUNED).format(tune=tune), text
