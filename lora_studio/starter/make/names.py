"""Which icons are used, and what they are called.

An icon set maps a name such as `sun-behind-cloud` to an SVG. This module decides which names stay, gives the
same subject the same name in every set, adds the plain words people type ("car" for `automobile`), and writes
captions. Only the standard library is needed.
"""

from __future__ import annotations

import random
import re

STYLES = {
    "fluent-emoji-flat": "flat",
    "fluent-emoji": "glossy",
    "twemoji": "simple",
    "noto": "shaded",
    "noto-v1": "classic",
    "emojione": "cartoon",
}
"""Icon set -> the word that names its style in a caption."""

HELD_OUT_SETS = ("fluent-emoji-high-contrast", "fxemoji")
"""Sets that nothing here is ever trained on."""

COMMON = ("apple", "cat", "house", "car", "tree", "heart", "fish", "ghost", "sun", "cup", "flower", "rocket")
"""One-word prompts that must work; they stay in training in every style and out of the sample folders."""

BACKGROUNDS = {
    "red": (208, 62, 56), "orange": (240, 150, 60), "yellow": (248, 215, 90), "green": (96, 170, 90),
    "blue": (70, 120, 200), "light blue": (165, 210, 240), "navy": (28, 44, 92), "purple": (130, 90, 170),
    "pink": (245, 175, 200), "brown": (130, 92, 66), "gray": (140, 140, 145), "black": (18, 18, 22),
    "beige": (236, 222, 196), "teal": (50, 150, 150),
}  # fmt: skip
"""Background word -> its sRGB colour, 0 to 255."""

_LEFT_OUT = re.compile(
    r"skin-tone|tone\d|-(?:medium-)?(?:light|dark)$|-medium$|(?:^|-)flags?(?:-|$)|keycap|letter|regional|button"
    r"|squared|circled|latin|digit|ideograph|couple-with|(?:^|-)kiss$|kiss-|family|^(?:wo)?men?-with-b"
    r"|^(?:man|woman|men|women)-|-thirty$|oclock$|-\d\d$|holding-hands|^deaf|-haired$|^bald$"
    r"|^person-(?:red|white|blonde?|curly)"
    r"|^japanese-(?:open|free|reserved|acceptable|service|no-|not-|monthly|passing|discount|application|secret)"
    r"|^japanese-prohibited"
    r"|^\d$|facing-right$|^(?:up|down|left|right|soon|back|end|top|on)-.*arrow|sign$|^input-|on-exclamation"
    r"|^(?:asterisk|pound|pound-symbol|infinity|hollow-red-circle|wavy-dash|part-alternation-mark|cracking-face)$"
)

_SAME = {
    "laptop-computer": "laptop", "blackbird": "black-bird", "phoenix-bird": "phoenix", "piñata": "pinata",
    "pistol": "water-pistol", "left-pointing-magnifying-glass": "magnifying-glass-tilted-left",
    "right-pointing-magnifying-glass": "magnifying-glass-tilted-right", "bride-with-veil": "person-with-veil",
    "face-savouring-delicious-food": "face-savoring-food", "adult": "person", "older-adult": "older-person",
    "bearded-person": "person-beard", "direct-hit": "bullseye", "robot-face": "robot",
    "heavy-check-mark": "check-mark", "heavy-multiplication-x": "multiply",
    "white-heavy-check-mark": "check-mark", "enraged-face": "pouting-face",
}  # fmt: skip

