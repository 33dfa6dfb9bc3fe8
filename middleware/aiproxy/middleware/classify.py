"""Which task an ``auto`` request is about, when no hint says so (draft section 5, criterion 1).

Deterministic and published (``docs/tasks.md``): shapes are looked for in the last user turn and in
what the answer is asked to be, words are looked up in ``WORDS``; what speaks for a class adds up,
the class with most wins, ties go in the order of the table, nothing found is ``general``. The
prompt never leaves the process. Of a long text its beginning and its end are read.
"""

from collections.abc import Mapping, Sequence
from re import IGNORECASE, MULTILINE
from re import compile as compile_pattern
from typing import Any, Final

GENERAL: Final = "general"
MULTIMODAL: Final = "multimodal"
#: Characters read from each end of a text; where an instruction stands around a document.
_END: Final = 1500
#: A text of more characters, and of as many different words, holds a document.
_LONG: Final = 4000
_MANY: Final = 60
#: Characters in which shapes are looked for, at each end.
_SHAPED: Final = 700
#: What one shape counts for, in words.
_SHAPE: Final = 3.0
#: A whole word, or several in snake case, a version number behind it or not; letters inside an id or
#: a hash are none.
_WORD: Final = compile_pattern(r"(?<![a-z0-9_])[a-z][a-z_+#]*+(?<!_)(?=\d{0,2}(?![a-z0-9_]))")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


