"""What Hugging Face `tokenizers` makes of generated text, with the vocabulary of a GGUF file.

Usage: huggingface.py MODEL COUNT STRINGS IDS
Writes COUNT strings or more, the same in every run, to STRINGS (a JSON string a line) and their ids to IDS (a JSON array a
line). The tokenizer is that of Qwen2 and Qwen3 as their `tokenizer.json` describes it, except for its first step: no NFC
normalisation, which GGUF files do not describe and no engine that runs them does. On text in NFC, which is most text, that
step changes nothing; the script makes sure of it for a part of these strings.
"""

import json
import random
import struct
import sys

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CONTROL, USER_DEFINED = 3, 4


def metadata(path):
    """The key-value pairs of a GGUF file."""
    with open(path, "rb") as file:
        data = file.read()
    place = 4

    def number(kind):
        nonlocal place
        (value,) = struct.unpack_from("<" + kind, data, place)
        place += struct.calcsize(kind)
        return value

    def value(kind):
        nonlocal place
        if kind == 8:
            length = number("Q")
            place += length
            return data[place - length : place].decode()
        if kind == 9:
            kind, count = number("I"), number("Q")
            return [value(kind) for _ in range(count)]
        return number("BbHhIif?xxQqd"[kind])

    version, _, pairs = number("I"), number("Q"), number("Q")
    assert data[:4] == b"GGUF" and version == 3
    return {value(8): value(number("I")) for _ in range(pairs)}


def tokenizer(keys):
    """The tokenizer, and the texts of its added tokens."""
    tokens, kinds = keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"]
    vocabulary = {text: id for id, text in enumerate(tokens)}
    merges = [tuple(pair.split(" ")) for pair in keys["tokenizer.ggml.merges"]]
    made = Tokenizer(models.BPE(vocabulary, merges))
    split = pre_tokenizers.Split(Regex(WORDS), "isolated")
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.pre_tokenizer = pre_tokenizers.Sequence([split, letters])
    added = [text for text, kind in zip(tokens, kinds) if kind in (CONTROL, USER_DEFINED)]
    made.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in added])
    assert all(made.token_to_id(text) == vocabulary[text] for text in added)
    return made, added


SPACES = " \t\n\r\v\f\x1c\x85\xa0\u1680\u2003\u2009\u200b\u2028\u2029\u202f\u205f\u3000\ufeff"
CONTRACTIONS = ["'s", "'S", "'t", "'re", "'RE", "'ve", "'m", "'ll", "'lL", "'d", "'\u017f", "\u2019s", "''s", "'x"]
# First and last code points of scripts, digits and numbers of all categories, marks, symbols, private use.
RANGES = [
    (0x20, 0x7E), (0x00, 0xFF), (0x100, 0x24F), (0x250, 0x36F), (0x370, 0x52F), (0x531, 0x5F4), (0x600, 0x6FF),
    (0x700, 0x8FF), (0x900, 0xDFF), (0xE00, 0xFFF), (0x1000, 0x109F), (0x10A0, 0x11FF), (0x1200, 0x139F),
    (0x13A0, 0x177F), (0x1780, 0x17F9), (0x1800, 0x1CFF), (0x1D00, 0x1FFF), (0x2000, 0x20CF), (0x20D0, 0x20FF),
    (0x2100, 0x218F), (0x2190, 0x245F), (0x2460, 0x24FF), (0x2500, 0x2BFF), (0x2C00, 0x2E7F), (0x3000, 0x30FF),
    (0x3100, 0x33FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xA000, 0xABFF), (0xAC00, 0xD7FF), (0xE000, 0xF8FF),
    (0xF900, 0xFAFF), (0xFB00, 0xFDFF), (0xFE00, 0xFFFF), (0x10000, 0x107FF), (0x10800, 0x10FFF), (0x11000, 0x11FFF),
    (0x12000, 0x1342F), (0x16800, 0x1BFFF), (0x1D400, 0x1D7FF), (0x1E000, 0x1EFFF), (0x1F000, 0x1F8FF),
    (0x1FB00, 0x1FBFF), (0x20000, 0x323AF), (0xE0000, 0xE01EF), (0xF0000, 0x10FFFF),
]
EMOJI = ["\U0001f469\u200d\U0001f4bb", "\U0001f3f4\u200d\u2620\ufe0f", "\U0001f44d\U0001f3fd", "1\ufe0f\u20e3",
         "\U0001f1eb\U0001f1f7", "\u2764\ufe0f", "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466"]
