"""How questions are put: templates a group, openers and endings, slips of the keyboard.

``TEMPLATES[group]`` is ``(trained, held_out)``. A held-out template is never used for training, so
accuracy on it says how the model takes a wording it has not seen.
"""

import random
from collections.abc import Callable
from typing import Final

Templates = tuple[tuple[str, ...], tuple[str, ...]]

TEMPLATES: Final[dict[str, Templates]] = {
    "about": (
        (
            "what does {s} do",
            "what is {s}",
            "explain {s}",
            "{s}",
            "tell me about {s}",
            "what is {s} for",
            "describe {s}",
            "meaning of {s}",
            "what does {s} mean",
            "how does {s} work",
            "what is the purpose of {s}",
            "when do i use {s}",
            "i want to know about {s}",
            "why would i use {s}",
            "purpose of {s}",
            "what is {s} used for",
            "can you tell me what {s} does",
            "what do i use {s} for",
        ),
        (
            "what role does {s} play",
            "could you explain what {s} does",
            "give me an explanation of {s}",
        ),
    ),
    "values": (
        (
            "which values does {s} take",
            "what values does {s} accept",
            "values of {s}",
            "allowed values of {s}",
            "what can i put in {s}",
            "possible values for {s}",
            "valid values of {s}",
            "example of {s}",
            "format of {s}",
            "what is the format of {s}",
            "how do i write {s}",
            "what may {s} contain",
            "{s} values",
            "{s} example",
            "show an example of {s}",
            "what are the possible values of {s}",
        ),
        (
            "which values are allowed for {s}",
            "what options does {s} have",
            "give me an example value for {s}",
        ),
    ),
    "header_default": (
        (
            "what is the default of {s}",
            "default of {s}",
            "{s} default",
            "is {s} required",
            "is {s} optional",
            "what if i leave out {s}",
            "default value of {s}",
            "do i have to send {s}",
            "what happens without {s}",
            "must i send {s}",
            "is {s} needed",
            "do i have to set {s}",
            "need i set {s}",
        ),
        ("what is the default value of {s}", "does {s} have a default", "do i need {s}"),
    ),
    "header_source": (
        (
            "where does {s} come from",
            "where is {s} defined",
            "source of {s}",
            "which section defines {s}",
            "which document defines {s}",
            "clause of {s}",
            "{s} source",
            "in which part of the draft is {s}",
            "reference for {s}",
        ),
        ("where is {s} specified", "which clause is {s} from"),
    ),
    "header_direction": (
        (
            "is {s} a request or a response header",
            "who sends {s}",
            "direction of {s}",
            "is {s} a request header",
            "is {s} a response header",
            "does the client send {s}",
            "{s} request or response",
            "does the server send {s}",
            "is {s} sent by the client or the server",
        ),
        ("does the client or the proxy send {s}", "in which direction does {s} go"),
    ),
    "purpose": (
        (
            "how do i {s}",
            "which header lets me {s}",
            "what header do i use to {s}",
            "how can i {s}",
            "which header do i need to {s}",
            "header to {s}",
            "i want to {s}",
            "{s}",
            "is there a header to {s}",
            "how to {s}",
            "what do i send to {s}",
            "i need to {s}",
        ),
        ("what is the header to {s}", "which x ai header should i use to {s}", "can i {s}"),
    ),
    "topic": (
        (
            "which header is about {s}",
            "header for {s}",
            "which header controls {s}",
            "which header sets {s}",
            "is there a header for {s}",
            "which header limits {s}",
            "what header is for {s}",
            "which header has to do with {s}",
            "which x ai header is for {s}",
        ),
        ("what header deals with {s}", "which header do i use for {s}"),
    ),
    "config": (
        (
            "what does {s} do",
            "what is {s}",
            "explain {s}",
            "{s}",
            "tell me about {s}",
            "default of {s}",
            "what is the default of {s}",
            "what is {s} in the config",
            "config key {s}",
            "type of {s}",
            "what does the config key {s} do",
            "describe {s}",
            "meaning of {s}",
            "what does {s} mean",
            "{s} default",
            "what is the type of {s}",
            "how do i set {s}",
            "which values does {s} take",
            "what is the setting {s}",
            "what can i put in {s}",
            "option {s}",
            "what is {s} for",
            "explain the config option {s}",
            "the default value of {s}",
            "{s} default value",
            "default value for {s}",
            "which type is {s}",
        ),
        (
            "what is the default value of {s}",
            "can you tell me what {s} does",
            "which type does {s} have",
            "what is the configuration key {s} for",
            "what does the setting {s} mean",
        ),
    ),
    "error": (
        (
            "what does {s} mean",
            "what is {s}",
            "explain {s}",
            "{s}",
            "why do i get {s}",
            "meaning of {s}",
            "i got {s}",
            "tell me about {s}",
            "what status has {s}",
            "which status does {s} have",
            "how do i fix {s}",
            "when does {s} happen",
            "describe {s}",
            "cause of {s}",
            "what causes {s}",
        ),
        ("why did i receive {s}", "what is the meaning of {s}", "what should i do about {s}"),
    ),
    "status": (
        (
            "what does {s} mean",
            "why do i get {s}",
            "{s}",
            "which errors have {s}",
            "explain {s}",
            "i got {s}",
            "codes with {s}",
            "what is {s}",
            "when is {s} sent",
            "errors with {s}",
            "meaning of {s}",
        ),
        ("which codes come with {s}", "why did i receive {s}"),
    ),
    "provider": (
        (
            "how do i add {s}",
            "how do i configure {s}",
            "configure {s}",
            "how do i use {s}",
            "add {s}",
            "set up {s}",
            "how to use {s}",
            "which key does {s} need",
            "which environment variable does {s} need",
            "{s} provider",
            "connect {s}",
            "{s} api key",
            "use {s}",
            "enable {s}",
            "how to add {s}",
            "how do i connect to {s}",
        ),
        ("how can i set up {s} as a provider", "what does {s} need", "how do i enable {s}"),
    ),
    "level": (
        (
            "what does {s} ask",
            "what is {s}",
            "explain {s}",
            "{s}",
            "what does {s} require",
            "tell me about {s}",
            "what do i need for {s}",
            "what does {s} mean",
            "requirements of {s}",
            "describe {s}",
            "what is in {s}",
            "what must {s} do",
        ),
        ("what is needed for {s}", "can you explain {s}", "what does {s} demand"),
    ),
    "none": ((), ()),
}
OPENERS: Final = (
    "please ",
    "hi, ",
    "hello, ",
    "can you tell me ",
    "could you explain ",
    "i have a question: ",
    "tell me, ",
    "quick question: ",
    "so ",
    "in aiproxy, ",
    "ok, ",
    "and ",
)
ENDINGS: Final = ("?", " please", " please?", "??", " in aiproxy", " thanks", ".", " exactly")
SLIPS: Final = "abcdefghijklmnopqrstuvwxyz"


