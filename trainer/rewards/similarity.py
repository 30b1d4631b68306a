"""Text similarity, from 0 to 1, by the libraries made for it. Runs in the pool's processes only."""

import re

from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from nltk.translate.gleu_score import sentence_gleu
from rapidfuzz import fuzz
from rouge_score import rouge_scorer

_TOKEN = re.compile(r"\w+|[^\w\s]")


def similarity(metric: str, text: str, reference: str) -> float:
    """`metric` as in TextSimilarityGrader. Two empty texts are alike; an empty and another one are not."""
    if not text.strip() or not reference.strip():
        return float(text.strip() == reference.strip())
    if metric == "fuzzy_match":
        return float(fuzz.ratio(text, reference)) / 100
    if metric.startswith("rouge"):
        return _rouge(metric, text, reference)
    tokens, expected = _TOKEN.findall(text.lower()), _TOKEN.findall(reference.lower())
    if metric == "gleu":
        return float(sentence_gleu([expected], tokens))
    # Method 1 adds 0.1 to a count of 0: a short text without a common run of four words is not 0 for that alone.
    return float(sentence_bleu([expected], tokens, smoothing_function=SmoothingFunction().method1))


def _rouge(metric: str, text: str, reference: str) -> float:
    """The F-measure; rouge_l is over the longest common subsequence."""
    name = "rougeL" if metric == "rouge_l" else metric.replace("_", "")
    return float(rouge_scorer.RougeScorer([name], use_stemmer=False).score(reference, text)[name].fmeasure)