_ALIASES = {
    "red-apple": "apple|apple", "automobile": "car|car", "hot-beverage": "cup|cup|cup of coffee|coffee",
    "teacup-without-handle": "cup of tea|teacup", "red-heart": "heart|heart", "deciduous-tree": "tree|tree",
    "evergreen-tree": "pine tree|fir tree", "blossom": "flower|flower|yellow flower",
    "cherry-blossom": "pink flower|cherry blossom", "hibiscus": "hibiscus|red flower|flower",
    "cat-face": "cat head|cat",
    "dog-face": "dog head|dog", "sun-with-face": "smiling sun", "doughnut": "donut", "airplane": "plane|aeroplane",
    "sailboat": "boat|sailing boat", "gem-stone": "gem|diamond|jewel", "hamburger": "burger", "open-book": "book",
    "closed-book": "red book|book", "locked": "lock|padlock", "unlocked": "open lock", "soccer-ball": "football|ball",
    "wrapped-gift": "gift|present|gift box", "jack-o-lantern": "pumpkin|halloween pumpkin", "light-bulb": "bulb|lamp",
    "pile-of-poo": "poo", "bicycle": "bike", "motorcycle": "motorbike", "delivery-truck": "truck|lorry|van",
    "mobile-phone": "phone|smartphone", "telephone": "phone", "laptop": "computer|laptop computer",
    "desktop-computer": "computer", "television": "tv", "wine-glass": "glass of wine|wine", "beer-mug": "beer",
    "birthday-cake": "cake", "shortcake": "slice of cake|cake slice", "french-fries": "fries|chips",
    "soft-ice-cream": "ice cream cone|ice cream", "honeybee": "bee", "lady-beetle": "ladybug|ladybird",
    "spouting-whale": "whale", "two-hump-camel": "camel", "snow-capped-mountain": "mountain|snowy mountain",
    "potted-plant": "plant|house plant", "four-leaf-clover": "clover", "mushroom": "toadstool|red mushroom",
    "fire": "flame", "droplet": "drop|water drop", "crescent-moon": "moon", "high-voltage": "lightning|lightning bolt",
    "game-die": "dice|die", "musical-note": "music|note", "musical-notes": "music|notes", "hourglass-done": "hourglass",
    "alarm-clock": "clock", "wrench": "spanner", "magnifying-glass-tilted-left": "magnifying glass",
    "magnifying-glass-tilted-right": "magnifying glass", "shopping-cart": "cart", "t-shirt": "shirt",
    "running-shoe": "shoe|sneaker", "billed-cap": "cap|baseball cap", "top-hat": "hat", "grinning-face": "happy face",
    "alien-monster": "space invader|pixel alien", "video-game": "game controller|gamepad", "baby-chick": "chick",
    "rabbit": "bunny|hare", "ox": "bull", "ewe": "sheep", "rooster": "cock", "carp-streamer": "fish flag",
    "globe-showing-europe-africa": "globe|earth|world", "globe-showing-americas": "globe|earth|world",
    "globe-showing-asia-australia": "globe|earth", "ringed-planet": "planet|saturn", "camera-with-flash": "camera",
    "couch-and-lamp": "couch|sofa", "cooked-rice": "rice|bowl of rice", "spaghetti": "pasta|noodles",
    "money-bag": "money|bag of money", "ear-of-corn": "corn|maize", "hot-pepper": "chilli|red pepper",
    "baguette-bread": "baguette", "cheese-wedge": "cheese", "meat-on-bone": "meat", "poultry-leg": "chicken leg",
    "fried-shrimp": "prawn", "closed-umbrella": "umbrella", "umbrella-with-rain-drops": "umbrella in the rain",
    "open-file-folder": "folder", "file-folder": "folder", "pencil": "pencil", "fountain-pen": "pen|ink pen",
    "artist-palette": "palette|paint palette", "headphone": "headphones", "racing-car": "race car",
    "steaming-bowl": "soup|bowl of soup", "wastebasket": "bin|trash can", "floppy-disk": "disk", "bed": "bed",
    "crossed-swords": "swords", "bow-and-arrow": "bow|archery", "santa-claus": "santa",
    "snowman-without-snow": "snowman",
    "horse-face": "horse head", "cow-face": "cow head", "pig-face": "pig head", "tiger-face": "tiger head",
    "rabbit-face": "rabbit head", "mouse-face": "mouse head", "monkey-face": "monkey head",
    "dragon-face": "dragon head",
    "clown-face": "clown", "sport-utility-vehicle": "jeep|big car", "oncoming-automobile": "car from the front",
    "house-with-garden": "house with a garden|cottage", "classical-building": "temple|museum", "ship": "ocean liner",
    "passenger-ship": "cruise ship|ferry", "speedboat": "motorboat", "spider-web": "cobweb", "electric-plug": "plug",
    "old-key": "antique key", "mantelpiece-clock": "clock|antique clock", "envelope": "letter|mail",
    "tumbler-glass": "glass",
    "glass-of-milk": "milk", "herb": "leaves|plant", "seedling": "sprout|young plant", "maple-leaf": "leaf|red leaf",
    "fallen-leaf": "brown leaf|autumn leaf", "cut-of-meat": "steak", "t-rex": "dinosaur|tyrannosaurus",
    "sauropod": "dinosaur|brontosaurus", "flying-saucer": "ufo|spaceship", "water-pistol": "toy gun|pistol",
    "wood": "log", "bullseye": "target|dartboard", "boxing-glove": "glove", "chess-pawn": "pawn|chess piece",
    "puzzle-piece": "jigsaw piece", "teddy-bear": "toy bear", "hatching-chick": "chick in an egg",
    "shooting-star": "falling star", "glowing-star": "bright star", "rescue-workers-helmet": "helmet",
    "construction-worker": "builder", "police-officer": "policeman", "military-medal": "medal",
    "sports-medal": "medal|gold medal",
}  # fmt: skip

