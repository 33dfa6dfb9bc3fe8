"""Makes prompts whose task is known, for training and measuring the task classifier.

Every prompt is a template with its slots filled and now and then a greeting or a courtesy around
it, drawn from a seeded generator: the same seed gives the same prompts. Templates and fillings
are split: those marked for ``held out`` never occur in the training part.

    python scripts/task_prompts.py [--split train|held-out] [--count N] [--seed N]
"""

import argparse
import json
import random
import re
from collections.abc import Iterator
from typing import Any, Final

from task_slots import SLOTS

CLASSES: Final = ("reasoning", "coding", "creative", "analytical", "general")
SEED: Final = 20260131
_SLOT: Final = re.compile(r"\{(\w+)\}")


def rows(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.strip().splitlines() if line.strip())


#: class -> templates for training
TRAIN: Final[dict[str, tuple[str, ...]]] = {
    "coding": rows(
        """
        Write a {codething} in {lang}.
        Implement a {codething} using {lang} and {lib}.
        How do I fix this: {error}
        I keep getting {error} when I use {lib}. Any idea why?
        Refactor this {lang} {codeword} so it is easier to read: {snippet}
        What does this {codeword} do? {snippet}
        Add error handling to my {lang} {codeword}.
        Explain the difference between {lib} and {lib} for a small {lang} project.
        Convert this {codeword} from {lang} to {lang}.
        How can I install {lib} on Ubuntu without root?
        my {lib} build fails with {error}
        Write tests for the following {codeword}: {snippet}
        Optimise the performance of this {codeword}: {snippet}
        What is the idiomatic way to write a {codething} in {lang}?
        Create a {lib} {codeword} that shows a list of users.
        Help me debug my {codeword}, the output is empty.
        Is there a {lang} library for parsing dates and time zones?
        Generate a schema and an API for a {codething}.
        Set up {lib} with {lib} in one repository.
        Review my pull request: {snippet}
        Write a one-liner in {lang} that counts the lines of all files in a folder.
        Rename all variables in this {codeword} to camelCase: {snippet}
        Why is my {codeword} so slow? {snippet}
        Document this {lang} {codeword} with comments.
        How do I upgrade {lib} without breaking the deployment?
        {lib} or {lib} for the front end of my app?
        Which data structure should I use for a {codething}?
        How can I run {lib} in a container?
        Add a dark mode to my {lib} site.
        Write a {lib} query that joins two tables.
        How to parse JSON in {lang}?
        Give me a {lang} example of a closure.
        My {lang} code prints nothing. {snippet}
        Design an API for a {codething}.
        Translate this {lang} code to {lang}: {snippet}
        How do I undo my last commit?
        Port a {codething} to {lang}.
        """
    ),
    "reasoning": rows(
        """
        Solve {formula}.
        Prove that {mathtopic}.
        {name} has {num} {item} and gives {num} to {name}. How many are left?
        If {num} workers need {num} days, how long do {num} workers need?
        What is the probability of drawing {num} red {item} out of {num}?
        Calculate {num} * {num} - {num} and explain each step.
        {name} is taller than {name}, who is taller than {name}. Who is the shortest?
        Solve this riddle step by step: {name} has {num} {item} but no money.
        How many different ways are there to arrange {num} {item} in a row?
        What comes next in the sequence {num}, {num}, {num}?
        Let f(x) = x^{num} + {num}. Find the derivative.
        Show by contradiction that {mathtopic}.
        A car drives {num} km at {num} km/h. How long does it take?
        Is this argument logically valid: all {item} are red, this is red, so it is one of the {item}?
        Compute the integral of x^{num} from 0 to {num}.
        What is {num}% of {num}?
        {name} says that {name} is lying. {name} says that both are lying. Who tells the truth?
        A tank holds {num} litres and loses {num} litres an hour. When is it empty?
        Think step by step: which of {num} and {num} has more divisors?
        Find the greatest common divisor of {num} and {num}.
        A rectangle has a perimeter of {num} and a width of {num}. What is its area?
        What is the remainder when {num}^{num} is divided by {num}?
        Simplify the expression and solve for x: {formula}
        The average of {num} numbers is {num}. One is removed and it becomes {num}. Which one?
        How many {item} fit if each of {num} boxes holds {num}?
        A snail climbs {num} cm a day and slides {num} cm a night. When is it at the top?
        I am thinking of a number. Doubled and increased by {num} it gives {num}. Which?
        Is {num} a prime number? Justify.
        Suppose all {item} are {item}. Does it follow that some are not?
        If today is Tuesday, which day is it in {num} days?
        How likely is it to roll a six {num} times in a row?
        You meet two guards, one lies. Which question do you ask?
        Convert {num} to binary and show how.
        Deduce who owns the {item} if {name} does not and {name} sits next to {name}.
        """
    ),
    "creative": rows(
        """
        Write a story about a {thing}.
        Write a {mood} poem about a {thing}.
        Compose a song about a {thing} and a {thing}.
        Give me ten slogans for {brand}.
        Come up with a name for {brand}.
        Write a {genre} short story in which a {thing} meets a {thing}.
        Write a haiku about a {thing}.
        Imagine you are a {thing}. Describe your day.
        Draft a {mood} advertisement for {brand}.
        Continue the story: the {thing} opened its eyes and
        Write a dialogue between a {thing} and a {thing}.
        Create a character for a {genre} novel: a {mood} {thing}.
        Write a blog post for {brand} in a {mood} tone.
        Invent a legend about the {thing}.
        Write lyrics in the style of {author} about a {thing}.
        I need a {mood} caption for a photo of a {thing}.
        Brainstorm plot ideas for a {genre} movie about a {thing}.
        Write a limerick about a {thing}.
        Make up a bedtime story with a {thing} and a {thing}.
        Write a {mood} monologue for a {thing}.
        Write a tagline and a headline for {brand}.
        Tell me a joke about a {thing}.
        Describe a {mood} scene with a {thing} in vivid words.
        Rewrite the ending of the tale so that the {thing} wins.
        Pitch a {genre} series about a {thing}.
        Write a speech for the birthday of {person}, make it {mood}.
        Write the first page of a {genre} novel.
        Suggest titles for a {mood} song.
        Think up a magic system for a {genre} world.
        Turn this note into a {mood} social media post about {brand}.
        Write a letter from a {thing} to a {thing}.
        Describe a world without {topic} as a {mood} scene.
        Write a {mood} radio play with a {thing}.
        Give me a creative metaphor for {topic}.
        Write a rap about {topic}.
        """
    ),
    "analytical": rows(
        """
        Summarise this {doc} in three sentences.
        Analyse the {data} below and tell me the main trends. {dataset}
        Compare {option} and {option} in terms of cost and risk.
        What are the key points of the attached {doc}?
        Extract all names and dates from this {doc}.
        What do these {data} tell us? {dataset}
        Give me a SWOT analysis for a company selling {market}.
        Evaluate the pros and cons of {option}.
        Which factors drive demand for {market}?
        Identify outliers in the {data}: {dataset}
        Write an executive summary of the {doc}.
        Assess the risks mentioned in this {doc}.
        Classify the {data} by topic and sentiment.
        Is there a correlation between {data} and {data}?
        Forecast the {data} for the next quarter. {dataset}
        How did the {data} change between the two periods? {dataset}
        Make a table comparing {option}, {option} and {option}.
        Analyze the competitive landscape for {market}.
        Read the {doc} below and list the arguments for {option}.
        What does this {doc} say about liability?
        Review this {doc} for contradictions.
        Explain the causes of the drop in {data}. {dataset}
        Group the {data} into segments and describe each one.
        Interpret the results of this {doc}: {dataset}
        What are the strengths and weaknesses of this {doc}?
        Estimate the market size for {market}.
        Compare the {data} of the two years. {dataset}
        What is the main argument of the {doc}?
        List the assumptions behind this {doc}.
        Which customers are likely to leave, given the {data}?
        Why did the {data} fall in March? {dataset}
        Give an overview of the research on {topic}.
        Discuss whether {option} is better than {option} for the environment.
        Find the three most important numbers in this {doc}.
        Turn the {doc} into a bullet list of decisions and open questions.
        """
    ),
    "general": rows(
        """
        What is {fact}?
        How do I {chore}?
        Translate "{phrase}" into {tongue}.
        Recommend some things to do in {place}.
        Give me a recipe for {dish}.
        Hello!
        hi there, who are you?
        thanks a lot
        Can {animal} eat {food}?
        Tell me something about {topic}.
        What should I pack for a week in {place}?
        What is the weather like in {place} in May?
        Write a short email to {person} about {matter}.
        How do you say "{phrase}" in {tongue}?
        Who discovered {topic}?
        What time is it in {place}?
        Is it healthy to eat {food} every day?
        Suggest a restaurant dish that goes with {dish}.
        Explain {topic} to a ten year old.
        What does the word "{topic}" mean?
        When was {place} founded?
        Help me plan a birthday party for {num} guests.
        Correct the spelling: i wil see yuo in {place}
        What can you do for me?
        My {animal} do not eat any more. Should I worry?
        Which visa do I need for {place}?
        ok
        Is it rude to talk about {topic} at dinner?
        Why do {animal} sleep so much?
        Where can I buy good {food} in {place}?
        I have a headache, what can I do?
        What is a typical breakfast in {place}?
        How long is the flight to {place}?
        What are the symptoms of a cold?
        Which of the planets is the biggest?
        My friend is sad. What can I say to cheer up someone like that?
        How old do {animal} get?
        Give me some ideas for dinner with {food}.
        What is the difference between {dish} and {dish}?
        Who won the football world cup in 2014?
        Remind me how to {chore}.
        Rephrase politely: I do not want to come to {place}.
        yes please
        What should I wear to a wedding in {place}?
        Do I need to tip in {place}?
        How many calories are in {food}?
        How does one learn {tongue} quickly?
        Which books about {topic} do you recommend?
        What is the best way to {chore} without special tools?
        Explain what {topic} is in simple words.
        Tell me a fun fact about {animal}.
        When do shops close in {place}?
        Write a message to {person} asking about {matter}.
        Make a shopping list for {dish}.
        Suggest a present for {person}.
        Is {place} safe for tourists?
        What do {animal} eat?
        How much should {person} get as a tip?
        Are {animal} good pets for children?
        Can I freeze {food}?
        How often should I water a cactus?
        How long does {dish} keep in the fridge?
        """
    ),
}

