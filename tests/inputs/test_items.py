"""What a caller may pass as one item, and what is refused with which advice."""

import base64
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from st_modules.errors import ImageError, InputError
from st_modules.inputs.items import Item, check_text, parse_items
from st_modules.inputs.limits import ImageLimits


def png(width: int, height: int = 1) -> bytes:
    """Images are told apart by their width."""
    stream = io.BytesIO()
    Image.new("RGB", (width, height)).save(stream, "PNG")
    return stream.getvalue()


def data_uri(width: int) -> str:
    return "data:image/png;base64," + base64.b64encode(png(width)).decode()


def parsed(value: object) -> Item:
    return parse_items([value])[0]


def seen(value: object) -> tuple[str | None, list[int], str | None]:
    """An item as its text, the widths of its images, and its instruction."""
    item = parsed(value)
    return item.text, [image.size[0] for image in item.images], item.instruction


def user(*parts: object) -> dict[str, object]:
    return {"role": "user", "content": list(parts)}


TEXT = {"type": "text", "text": "a"}


# Strings


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "a red car",
        "missing.png",
        "see https://example.org/a.png",
        "https://example.org/page",
        "https://[broken/a.png",
        "file:///etc/hostname",
        "clip.mp4",
        "<|image_pad|>",
        "\0.png",
    ],
)
def test_a_string_that_names_no_image_is_text(text: str) -> None:
    assert seen(text) == (text, [], None)


def test_a_string_that_is_the_path_of_an_image_is_an_image(tmp_path: Path) -> None:
    (tmp_path / "a.PNG").write_bytes(png(3))
    assert seen(str(tmp_path / "a.PNG")) == (None, [3], None)


def test_a_data_uri_is_an_image() -> None:
    assert seen(data_uri(4)) == (None, [4], None)


@pytest.mark.parametrize("url", ["https://example.org/a.png", "http://example.org/A.JPG?size=large"])
def test_the_url_of_an_image_file_is_an_image_and_is_not_fetched_yet(url: str) -> None:
    item = parsed(url)
    assert (item.text, len(item.images)) == (None, 1)


def test_the_text_of_a_dict_is_never_an_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(3))
    texts = [str(tmp_path / "a.png"), "https://example.org/a.png", data_uri(4)]
    assert [item.text for item in parse_items([{"text": text} for text in texts])] == texts


# Dicts and bare images


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"text": "a"}, ("a", [], None)),
        ({"text": ""}, ("", [], None)),
        ({"image": png(5)}, (None, [5], None)),
        ({"text": "a", "image": data_uri(5)}, ("a", [5], None)),
        ({"text": "a", "image": None}, ("a", [], None)),
        ({"text": None, "image": png(5)}, (None, [5], None)),
        ({"text": "a", "image": []}, ("a", [], None)),
        ({"image": [png(5), Image.new("L", (6, 1)), data_uri(7)]}, (None, [5, 6, 7], None)),
        ({"image": (png(5), png(5))}, (None, [5, 5], None)),
        (png(5), (None, [5], None)),
        (bytearray(png(5)), (None, [5], None)),
        (io.BytesIO(png(5)), (None, [5], None)),
        (Image.new("RGB", (5, 1)), (None, [5], None)),
        (np.zeros((1, 5, 3), np.uint8), (None, [5], None)),
    ],
)
def test_dicts_and_images(value: object, expected: object) -> None:
    assert seen(value) == expected


def test_a_path_object_is_an_image_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "picture").write_bytes(png(8))
    assert seen(tmp_path / "picture") == (None, [8], None)


def test_a_path_string_in_a_dict_is_an_image_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "picture").write_bytes(png(8))
    assert seen({"image": str(tmp_path / "picture")}) == (None, [8], None)


# Messages


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ({"role": "user", "content": "a"}, ("a", [], None)),
        ([{"role": "user", "content": "a"}], ("a", [], None)),
        ([{"role": "system", "content": "s"}, {"role": "user", "content": "a"}], ("a", [], "s")),
        ([{"role": "system", "content": ""}, {"role": "user", "content": "a"}], ("a", [], "")),
        ([{"role": "system", "content": [TEXT, TEXT]}, user(TEXT)], ("a", [], "a\na")),
        (user(TEXT, {"type": "text", "text": "b"}), ("a\nb", [], None)),
        (user({"type": "image", "image": png(2)}, TEXT, {"type": "image", "image": png(3)}), ("a", [2, 3], None)),
        (user({"type": "image", "image": Image.new("RGB", (4, 4))}), (None, [4], None)),
        (user({"type": "image", "url": data_uri(2)}), (None, [2], None)),
        (user({"type": "image", "base64": base64.b64encode(png(6)).decode()}), (None, [6], None)),
        (user({"type": "image", "base64": data_uri(6)}), (None, [6], None)),
        (user({"type": "image_url", "image_url": data_uri(7)}), (None, [7], None)),
        (user({"type": "image_url", "image_url": {"url": data_uri(7), "detail": "auto"}}), (None, [7], None)),
        (user({"type": "text", "text": "a", "image": None}), ("a", [], None)),
        (user({"type": "text", "text": "https://example.org/a.png"}), ("https://example.org/a.png", [], None)),
    ],
)
def test_messages(messages: object, expected: object) -> None:
    assert seen(messages) == expected


