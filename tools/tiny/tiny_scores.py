"""How well the embedded model retrieves drawings that it was not trained on."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np

from st_modules.demo.drawings import draw
from st_modules.demo.scenes import Scene, has_unseen_pair, is_held_out, neighbours, random_scenes
from st_modules.demo.wording import caption, edit, paraphrase
from st_modules.model import SentenceTransformer

Items = list[dict[str, Any]]


@dataclass(frozen=True)
class Score:
    """One line of the table: how often the first answer is the right one."""

    name: str
    hits: np.ndarray
    gallery: int

    @property
    def rate(self) -> float:
        """R@1."""
        return float(self.hits.mean())


@dataclass(frozen=True)
class HeldOut:
    """Held-out scenes, half of them with a pair of attributes that training never showed together."""

    scenes: list[Scene]
    sources: list[Scene]

    @classmethod
    def choose(cls, n: int, seed: int) -> HeldOut:
        """Choose `n` scenes, and for each a scene that one change turns into it."""
        pool = random_scenes(seed, 8 * n, held_out=True)
        unseen = [scene for scene in pool if has_unseen_pair(scene)][: n // 2]
        other = [scene for scene in pool if not has_unseen_pair(scene)][: n - n // 2]
        assert len(unseen) + len(other) == n
        assert all(map(is_held_out, unseen + other))
        rng = random.Random(seed)
        return cls(unseen + other, [rng.choice(neighbours(scene)) for scene in unseen + other])


class Evaluation:
    """Scores of a model on held-out drawings.

    Args:
        model: The model.
        n: Number of held-out scenes, which is the number of queries of each score.
        seed: Chooses the scenes and their drawings.
    """

    def __init__(self, model: SentenceTransformer, n: int = 400, seed: int = 2026) -> None:
        self.model = model
        self.held_out = HeldOut.choose(n, seed)
        scenes = self.held_out.scenes
        rng = random.Random(seed)
        self.captions: Items = [{"text": caption(scene)} for scene in scenes]
        self.paraphrases: Items = [{"text": paraphrase(scene, rng)} for scene in scenes]
        self.queries: Items = [{"image": draw(scene, seed + 1)} for scene in scenes]
        self.right = np.arange(n)
        self.pictures = self._embed([{"image": draw(scene, seed)} for scene in scenes])
        self.texts = self._embed(self.captions)

    def scores(self) -> list[Score]:
        """Every score of the model card."""
        return [*self._text_and_picture(), *self._score_composed(), *self._score_mixed()]

    def _embed(self, items: Items, prompt: str | None = None) -> np.ndarray:
        return self.model.encode(items, prompt_name=prompt, batch_size=64, show_progress_bar=False)

    def _score(self, name: str, queries: np.ndarray, gallery: np.ndarray, offset: int = 0) -> Score:
        found = (queries @ gallery.T).argmax(axis=1)
        return Score(name, found == self.right + offset, len(gallery))

    def _text_and_picture(self) -> list[Score]:
        captions, own_words, queries = self.captions, self.paraphrases, self.queries
        return [
            self._score("text → image", self._embed(captions, "t2i"), self.pictures),
            self._score("text → image, no instruction", self._embed(captions), self.pictures),
            self._score("text → image, other words", self._embed(own_words, "t2i"), self.pictures),
            self._score("image → text", self._embed(queries, "i2t"), self.texts),
            self._score("image → text, no instruction", self._embed(queries), self.texts),
        ]

    def _score_composed(self) -> list[Score]:
        scenes, sources = self.held_out.scenes, self.held_out.sources
        others = list(dict.fromkeys(source for source in sources if source not in set(scenes)))
        gallery = np.concatenate([self.pictures, self._embed([{"image": draw(scene, 1)} for scene in others])])
        changes: Items = [{"text": edit(*pair)} for pair in zip(sources, scenes, strict=True)]
        images: Items = [{"image": draw(scene, 2)} for scene in sources]
        fused = [change | image for change, image in zip(changes, images, strict=True)]
        return [
            self._score("image + text → image", self._embed(fused, "it2i"), gallery),
            self._score("image + text → image, no instruction", self._embed(fused), gallery),
            self._score("the same, the query's image only", self._embed(images, "it2i"), gallery),
            self._score("the same, the query's text only", self._embed(changes, "it2i"), gallery),
        ]

    def _score_mixed(self) -> list[Score]:
        gallery = np.concatenate([self.pictures, self.texts])
        n = len(self.right)
        return [
            self._score("text → image among both kinds", self._embed(self.paraphrases, "t2i"), gallery),
            self._score("text → text among both kinds", self._embed(self.paraphrases, "t2t"), gallery, n),
            self._score("image → text among both kinds", self._embed(self.queries, "i2t"), gallery, n),
        ]


def table(scores: list[Score]) -> str:
    """The scores as a Markdown table; the last column counts only scenes with an unseen pair of attributes."""
    lines = ["| task | queries | gallery | R@1 | R@1, unseen pairs |", "|---|---|---|---|---|"]
    for score in scores:
        unseen = score.hits[: len(score.hits) // 2].mean()
        lines.append(f"| {score.name} | {len(score.hits)} | {score.gallery} | {score.rate:.3f} | {unseen:.3f} |")
    return "\n".join(lines)