_MINOR = re.compile(
    r"(?<!cat-)(?<!dog-)(?<!sun-with-)face|person|people|hand|finger|arrow|(?:square|circle|diamond)$|mark$|symbol"
    r"|no-|baby-angel|worker|moon$|speaker|worried|index-pointing|fist|^(?:aries|taurus|gemini|cancer|leo|virgo|libra"
    r"|scorpio|sagittarius|capricorn|aquarius|pisces|ophiuchus)$|cross$|wheelchair|restroom|room$|banknote|gesture"
)


def canonical(icon: str) -> str | None:
    """The subject that `icon` shows, or None where the icon is left out."""
    if re.search(r"\btone|skin", icon) or _LEFT_OUT.search(icon):
        return None
    if match := re.fullmatch(r"(bear|frog|hamster|lion|panda|unicorn)-face", icon):
        return match[1]
    icon = re.sub(r"^(.*)cat-face(-.+)$", r"\1cat\2", icon)
    icon = re.sub(r"^(crying|pouting|weary|kissing|grinning)-cat-face$", r"\1-cat", icon)
    return _SAME.get(icon, icon)


def words(subject: str) -> list[str]:
    """What to call a subject: its own name (with weight), then the plain words for it."""
    own = subject.replace("-", " ")
    others = _ALIASES.get(subject, "").split("|") if subject in _ALIASES else []
    return [own] * max(2, len(others)) + others


def prominence(subject: str) -> float:
    """How often a subject is drawn in training: signs and faces half as often, the common dozen twice."""
    if set(_ALIASES.get(subject, subject).split("|")) & set(COMMON):
        return 2.0
    return 0.5 if _MINOR.search(subject) else 1.0


def caption(subject: str, style: str, background: str | None, draw: random.Random) -> str:
    """One caption for an icon: its name, mostly its style, and its background where that is not white."""
    noun = draw.choice(words(subject))
    article = "an" if noun[0] in "aeiou" else "a"
    form = draw.choice(
        ["{n}, {s} style"] * 5
        + ["{a} {n}, {s} style"] * 2
        + ["{s} style icon of {a} {n}", "{n} in {s} style"]
        + ["{n}"] * 2
        + ["{a} {n}"]
    )
    text = form.format(n=noun, a=article, s=style)
    if background and background != "white":
        head, comma, tail = text.partition(",")
        where = f"on {'an' if background[0] in 'aeiou' else 'a'} {background} background"
        text = (
            f"{head} {where}{comma}{tail}"
            if draw.random() < 0.5
            else f"{text}, {where[3:]}"
            if draw.random() < 0.3
            else f"{text} {where}"
        )
    return text