#: class -> templates nothing is trained on
HELD_OUT: Final[dict[str, tuple[str, ...]]] = {
    "coding": rows(
        """
        need a {codething}, {lang}, no external dependencies
        Can you look at this stack trace? {error}
        {snippet} - what is wrong here?
        Port my {codeword} from {lib} to {lib}.
        best practice for structuring a {lib} app?
        Show me an example of a generic {codething} with type annotations.
        Why would {lib} throw {error} only in production?
        Write me a {lang} program which behaves like a {codething}
        make this {codeword} thread safe: {snippet}
        How do I mock a database call when testing a {codething}?
        """
    ),
    "reasoning": rows(
        """
        There are {num} {item} in a bag, {num} of them blue. I draw two. Chances of two blue ones?
        Demonstrate why {mathtopic}.
        Find all real solutions: {formula}
        {name} runs {num} m in {num} seconds, {name} in {num}. By how much is one faster?
        Each of {num} people shakes hands with everybody else once. How many handshakes?
        Three switches, one lamp in the next room, one visit. Which switch is it?
        Twice a number plus {num} is {num}. What is the number?
        {name}, {name} and {name} split {num} {item} in the ratio 2:3:5. Who gets what?
        evaluate the limit of (1 + 1/n)^n as n goes to infinity
        On an island knights always tell the truth. {name} says: we are both knaves. What is {name}?
        """
    ),
    "creative": rows(
        """
        Pen a {mood} ballad about the {thing} that wanted to be a {thing}.
        Once upon a time there was a {thing}... please go on
        Give our newsletter for {brand} a {mood} opening.
        Dream up three {genre} worlds in which a {thing} rules.
        A sonnet, please. Subject: {thing}.
        Let a {thing} and a {thing} quarrel in verse.
        Script a 20 second radio spot for {brand}.
        What could the {thing} whisper at midnight? Surprise me with a {mood} vignette.
        Parody {author} ordering a coffee.
        I want a {mood} birthday rhyme featuring a {thing}.
        """
    ),
    "analytical": rows(
        """
        tl;dr of this {doc}?
        Which of these looks unusual and why: {dataset}
        Weigh {option} against {option} for a family of four.
        Pull the obligations of each party out of the {doc}.
        How reliable are the conclusions of this {doc}?
        Where is the growth in {market} coming from, and who are the main players?
        Rank the reasons behind the change in {data}.
        Condense the {doc} to one page for the board.
        Break these {data} down by region. {dataset}
        What can we conclude from the {data}? {dataset}
        """
    ),
    "general": rows(
        """
        any tips to {chore}?
        I'm off to {place} next week, what should I see?
        good evening :)
        Do {animal} like {food}?
        Could you tell me {fact}?
        What's a good side dish for {dish}?
        Polite way to ask {person} for {matter}?
        Give me three interesting things to know about {topic}.
        "{phrase}" - {tongue} please
        never mind, bye
        """
    ),
}
_BEFORE: Final = (
    "", "", "", "", "", "", "Hi, ", "Please ", "Hello! ", "Hey, quick one: ", "Can you help? ", "OK so ",
)  # fmt: skip
_AFTER: Final = (
    "",
    "",
    "",
    "",
    "",
    "",
    " Thanks!",
    " Please be brief.",
    " thx",
    " Explain your answer.",
)


def prompts(split: str, count: int, seed: int = SEED) -> Iterator[tuple[str, str]]:
    """Yield ``count`` pairs of task and prompt of one split, classes in turn."""
    chance = random.Random(f"{seed}-{split}")
    templates = TRAIN if split == "train" else HELD_OUT
    for index in range(count):
        task = CLASSES[index % len(CLASSES)]
        text = _SLOT.sub(
            lambda slot: _filling(slot[1], split, chance), chance.choice(templates[task])
        )
        text = chance.choice(_BEFORE) + text + chance.choice(_AFTER)
        style = chance.random()
        if style < 0.15:
            text = text.lower()
        elif style < 0.2:
            text = text.rstrip(".?!")
        yield task, text


def _filling(slot: str, split: str, chance: random.Random) -> str:
    every = SLOTS[slot]
    held = every[::4]
    kept = held if split == "held-out" else [row for row in every if row not in held]
    return chance.choice(kept).replace("\\,", ";")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--split", choices=("train", "held-out"), default="train")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=SEED)
    asked: Any = parser.parse_args()
    for task, text in prompts(asked.split, asked.count, asked.seed):
        print(json.dumps({"task": task, "prompt": text}, ensure_ascii=False))


if __name__ == "__main__":
    main()