WORDS: Final[Mapping[str, frozenset[str]]] = {
    "coding": _words(
        """
        airflow algorithm android angular ansible api append arduino arguments array arrays ascii
        assembly assertion async asyncio await awk aws azure babel backend bash binary boolean bot
        branch breakpoint browser bug build bun bundler button bytecode c# c++ cache callback
        camelcase canvas cargo chmod chrome class cli closure cluster code codebase coder coding
        command commit compile compiler component container containers cookie coroutine cors crash
        crate crawler cron crontab crud css csv cuda cypress dart dataframe dbt deadlock debug
        debugger decorator def deno dependencies dependency deploy deployment developer devops
        dict discord django dll dns docker dockerfile dom dropdown elixir embedded encoding
        endpoint enum env eslint exception exe express extension fastapi file files firebase
        firmware fixture flask flexbox float flutter folder frontend function gcp generics git
        github gitlab godot golang goroutine gradle graphql grep hashing hashmap haskell helm hex
        hook hooks html http ide implement import inheritance install installing int intellij ios
        iterate iterator java javascript jenkins jest joins jq jquery json jupyter jvm jwt kafka
        keras kotlin kubernetes lambda laravel leak legacy library lint linter linux localhost
        loop loops lua macro makefile matplotlib maven mergesort method microservice microservices
        middleware migration migrations mocha mock mocking modal module mongodb monolith
        multithreading mutex mypy mysql navbar nginx node nodejs notebook npm null numpy oauth oop
        opengl orm package packages pandas parallel parameter parameters parse parser payload perl
        php pip playbook playwright plugin pod pointer polymorphism port postgres powershell
        prisma profiler program programmer programming promise pytest python pytorch query queue
        quicksort rails react rebase recursion redis refactor refactoring regex regexp repo
        repository responsive rest return returns rollback ruby rust scala schema scraper scraping
        script sdk sed segfault segmentation selenium serialize server shader shell singleton
        sklearn snippet socket software solid sort spark spreadsheet spring sql sqlalchemy squash
        ssh ssl stack stacktrace string strings stripe struct stub stylesheet subprocess sudo
        supabase svelte svg swift sync syntax tailwind tcp tensorflow terraform test tests thread
        tokenizer traceback tree tsx tuple typed typescript ubuntu undefined unicode unit unittest
        unity upgrade useeffect usestate utf variable variables vba vim virtualenv vite vlookup
        vscode vue wasm webhook webhooks webpack webpage website websocket wordpress workflow
        xamarin xcode xml yaml yarn zig
        """
    ),
    "reasoning": _words(
        """
        add adds age ages algebra alibi angle area argument arithmetic arrange assume asymptote
        average axiom balls bayes bijection binomial box boxes brainteaser brother calculate
        chance chances chessboard circle clock coefficient coin coins combination combinations
        complex compound compute cone congruent conjecture consecutive contradiction converge
        converges corollary cos counterexample cube cubic cylinder deduce deduction derivative
        derive dice differentiate digit digits distance divided divisible divisor divisors double
        edges eigenvalues equals equation equations estimate even exactly expected expression
        factor factorial factors faster fermi follows fraction gcd geometry guilty half handshake
        handshakes heavier hours hypotenuse implies induction inequalities inequality infer
        infinitely innocent integer integers integral integrate intercept irrational jug jugs km
        knaves knights largest lcm leaves left lemma liar lies lighter limit linear litre litres
        ln loan log logic logical logically lying marbles math mathematics matrix maximise
        maximize minimise minimize minutes modulo modulus mph multiple multiples multiply must
        necessarily number odd odds older paradox parity per percent perimeter permutation
        permutations perpendicular pigeonhole polynomial premise premises prime primes probability
        proof prove puzzle puzzles pythagoras quadratic radius ratio rational reasoning rectangle
        remainder remaining riddle riddles root row seated sequence shorter shortest simplify sin
        sister sits slope slower smallest solve speed sphere square statement statements step
        steps subset sum sums suppose suspects syllogism taller tallest tan tangent theorem
        therefore train trains triangle triple truth twice valid variance vector vectors vertices
        volume weigh weighings weighs why younger
        """
    ),
    "analytical": _words(
        """
        abstract advantages agenda agreement agreements analyse analysis analyst analysts
        analytical analyze anomalies anomaly argument arguments assess assessment attached audit
        balance behavior behaviour below benchmark benchmarks bias branches budget bullet cagr
        cash categories categorise categorize causes chart churn citations claim claims classify
        clause cohort cohorts column columns comments compare comparing comparison competitor
        competitors complain complaints compliance cons consequences contract contrast correlation
        costs credibility critically critique dashboard data dataset decline decrease demographics
        deviation differ differences differs disadvantages distribution document dr driver drivers
        drop drove economic economics economy effect effects election emissions evaluate
        evaluation evidence excerpt expenses experiment explain extract factors feedback figures
        financial findings fiscal following forecast funnel gdp gdpr gist governance growth
        highlights hypothesis identify impact implications income increase inflation insights
        interpret interpretation interview interviews investment kpi kpis landscape lease legal
        liability limitations literature loss margin market median meeting methodology metrics
        minutes notes nps obligations offers opportunities outliers overview paper paragraph
        parties passage patterns pdf percentile performance policies policy portfolio positioning
        pricing prioritise prioritize productivity profit projection pros qualitative quantitative
        quarter quarterly rank ranking reasons recommend recommendations regression regulation
        regulatory report respondents results retention revenue review reviews rise risks roi
        sales sample satisfaction segment segmentation segments sentiment significance significant
        sources spend spending stakeholder stakeholders statistics strategic strategy strengths
        study summarise summarize summary supplier survey surveys sustainability swot table
        takeaways themes thread threats tl tldr trade tradeoffs transcript trend trends turnover
        underperforms unemployment valuation vendor vendors versus wages weaknesses weigh yoy
        """
    ),
    "creative": _words(
        """
        acrostic ad adventure advertisement alien anecdote antagonist anthem atmospheric backstory
        ballad bedtime billboard birthday blog brainstorm branding campaign caption carol castle
        catchy chapter character characters cliffhanger comedian comedy compose confession copy
        copywriting couplet creative creatively describe detective dialogue diary dragon dramatic
        dream dungeon elegy elevator elf enchanted ending episode essay eulogy evocative fable
        fairy fanfic fanfiction fantasy fiction flash folklore fox funny galaxy ghost goblin
        greeting haiku haunted headline heartfelt hero hilarious humorous hymn imaginary
        imaginative imagine improv instagram invent invitation jingle joke king kingdom legend
        legends letter limerick lore lullaby lyrics magical marketing mascot mermaid metaphor
        metaphors monologue monster motto mottoes mottos movie musical mystery myth mythical name
        names narrator nemesis noir novel npc ode once opening parody pirate pitch playful plot
        poem poems poet poetic poetry postcard prank prequel princess product prose protagonist
        pun punchier punchy puns quest quirky rap rewrite rhyme rhymes rhyming roast robot romance
        romantic rpg satire scene screenplay script sequel sidekick silly simile sitcom sketch
        skit slogan slogans song sonnet spaceship speech spooky stanza story storyteller superhero
        tagline tale thriller toast trailer tribute tweet twist unicorn upon valentine vampire
        verse villain vivid voice vows wedding western whimsical whisper witty wizard wordplay
        worldbuilding write writer
        """
    ),
}
#: Words that say little alone; they count only beside another word of the same class.
_WEAK: Final = _words(
    """
    ad add adds adventure age ages area argument arguments assume attached average balance balls
    below binary birthday bot box boxes branch brother browser budget build button cache callback
    campaign canvas castle causes chance chapter character characters circle claim claims class
    clock closure cluster coin coins column columns command comments component confession
    container copy costs data decrease describe detective developer diary differences distance
    document dom double dragon dream drop economic economy effect effects election elevator ending
    episode equals estimate even exactly expected explain express extension faster figures file
    files flash float folder following follows funny ghost go greeting growth half heavier hero
    hex hook hours http identify import income increase install int integer interview investment
    invitation king km leak lease left legend letter library lies lighter limit linear loan log
    loss market meeting method minutes module movie musical must mystery myth name names node
    notebook notes number odd offers older once opening package page paper parameter per pitch pod
    pointer policy port princess product program promise quarter query rank reasons recommend
    recommendations rectangle report rest results return returns review rewrite rise robot
    romantic root row sales sample scene schema script sequence server shorter silly sister sits
    slower software solid sort sources speech speed square stack statement statements step steps
    strategy string stripe sum suppose table taller test thread trade train trains tree tweet
    twice unity upgrade valid variable voice volume website wedding why workflow write writer
    younger
    """
)
#: Code and what machines say about code.
_CODE: Final = compile_pattern(
    r"```(?!\s*(?:csv|tsv|text|txt|markdown|md)\b)\s*\S"
    r"|^Traceback \(most recent call last\)"
    r"|^\s*(?:Caused by: |at )[\w.$<>]+(?:\(|:| )[^\n]*\d+\)?\s*$"
    r"|\bFile \"[^\"\n]+\", line \d+"
    r"|\b[A-Z]\w*(?:Error|Exception)\b"
    r"|^(?:panic|fatal|error(?:\[E\d+\])?): "
    r"|^@@ -\d+(?:,\d+)? \+\d+"
    r"|^#!\s*/|^\s*#include\s*<|^\s*(?:def|fn|func|function)\s+\w+\s*\("
    r"|^\s*(?:public|private|static)\s+[\w<>\[\]]+\s+\w+\s*[({]"
    r"|^\s*(?:import [\w.]+;?|from [\w.]+ import .+|using [\w.]+;)\s*$"
    r"|\bselect\b[^\n]{1,200}\bfrom\b[^\n]{0,200}(?:\bwhere\b|\bjoin\b|;)"
    r"|\b\w+\.\w+\([^)\n]*\)\s*[;{]|=>\s*\{|\{\{|&&\s*\w+\(|\[\w+ for \w+ in ",
    IGNORECASE | MULTILINE,
)
#: Text with none of these has no code in it; looking for them is much quicker than ``_CODE``.
_CODE_SIGNS: Final = (
    "```", "{", ";", "()", "=>", "&&", "Error", "Exception", "rror:", "Traceback", "atal:", "panic:",
    "import ", "include", "def ", "fn ", "func", "#!", "@@ ", "elect ", "ELECT ", "File \"", "[x ",
)  # fmt: skip
#: Formulas, equations and arithmetic.
_MATH: Final = compile_pattern(
    r"\\(?:frac|int|sum|sqrt|lim|begin\{[pbv]?matrix\}|mathbb|cdot|infty)"
    r"|[∫∑∏√≤≥≠∞∈∀∃∂]"
    r"|\b\d*[a-z]\s?(?:\^|\*\*)\s?\d"
    r"|\b\d+\s?\^\s?\d+|\b\d+!"
    r"|\b\d*[xyzn]\s*[-+*/=]\s*\d+[xyzn]?\s*[-+*/=]"
    r"|\b\d[\d.,]*\s*[-+*/×÷]\s*\d[\d.,]*\s*(?:=|[-+*/×÷]\s*\d)"
    r"|\b[fgP]\([A-Za-z](?:[,|][^)\n]{1,20})?\)\s*="
    r"|\d\s?%\s+of\s+\d|\bsolve for [a-z]\b",
    IGNORECASE,
)
_NUMBER: Final = compile_pattern(r"\d+(?:[.,]\d+)*+")
#: What is asked of numbers.
_ASKED: Final = compile_pattern(
    r"\bhow (?:many|much|long|old|far|fast|often)\b|\bby how\b|\bwhat (?:is|are|comes|was) (?:the|its|next)\b"
    r"|\bwhen (?:is|does|do|will)\b|\bwh(?:o|ich) (?:one|gets|number)\b",
    IGNORECASE,
)
#: Numbers with names: ``Q1: 12, Q2: 18``, ``north 340, south 280``; or many in a row.
_FIGURES: Final = compile_pattern(
    r"(?:\b[A-Za-z][\w ]{0,14}[: ]\s?\d[\d.]*\s?%?\s*[,;\n]\s*){2}|(?:\d[\d.]*\s?%?\s*[,;\t]\s*){4}"
)
#: Types of parts that have to be seen.
_SEEN: Final = frozenset(
    {"image_url", "input_image", "image", "video_url", "input_video", "video", "image_file"}
)


