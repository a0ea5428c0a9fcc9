"""What scenes are called, and what to say to turn one into another."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from st_modules.demo.scenes import Scene, changed_attribute, neighbours

WORDS: dict[str, tuple[str, ...]] = {
    "circle": ("circle", "disc", "dot"),
    "square": ("square", "box"),
    "triangle": ("triangle",),
    "star": ("star",),
    "heart": ("heart",),
    "diamond": ("diamond", "rhombus"),
    "cross": ("cross", "plus sign"),
    "ring": ("ring", "hoop"),
    "moon": ("moon", "crescent"),
    "red": ("red",),
    "orange": ("orange",),
    "yellow": ("yellow",),
    "green": ("green",),
    "blue": ("blue",),
    "purple": ("purple", "violet"),
    "pink": ("pink",),
    "brown": ("brown",),
    "black": ("black",),
    "white": ("white",),
    "grey": ("grey", "gray"),
    "small": ("small", "little", "tiny"),
    "large": ("large", "big", "huge"),
    "1": ("a", "one", "1", "a single"),
    "2": ("two", "2", "a pair of"),
    "3": ("three", "3"),
    "center": ("in the center", "in the middle", "at the centre", "centered"),
    "left": ("on the left", "on the left side", "at the left"),
    "right": ("on the right", "on the right side", "at the right"),
    "top": ("at the top", "on top", "in the upper part"),
    "bottom": ("at the bottom", "on the bottom", "in the lower part"),
}
"""The ways to say each value of an attribute, the usual one first."""

Choose = Callable[[Sequence[str]], str]


def _first(words: Sequence[str]) -> str:
    return words[0]


def _plural(word: str) -> str:
    if word == "plus sign":
        return "plus signs"
    return word + ("es" if word.endswith(("s", "x")) else "s")


def _noun(scene: Scene, choose: Choose) -> str:
    word = choose(WORDS[scene.shape])
    return word if scene.count == 1 else _plural(word)


def _article(phrase: str) -> str:
    article, _, rest = phrase.partition(" ")
    return f"an {rest}" if article == "a" and rest[0] in "aeiou" else phrase


def caption(scene: Scene) -> str:
    """The plain description of a scene, with all of its attributes."""
    return _sentence(scene, _first)


def _sentence(scene: Scene, choose: Choose) -> str:
    count, size, colour = (choose(WORDS[str(v)]) for v in (scene.count, scene.size, scene.colour))
    what = _article(f"{count} {size} {colour} {_noun(scene, choose)}")
    return f"{what} {choose(WORDS[scene.position])} on a {choose(WORDS[scene.background])} background"


def _short(scene: Scene, choose: Choose) -> str:
    count = "" if scene.count == 1 else choose(WORDS[str(scene.count)]) + " "
    what = f"{count}{choose(WORDS[scene.size])} {choose(WORDS[scene.colour])} {_noun(scene, choose)}"
    return f"{what} on {choose(WORDS[scene.background])}, {choose(WORDS[scene.position])}"


def _list_words(scene: Scene, choose: Choose) -> str:
    count, size, colour = (choose(WORDS[str(v)]) for v in (scene.count, scene.size, scene.colour))
    background, position = choose(WORDS[scene.background]), choose(WORDS[scene.position])
    return f"{count} {colour} {_noun(scene, choose)}, {size}, {position}, {background} background"


def _background_first(scene: Scene, choose: Choose) -> str:
    count, size, colour = (choose(WORDS[str(v)]) for v in (scene.count, scene.size, scene.colour))
    what = _article(f"{count} {size} {colour} {_noun(scene, choose)}")
    return f"on a {choose(WORDS[scene.background])} background {choose(WORDS[scene.position])}: {what}"


def _told(scene: Scene, choose: Choose) -> str:
    verb = "is" if scene.count == 1 else "are"
    count, size, colour = (choose(WORDS[str(v)]) for v in (scene.count, scene.size, scene.colour))
    what = _article(f"{count} {size} {colour} {_noun(scene, choose)}")
    return f"{choose(WORDS[scene.position])} there {verb} {what}, the background is {choose(WORDS[scene.background])}"


_SENTENCES = (_sentence, _sentence, _short, _list_words, _background_first, _told)
_OPENINGS = ("", "", "", "", "a picture of ", "a drawing of ", "an image with ", "show me ", "i want to see ")


def paraphrase(scene: Scene, rng: random.Random) -> str:
    """The same description in other words, another order or another case."""
    sentence = rng.choice(_SENTENCES)
    text = sentence(scene, rng.choice)
    if sentence in (_sentence, _short):
        text = rng.choice(_OPENINGS) + text
    return _in_some_case(text, rng)


def partial_caption(scene: Scene, names: Sequence[str], rng: random.Random) -> str:
    """A description that tells the shape and the attributes in `names` and is silent about the others."""
    count = rng.choice(WORDS[str(scene.count)]) if "count" in names else ("some" if scene.count > 1 else "a")
    words = [count, *(rng.choice(WORDS[str(getattr(scene, n))]) for n in ("size", "colour") if n in names)]
    text = _article(" ".join([*words, _noun(scene, rng.choice)]))
    if count == "a" and rng.random() < 0.3:
        text = text.partition(" ")[2]
    if "position" in names:
        text += " " + rng.choice(WORDS[scene.position])
    if "background" in names:
        colour = rng.choice(WORDS[scene.background])
        text += " " + rng.choice((f"on a {colour} background", f"on {colour}"))
    return _in_some_case(text, rng)


def _in_some_case(text: str, rng: random.Random) -> str:
    roll = rng.random()
    if roll < 0.2:
        text = text[0].upper() + text[1:]
    elif roll < 0.22:
        text = text.upper()
    elif roll < 0.24:
        text = text.title()
    return text + "." if rng.random() < 0.15 else text


_EDITS: dict[str, tuple[str, ...]] = {
    "shape": ("as {a} {new}", "make it {a} {new}", "turn it into {a} {new}", "{a} {new} instead"),
    "colour": ("make it {new}", "in {new}", "paint it {new}", "change the color to {new}", "{new} instead"),
    "size": ("make it {new}", "{new} instead", "but {new}"),
    "position": ("move it to the {new}", "put it {at}", "now {at}"),
    "background": ("on a {new} background", "make the background {new}", "with a {new} background"),
}
_COUNT_EDITS = {
    1: ("just one of them", "only one", "a single one"),
    2: ("two of them", "make it two", "a pair of them"),
    3: ("three of them", "make it three", "now three"),
}


def edit(before: Scene, after: Scene, choose: Choose = _first) -> str:
    """What to say to turn a scene into one of its neighbours, as in "make it blue".

    Args:
        before: The scene that is changed.
        after: The scene that is wanted; it differs in one attribute.
        choose: Picks one of several wordings; the default takes the usual one, `rng.choice` any.
    """
    name = changed_attribute(before, after)
    if name == "count":
        return choose(_COUNT_EDITS[after.count])
    words = WORDS[str(getattr(after, name))]
    new = str(after.position) if name == "position" else choose(words)
    text = choose(_EDITS[name]).format(new=new, at=choose(words), a="a")
    if after.count > 1 and name == "shape":
        text = text.replace(f"a {new}", _plural(new))
    return text if before.count == 1 else text.replace(" it ", " them ")


def edits(scene: Scene) -> list[tuple[str, Scene]]:
    """Every single change of a scene: what to say, and the scene that it leads to."""
    return [(edit(scene, other), other) for other in neighbours(scene)]