# Words that may stand for each other in a question; a phrase comes before the words in it.
SYNONYMS: Final[tuple[tuple[str, ...], ...]] = (
    ("how do i", "how can i", "how to", "how would i", "how should i", "i want to", "i need to", "show me how to", "tell me how to", "what is the way to"),
    ("what is", "whats", "what's", "explain", "tell me about", "describe"),
    ("which command", "what command"),
    ("list the", "show the", "name the", "what are the", "list all", "give me the", "which are the"),
    ("start", "run", "launch", "boot", "fire up", "bring up"),
    ("configuration", "config", "config file", "settings", "configuration file"),
    ("check", "validate", "verify", "test", "lint"),
    ("show", "print", "display", "see", "view"),
    ("add", "configure", "set up", "connect", "enable"),
    ("limit", "cap", "restrict", "bound"),
    ("example", "sample", "snippet"),
    ("install", "set up", "get"),
    ("use", "work with", "run"),
    ("mount", "add", "use", "wrap", "install"),
    ("my app", "my application", "an app", "our app"),
    ("are there", "exist", "do you have", "can i use"),
    ("server", "proxy", "service"),
    ("explain", "describe", "tell me about"),
    ("model", "llm", "ai"),
    ("who are you", "who are u", "what are you exactly"),
    ("thanks", "thank you", "thx", "ty"),
    ("hello", "hi", "hey", "hallo", "hi there"),
)  # fmt: skip


def reworded(question: str, source: random.Random) -> str:
    """Return ``question`` with one or two of its phrases exchanged for their like."""
    for group in source.sample(SYNONYMS, len(SYNONYMS)):
        found = [phrase for phrase in group if f" {phrase} " in f" {question} "]
        if found and source.random() < 0.5:
            phrase = max(found, key=len)
            swapped = f" {question} ".replace(f" {phrase} ", f" {source.choice(group)} ", 1)
            question = swapped.strip()
    return question


def worded(template: str, subject: str) -> str:
    return template.replace("{s}", subject)


def varied(question: str, source: random.Random, noise: float = 1.0) -> str:
    """Return ``question`` as someone in a hurry might type it: openers, endings, a slip or two."""
    if source.random() < 0.18 * noise:
        question = source.choice(OPENERS) + question
    if source.random() < 0.25 * noise:
        question += source.choice(ENDINGS)
    if source.random() < 0.20 * noise:
        question = slipped(question, source)
        if source.random() < 0.3:
            question = slipped(question, source)
    return question


def slipped(question: str, source: random.Random) -> str:
    """Return ``question`` with one letter dropped, doubled, swapped or replaced in a longer word."""
    words = question.split(" ")
    long = [i for i, word in enumerate(words) if len(word) > 3 and word.isascii()]
    if not long:
        return question
    at = source.choice(long)
    word = words[at]
    spot = source.randrange(1, len(word) - 1)
    edits: tuple[Callable[[], str], ...] = (
        lambda: word[:spot] + word[spot + 1 :],
        lambda: word[:spot] + word[spot] + word[spot:],
        lambda: word[:spot] + word[spot + 1] + word[spot] + word[spot + 2 :],
        lambda: word[:spot] + source.choice(SLIPS) + word[spot + 1 :],
    )
    words[at] = source.choice(edits)()
    return " ".join(words)
