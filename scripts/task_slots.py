"""What the slots of the prompts in ``task_prompts.py`` are filled with."""

from typing import Final

#: slot -> fillings; every fourth one is kept for the held-out part
SLOTS: Final[dict[str, tuple[str, ...]]] = {
    name: tuple(part.strip() for part in text.split(";"))
    for name, text in {
        "lang": "Python; JavaScript; TypeScript; Rust; Go; Java; C++; C#; Kotlin; Swift; Ruby; PHP; "
        "bash; Haskell; Scala; Lua; PowerShell; R; Dart; Elixir; Perl; C; Zig; VBA",
        "lib": "React; pandas; numpy; Django; Flask; FastAPI; Spring; Express; Vue; Angular; PyTorch; "
        "SQLAlchemy; Redis; Kafka; webpack; Tailwind; Next.js; Rails; Laravel; Svelte; Playwright; "
        "pytest; Terraform; Kubernetes; Docker; nginx; Postgres; MongoDB; git; GraphQL",
        "codething": "binary search tree; rate limiter; LRU cache; linked list; JSON parser; login form; "
        "REST endpoint; command line tool; web scraper; priority queue; trie; date parser; CSV reader; "
        "websocket server; unit test suite; retry decorator; connection pool; file watcher; "
        "tokenizer; state machine; pagination helper; event bus; thread pool; hash map; migration "
        "script; sorting algorithm; breadth first search; logging middleware; config loader; cron job",
        "error": "TypeError: 'NoneType' object is not subscriptable; IndexError: list index out of "
        "range; NullPointerException; segmentation fault (core dumped); undefined is not a function; "
        "KeyError: 'id'; cannot find module './app'; CORS policy blocked; connection refused; "
        "ImportError: cannot import name; deadlock detected; permission denied (publickey); heap out "
        "of memory; unexpected token <; invalid syntax; 404 on every route; ENOENT: no such file; "
        "merge conflict; OOMKilled; type mismatch; use of moved value; UnicodeDecodeError",
        "codeword": "function; method; class; module; script; query; component; loop; snippet; "
        "macro; program; service; pipeline; stylesheet; regex; Dockerfile; Makefile; endpoint",
        "snippet": "```python\ndef f(xs):\n    return [x * 2 for x in xs]\n```; "
        "```\nSELECT name FROM users WHERE age > 30\n```; "
        "for (let i = 0, n = a.length\\, i < n\\, i++) { sum += a[i] }; "
        "```js\nconst a = items.map(i => i.id)\n```; "
        'Traceback (most recent call last):\n  File "app.py", line 12, in <module>\nValueError: x; '
        "#include <stdio.h>\nint main(void) { return 0\\, }; "
        'fn main() { println!("hi")\\, }; SELECT * FROM orders JOIN items ON items.oid = orders.id',
        "num": "3; 5; 7; 8; 12; 15; 17; 20; 24; 36; 40; 48; 60; 75; 90; 100; 120; 144; 250; 365; 1024",
        "name": "Anna; Ben; Carla; David; Elena; Farid; Grace; Hugo; Ines; Jonas; Kim; Lena; Mateo; "
        "Nora; Omar; Paula; Quinn; Rosa; Sam; Tara",
        "item": "apples; marbles; coins; books; eggs; tickets; cards; bottles; pencils; chairs; "
        "oranges; socks; candles; stamps; bricks; cookies",
        "formula": "x^2 + 5x + 6 = 0; 3x - 7 = 2x + 9; 2^x = 64; sin(x) = 0.5; |x - 3| < 5; "
        "x^3 - x = 0; 4y + 2 = 18; log(x) = 2; a^2 + b^2 = c^2; x + y = 10 and x - y = 4; "
        "5(x - 2) = 3x + 8; x^2 - 49 = 0; dy/dx = 3y; \\frac{x}{2} + 3 = 7; \\sqrt{x+1} = 4",
        "mathtopic": "the sum of two even numbers is even; there are infinitely many primes; the sum of "
        "angles in a triangle is 180 degrees; n^3 - n is divisible by 6; a tree with n nodes has n-1 "
        "edges; every bounded monotone sequence converges; the harmonic series diverges; the diagonal "
        "of a square is irrational; 0.999... equals 1; the empty set is unique; the sum of cubes is a "
        "square; no integer squared ends in 7",
        "thing": "dragon; lighthouse; old clock; robot; lost letter; time traveller; garden; storm; "
        "talking cat; spaceship; ghost; violin; desert; whale; secret door; circus; snowman; pirate; "
        "detective; haunted hotel; small town; wizard; mermaid; astronaut; blackbird; carpenter; "
        "toy soldier; river; baker; knight; moon; forgotten king; fox; train station; clockmaker",
        "mood": "funny; sad; dark; hopeful; romantic; eerie; playful; dramatic; whimsical; nostalgic; "
        "sarcastic; heart-warming; mysterious; absurd; epic; gentle",
        "genre": "science fiction; fantasy; horror; mystery; romance; western; fairy tale; thriller; "
        "fable; comedy; noir; adventure; cyberpunk; historical fiction; magical realism; satire",
        "author": "Hemingway; Poe; Jane Austen; Shakespeare; Kafka; Emily Dickinson; Tolkien; "
        "Dr. Seuss; Borges; Agatha Christie; Neruda; Terry Pratchett",
        "brand": "a vegan bakery; an electric scooter; a dog food brand; a yoga studio; a craft beer; "
        "an online school; a travel app; a sneaker; a dating app; a candle shop; a smart watch; a tea "
        "company; a bike repair shop; a mattress; a toy store; a language app; a hair salon",
        "doc": "report; article; paper; contract; survey; transcript; meeting minutes; case study; "
        "earnings call; white paper; policy; audit; proposal; press release; thesis chapter; "
        "balance sheet; terms of service; inspection report; annual report; lease agreement",
        "data": "sales figures; customer feedback; website traffic; survey responses; hospital "
        "admissions; exam results; energy consumption; support tickets; house prices; stock returns; "
        "churn numbers; sensor readings; crime statistics; app ratings; delivery times; payroll data; "
        "rainfall records; conversion rates; inventory levels; poll results",
        "market": "solar panels; e-bikes; pet food; cloud storage; online education; plant-based meat; "
        "home fitness; space tourism; telemedicine; used cars; gaming laptops; fintech; fast fashion; "
        "organic wine; podcast advertising; electric trucks",
        "option": "renting; buying; leasing; nuclear power; wind energy; remote work; office work; "
        "agile; waterfall; stocks; bonds; gold; a fixed rate; a variable rate; trains; planes; "
        "heat pumps; gas boilers; private schools; public schools; freelancing; employment",
        "dataset": "Q1: 12, Q2: 18, Q3: 9, Q4: 22; north 340, south 280, east 410, west 190; "
        "2021: 5.1%, 2022: 6.4%, 2023: 4.9%; A 45, B 32, C 23; week 1: 120, week 2: 98, week 3: 143; "
        "mobile 61%, desktop 33%, tablet 6%; men 48, women 52; 3.2, 3.4, 9.9, 3.1, 3.3",
        "place": "Rome; Japan; Norway; Mexico City; Lisbon; Vienna; Thailand; Iceland; New York; Kenya; "
        "Paris; Vancouver; Istanbul; Sydney; Peru; Prague; Morocco; Scotland; Berlin; Croatia",
        "dish": "lasagne; pancakes; ramen; chili; risotto; banana bread; curry; paella; hummus; "
        "apple pie; sushi; goulash; omelette; pizza dough; tacos; borscht; focaccia; lentil soup",
        "fact": "the capital of Canada; the tallest mountain in Europe; the president of Brazil; the "
        "boiling point of ethanol; the currency of Poland; the population of Chile; the longest river "
        "in Asia; the inventor of the telephone; the age of the universe; the distance to the moon; "
        "the national bird of India; the year the Titanic sank; the speed of light; the chemical "
        "symbol of tin; the author of Don Quixote; the largest desert",
        "chore": "clean a cast iron pan; fold a fitted sheet; unclog a sink; repot an orchid; tie a "
        "bow tie; patch a bicycle tube; iron a shirt; descale a kettle; wrap a present; get rid of "
        "fruit flies; sharpen a knife; remove candle wax; pack a suitcase; defrost a freezer; change "
        "a light bulb; grow basil; train a puppy; stop hiccups; brew good coffee; store potatoes",
        "phrase": "good morning; where is the station; I would like to pay; see you tomorrow; thank "
        "you very much; the bill please; I am lost; happy birthday; how much is this; no problem",
        "tongue": "Spanish; French; German; Japanese; Italian; Polish; Portuguese; Turkish; Korean; "
        "Arabic; Dutch; Greek; Swedish; Hindi",
        "person": "my boss; my neighbour; my teacher; a colleague; the landlord; customer service; my "
        "doctor; a recruiter; the school; my aunt; the airline; the bank",
        "matter": "a day off; a late delivery; noise at night; a reference letter; a refund; a new "
        "appointment; a lost parcel; my notice period; a broken lift; an invitation; a delay",
        "animal": "cats; rabbits; hedgehogs; parrots; goldfish; horses; hamsters; ducks; turtles; bees",
        "food": "chocolate; avocado; mushrooms; grapes; raw eggs; honey; spinach; peanuts; tuna; kiwi",
        "topic": "volcanoes; the Roman Empire; jazz; black holes; chess; the Silk Road; tea; bicycles; "
        "the French Revolution; photosynthesis; tides; Picasso; penguins; the stock market; yoga; "
        "vaccines; the Olympics; glaciers; chocolate; the printing press; coral reefs",
    }.items()
}
