"""Scores that mteb does not have, or has with another definition."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence


def rank(scores: Mapping[str, float]) -> list[str]:
    """Return documents, the best first; equal scores are ordered by id, the last first, as in mteb and trec_eval."""
    return sorted(scores, key=lambda name: (scores[name], name), reverse=True)


def average_precision(ranking: Sequence[str], relevant: Collection[str], k: int) -> float:
    """Average precision of the first ``k`` documents, divided by what could be reached in them.

    CIRCO's AP@k (Baldrati et al. 2023, "Zero-Shot Composed Image Retrieval with Textual Inversion"): the precisions at
    the ranks of relevant documents are summed up and divided by min(k, number of relevant documents). trec_eval, and
    with it mteb's ``map_at_k``, divides by the number of relevant documents, which is lower where that exceeds k.

    Args:
        ranking: Documents, the best first.
        relevant: The relevant ones, at least one.
        k: How many ranks count.
    """
    hits, total = 0, 0.0
    for rank, name in enumerate(ranking[:k], 1):
        if name in relevant:
            hits += 1
            total += hits / rank
    return total / min(k, len(relevant))


def is_best(scores: Mapping[str, float], answer: str) -> bool:
    """Whether no document has a higher score than ``answer``; MMEB lists it first, so that it wins ties."""
    return answer in scores and scores[answer] >= max(scores.values())


def mean(values: Collection[float]) -> float:
    """Return the mean of at least one value."""
    return sum(values) / len(values)
