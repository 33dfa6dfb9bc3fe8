"""The tokenizer: byte-level BPE over normalised questions and verbatim answers.

Questions are folded (lower case, everything but letters and digits becomes a space) by the
normalizer inside ``tokenizer.json``, so ``X-AI-Max-Latency?`` and ``x ai max latency`` are the same
question. Answers are encoded without it: case and punctuation of names must come back exactly.
"""

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

PAD, BOS, USER, ASSISTANT, END = "<|pad|>", "<|bos|>", "<|user|>", "<|assistant|>", "<|end|>"
SPECIAL = (PAD, BOS, USER, ASSISTANT, END)
# A word may hold inner dots, dashes, slashes and underscores, so that a header name or a config key
# is few tokens; a full stop or comma after it stays a token of its own.
WORD = r" ?[\w]+(?:[-._/:]+[\w]+)*| ?[^\s\w]+|\s+"


def question_normalizer() -> normalizers.Normalizer:
    """Return the folding of questions: NFKC, lower case, other signs to single spaces, trimmed."""
    return normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"[^\p{L}\p{N}]+"), " "),
            normalizers.Strip(),
            normalizers.Prepend(" "),
        ]
    )


def train_tokenizer(questions: Iterable[str], answers: Iterable[str], size: int) -> Tokenizer:
    """Return a tokenizer of ``size`` entries whose normalizer folds questions."""
    fold = question_normalizer()
    texts = [fold.normalize_str(question) for question in questions]
    # Answers count more: they are generated token by token, questions are read in one step.
    texts += [answer for answer in answers for _ in range(12)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.normalizer = fold
    return tokenizer


def without_normalizer(tokenizer: Tokenizer) -> Tokenizer:
    """Return a copy that encodes text verbatim: the one answers are trained with."""
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.normalizer = normalizers.Sequence([])
    return copy