def test_the_path_of_an_image_part_is_a_path_even_when_it_looks_like_a_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("http:/example.org").mkdir(parents=True)
    Path("http:/example.org/a.png").write_bytes(png(9))
    assert seen(user({"type": "image", "path": "http://example.org/a.png"})) == (None, [9], None)


# Lists of items


def test_items_are_numbered_in_order() -> None:
    items = parse_items(["a", {"text": "b"}, png(3), user(TEXT)])
    assert [(item.index, item.text) for item in items] == [(0, "a"), (1, "b"), (2, None), (3, "a")]


def test_an_item_passes_through_unchanged() -> None:
    item = Item("a", (), "s", 17)
    assert parse_items(["x", item])[1] is item


def test_no_inputs_are_no_items() -> None:
    assert parse_items([]) == []


def test_the_limits_reach_every_image() -> None:
    limits = ImageLimits(max_pixels=3)
    items = parse_items([png(1), {"image": [png(1), png(1)]}, user({"type": "image", "image": png(1)})], limits)
    assert [image.limits for item in items for image in item.images] == [limits] * 4


def test_items_can_be_pickled() -> None:
    item = pickle.loads(pickle.dumps(parsed({"text": "a", "image": Image.new("RGB", (3, 2))})))
    assert (item.text, item.index, item.images[0].load().size) == ("a", 0, (3, 2))


# Errors


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        (None, "None has nothing to embed; leave it out"),
        ({}, "it has neither text nor image"),
        ({"text": None}, "it has neither text nor image"),
        ({"text": None, "image": []}, "it has neither text nor image"),
        ({"txt": "a", "img": "b"}, "unknown keys ['img', 'txt']; known are ['image', 'text']"),
        ({"text": "a", "instruction": "b"}, "unknown keys ['instruction']"),
        ({"text": "a", 3: "b"}, "unknown keys ['3']"),
        ({"text": 3}, '"text": of type int; pass a string'),
        ({"text": ["a"]}, '"text": of type list; pass a string'),
        ({"image": 3}, "object of type int: not an image; pass a path"),
        ({"image": ""}, "an empty string names no image"),
        (3, "the number 3; pass a text as str"),
        (b"", "zero bytes"),
        (("a", "b"), "a tuple of 2 is not one item; encode each by itself"),
        (["a", "b"], "a list of 2 is not one item"),
        ([png(1), png(2)], "a list of 2 is not one item"),
        ([], "a list of 0 is not one item"),
        ([{"text": "a"}], "unknown keys ['text']; known are ['content', 'role']"),
        ([user(TEXT), user(TEXT)], "the roles ['user', 'user'] are not one item; pass one user message"),
        ([user(TEXT), {"role": "assistant", "content": "b"}], "the roles ['user', 'assistant']"),
        ([user(TEXT), {"role": "system", "content": "b"}], "the roles ['user', 'system']"),
        ([{"role": "system", "content": "b"}], "the roles ['system']"),
        ({"role": "assistant", "content": "b"}, "the roles ['assistant']"),
        ({"content": "b"}, "the roles [None]"),
        ({"role": "user"}, '"content" is of type NoneType; pass a string or a list of parts'),
        ({"role": "user", "content": png(1)}, '"content" is of type bytes'),
        ({"role": "user", "content": "a", "name": "b"}, "unknown keys ['name']"),
        ({"role": "user", "content": []}, "it has neither text nor image"),
        (user("a"), "user message, part 0: of type str; pass"),
        (user(TEXT, {"type": "audio", "audio": "a.mp3"}), "part 1: the type 'audio' cannot be embedded; known are"),
        (user({"text": "a"}), "the type None cannot be embedded"),
        (user({"type": "text"}), "part 0: needs exactly one of ['text'], and has []"),
        (user({"type": "text", "text": 3}), "part 0: of type int; pass a string"),
        (user({"type": "text", "content": "a"}), "part 0: unknown keys ['content']; known are ['text']"),
        (user({"type": "image"}), "needs exactly one of ['base64', 'image', 'path', 'url'], and has []"),
        (user({"type": "image", "path": "a", "url": "b"}), "and has ['path', 'url']"),
        (user({"type": "image", "path": png(1)}), "part 0: of type bytes; pass a string"),
        (user({"type": "image", "base64": png(1)}), "part 0: of type bytes; pass a string"),
        (user({"type": "image_url", "image_url": {}}), "part 0: of type NoneType; pass a string"),
        (user({"type": "image_url", "url": "a"}), "unknown keys ['url']"),
        ([{"role": "system", "content": [{"type": "image", "image": png(1)}]}, user(TEXT)], "an instruction is a text"),
        (
            [{"role": "system", "content": [TEXT, {"type": "image", "image": png(1)}]}, user(TEXT)],
            "move images to the user message",
        ),
        ([{"role": "system", "content": []}, user(TEXT)], "an instruction is a text and nothing else"),
    ],
)
def test_what_is_no_item_is_refused_with_its_index(value: object, advice: str) -> None:
    with pytest.raises(InputError) as caught:
        seen_at_two(value)
    assert str(caught.value).startswith("item 2")
    assert advice in str(caught.value)