PROSE = ("The quick brown fox doesn't jump; it's been 1,234.5 km since 2019-08-07. Größe, naïve café, \u0130stanbul, "
         "Привет, мир! Γειά σου Κόσμε. 你好,世界。こんにちは世界 한국어 문장입니다. مرحبا بالعالم שלום עולם नमस्ते दुनिया สวัสดีชาวโลก "
         "def f(x):\n    return x**2  # TODO\r\n\tif (a != b) { c->d += 0x1F; }\n\n\n<p>&amp;</p> https://a.b/c?d=e%20f")


def strings(count, added):
    """At least `count` different kinds of trouble, the same in every run."""
    chance = random.Random(3)

    def any_char():
        code = chance.randrange(0x110000 - 0x800)
        return chr(code if code < 0xD800 else code + 0x800)

    def of_range():
        return chr(chance.randint(*chance.choice(RANGES)))

    def script():
        first, last = chance.choice(RANGES)
        return "".join(chr(chance.randint(first, last)) for _ in range(chance.randint(1, 12)))

    def excerpt():
        start = chance.randrange(len(PROSE))
        return PROSE[start : start + chance.randint(1, 40)]

    def special():
        text = chance.choice(added)
        return text if chance.random() < 0.7 else text[: chance.randint(1, len(text))]

    pieces = [
        any_char,
        of_range,
        script,
        excerpt,
        special,
        lambda: chance.choice(SPACES) * chance.randint(1, 4),
        lambda: "".join(chance.choice(SPACES) for _ in range(chance.randint(1, 6))),
        lambda: chance.choice(CONTRACTIONS),
        lambda: chance.choice(EMOJI),
        lambda: chance.choice("aéAßxЖ我ก") + chr(chance.randint(0x300, 0x36F)) * chance.randint(1, 3),
        lambda: str(chance.randrange(10 ** chance.randint(1, 12))),
        lambda: "".join(chance.choice("0٣७²½Ⅷ〇೬𝟗𐄇ↈ") for _ in range(chance.randint(1, 5))),
        lambda: "".join(chance.choice(".,!?-_=+*/\\|<>@#$%^&(){}[]~`'\"") for _ in range(chance.randint(1, 8))),
        lambda: chance.choice("\n\r \tn'sA-_.é的🙂") * chance.randint(2, 12),
    ]
    # Every code point once, among its neighbours: a class that is wrong anywhere shows.
    for start in range(0, 0x110000, 16):
        if not 0xD800 <= start < 0xE000:
            yield "".join(f"a{chr(code)}1{chr(code)} " for code in range(start, start + 16))
    for piece in ["", *added, *SPACES, *CONTRACTIONS, *EMOJI, PROSE]:
        yield piece
    for character in " \n\ra1.'é的🙂\u0301":
        yield character * 3000
    for _ in range(count):
        yield "".join(chance.choice(pieces)() for _ in range(chance.randint(1, 8)))


def main(model, count, strings_path, ids_path):
    made, added = tokenizer(metadata(model))
    texts = list(strings(int(count), added))
    ids = [encoding.ids for encoding in made.encode_batch(texts, add_special_tokens=False)]

    nfc = normalizers.NFC()
    composed = [index for index, text in list(enumerate(texts))[::8] if nfc.normalize_str(text) == text]
    made.normalizer = nfc
    again = made.encode_batch([texts[index] for index in composed], add_special_tokens=False)
    assert all(encoding.ids == ids[index] for index, encoding in zip(composed, again))

    with open(strings_path, "w") as file:
        file.writelines(json.dumps(text) + "\n" for text in texts)
    with open(ids_path, "w") as file:
        file.writelines(json.dumps(line, separators=(",", ":")) + "\n" for line in ids)
    print(f"{len(texts)} strings; of {len(texts[::8])}, {len(composed)} are in NFC")


main(*sys.argv[1:])