def classify(body: Mapping[str, Any]) -> str:
    """Return reasoning, coding, creative, analytical, multimodal or general for a request body of
    any shape."""
    content = last_user_content(body)
    if shows(content):
        return MULTIMODAL
    text = text_of(content)
    if not text:
        return GENERAL
    words = words_of(text)
    scores = shapes(text, words, body)
    best, best_score = GENERAL, 0.0
    for task, vocabulary in WORDS.items():
        hits = words & vocabulary
        score = len(hits) - 0.5 * len(hits & _WEAK) + scores.get(task, 0.0)
        if score > best_score:
            best, best_score = task, score
    return best if best_score >= 1 or (best_score > 0 and len(words) <= 12) else GENERAL


def words_of(text: str) -> set[str]:
    """The words at both ends of a text, in lower case."""
    if len(text) > _LONG:
        text = f"{text[:_END]}\n{text[-_END:]}"
    found = _WORD.findall(text.lower())
    if "_" in text:
        found = " ".join(found).replace("_", " ").split()
    return set(found)


def shapes(text: str, words: set[str], body: Mapping[str, Any]) -> dict[str, float]:
    """What the shapes of a request speak for, by class; ``words`` are those of its ``text``."""
    found: dict[str, float] = {}
    read = text if len(text) <= 2 * _SHAPED else f"{text[:_SHAPED]}\n{text[-_SHAPED:]}"
    if any(sign in read for sign in _CODE_SIGNS) and _CODE.search(read):
        found["coding"] = _SHAPE
    numbers = len(_NUMBER.findall(read))
    if numbers or "\\" in read or "(" in read or not read.isascii():
        figures = numbers > 1 and _FIGURES.search(read) is not None
        if figures:
            found["analytical"] = 1.0
        if _MATH.search(read):
            found["reasoning"] = _SHAPE
        elif numbers > 1 and not figures and _ASKED.search(read):
            found["reasoning"] = 2.0
    if len(text) > _LONG and len(words) >= _MANY:
        found["analytical"] = _SHAPE
    shape = body.get("response_format")
    if isinstance(shape, (dict, Mapping)) and shape.get("type") == "json_schema":
        found["analytical"] = found.get("analytical", 0.0) + 1.0
    return found


def shows(content: Any) -> bool:
    """Whether a turn has a part that has to be seen: a picture or a film."""
    if content.__class__ is str or not isinstance(content, Sequence):
        return False
    return any(part.get("type") in _SEEN for part in content if isinstance(part, (dict, Mapping)))


def last_user_content(body: Mapping[str, Any]) -> Any:
    """The content of the last user turn: ``messages``, ``input`` or ``prompt``."""
    turns = body.get("messages")
    if turns is None:
        turns = body.get("input", body.get("prompt"))
    if isinstance(turns, str):
        return turns
    if not isinstance(turns, Sequence):
        return ""
    for turn in reversed(turns):
        if isinstance(turn, str):
            return turn
        if isinstance(turn, (dict, Mapping)) and turn.get("role", "user") == "user":
            return turn.get("content")
    return ""


def last_user_text(body: Mapping[str, Any]) -> str:
    """The text of the last user turn; empty when there is none."""
    return text_of(last_user_content(body))


def text_of(content: Any) -> str:
    """The text of a turn's content."""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        return ""
    parts = (part.get("text") for part in content if isinstance(part, (dict, Mapping)))
    return " ".join(text for text in parts if isinstance(text, str))