HOLDS_ITSELF: list[Any] = []
HOLDS_ITSELF.append(HOLDS_ITSELF)


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        ({"text": "a", "x" * 100_000: "b"}, "unknown keys ['xxx"),
        ({f"key {number}": "b" for number in range(100_000)}, "unknown keys ['key 0', 'key 1'"),
        ({"text": "a", 10**100_000: "b"}, "unknown keys"),
        (user({"type": "x" * 100_000}), "the type 'xxx"),
        (user({"type": HOLDS_ITSELF}), "the type [[[[[[[...]]]]]]] cannot be embedded"),
        ([user(TEXT)] * 100_000, "messages with the roles ['user', 'user', 'user'"),
        (10**100_000, "the number a number of 332193 bits; pass a text as str"),
        (HOLDS_ITSELF, "a list of 1 is not one item"),
        ({"text": HOLDS_ITSELF}, "of type list; pass a string"),
    ],
    ids=range(9),
)
def test_a_message_is_short_whatever_was_passed(value: object, advice: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_items([value])
    assert advice in str(caught.value)
    assert len(str(caught.value)) < 400


def seen_at_two(value: object) -> None:
    """Parse the value as the third item, and read its images."""
    for image in parse_items(["a", "b", value])[2].images:
        image.load()


def test_an_image_of_several_is_named_by_its_number() -> None:
    item = parse_items([{"image": [png(1), png(2)[:30]]}])[0]
    assert item.images[0].load().size == (1, 1)
    with pytest.raises(ImageError, match="^item 0, image 1: 30 bytes: damaged"):
        item.images[1].load()


def test_a_list_with_none_among_its_images_is_refused() -> None:
    with pytest.raises(ImageError, match="^item 0, image 1: object of type NoneType: not an image"):
        parse_items([{"image": [png(1), None]}])


def test_an_only_image_is_named_by_its_item_alone() -> None:
    assert [str(source.place) for source in parsed({"image": png(1)}).images] == ["item 0"]


# Text that no tokenizer can read


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ("ab\ud83d", "item 1: character 2 of the text"),
        ({"text": "\udc80"}, "item 1: character 0 of the text"),
        (user({"type": "text", "text": "x\ud800y"}), "item 1: character 1 of the text"),
        ([{"role": "system", "content": "\ud800"}, user(TEXT)], "item 1, system message: character 0"),
    ],
)
def test_a_lone_surrogate_is_refused_with_its_place(value: object, where: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_items(["a", value])
    assert str(caught.value).startswith(where)
    assert 'text.encode("utf-8", "replace")' in str(caught.value)


def test_the_advice_for_a_lone_surrogate_helps() -> None:
    assert parsed("ab\ud83d".encode("utf-8", "replace").decode("utf-8")).text == "ab?"


@pytest.mark.parametrize("text", ["", "naïve", "\U0001f600", "\0", "\uffff", "\U0010ffff", "a" * 100_000])
def test_any_other_text_is_fine(text: str) -> None:
    check_text(text, "the prompt")
    assert parsed(text).text == text


def test_check_text_says_whose_text_it_is() -> None:
    with pytest.raises(InputError, match="^the prompt: character 3"):
        check_text("abc\udfff", "the prompt")


def test_an_input_error_can_be_pickled() -> None:
    with pytest.raises(InputError) as caught:
        parse_items([{}])
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
