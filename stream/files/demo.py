"""What does a stream look like when all of it moves?

A generated inbox of a shop: messages of a few kinds, in words that people use, whose wording and mix change every
minute or two: a new wave of spam reads like parcels, an outage comes and goes, and who is in charge of returns or of
security mails changes, so that the same words get another label. Most messages get theirs some seconds later, some
never do, and a few labels are wrong. The texts are a function of the seed; when they are sent is the clock's.
"""

import heapq
import math
import random
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from driftline.stream.log.base import Log, NewRecord
from driftline.stream.wire.records import Feedback, Message, Topics, encode

RATE: Final = 12.0  # messages a second
ERA_S: Final = 120.0  # how long a wording lasts
OLD_SHARE: Final = 0.15  # of messages in the words of the era before
VAGUE_SHARE: Final = 0.08  # of messages that could be of any kind
MOVED_SHARE: Final = 0.4  # of messages whose kind changes with the era
WRONG_SHARE: Final = 0.02  # of labels
LABELLED_SHARE: Final = 0.7
DELAY_MEDIAN_S: Final = 5.0
TICK_S: Final = 0.1

_GREETINGS: Final = ("Hi,", "Hello,", "Hey,", "Good morning,", "Dear team,", "", "", "")
_ENDS: Final = ("", "", "", "Thanks!", "Please help.", "Cheers, {name}", "Best, {name}", "Waiting for your reply.")
_SLOTS: Final = {
    "name": ("Ana", "Ben", "Chidi", "Dora", "Emre", "Fatima", "Goran", "Hana", "Ivo", "June", "Kofi", "Lena"),
    "item": ("desk lamp", "blue kettle", "rain jacket", "headphones", "office chair", "coffee grinder", "backpack"),
    "city": ("Lyon", "Graz", "Porto", "Leeds", "Krakow", "Oslo", "Turin", "Ghent"),
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "the weekend"),
}
_VAGUE: Final = (
    "Any news about order {number}?",
    "Can somebody call me back about the {item}?",
    "I wrote to you on {day} and nobody answered.",
    "This is about the {item} again, see my last message.",
    "Is this really how it is supposed to work?",
)
# The same words, another kind in every era.
_MOVED: Final[tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]] = (
    (
        ("billing", "delivery", "account"),
        (
            "I sent the {item} back to {city} on {day} and heard nothing since.",
            "Please refund the {item}, it does not fit.",
            "How do I return the {item}? The label in the box is for {city}.",
            "The return of order {number} is confirmed, where are my {price} euros?",
            "I want my money back for order {number}, the {item} is the wrong colour.",
        ),
    ),
    (
        ("account", "spam", "billing"),
        (
            "Security notice: a new device in {city} used your profile on {day}. Was that you?",
            "Confirm the change of your phone number with the code {number}.",
            "Your profile will be closed on {day} unless you confirm your email.",
            "Unusual sign-in from {city}: check your recent activity now.",
        ),
    ),
    (
        ("praise", "billing", "delivery"),
        (
            "Tell {name} that the {price} euros for the {item} were well spent.",
            "Fair price for the {item}, and the bill was explained to me by {name}.",
            "About the {price} euros that {name} took off the {item}: thank you for that.",
        ),
    ),
)
# Of each kind: a list of eras, of each era some ways to say it. The eras of a kind take turns.
_KINDS: Final[dict[str, tuple[tuple[str, ...], ...]]] = {
    "billing": (
        (
            "My card was charged twice for order {number}.",
            "The invoice for the {item} shows the wrong amount, {price} euros instead of less.",
            "Please send me the receipt for order {number}, our accountant needs it.",
            "Why is there a fee of {price} euros on my bank statement?",
        ),
        (
            "The subscription renewed although I cancelled it on {day}.",
            "Your app says the payment is pending, but {price} euros left my account.",
            "The voucher was not taken off at checkout, I paid {price} in full.",
            "How do I change the plan before it renews on {day}?",
        ),
    ),
    "delivery": (
        (
            "The courier says nobody was home in {city}, but I was.",
            "Tracking for order {number} has not moved since {day}.",
            "The {item} came with a broken box, one part is missing.",
            "When will the {item} arrive in {city}?",
        ),
        (
            "The locker in {city} did not open with my pickup code {number}.",
            "The drone dropped the {item} on my neighbour's roof.",
            "Can you move the pickup window for order {number} to {day}?",
            "The pickup point in {city} closes before I get off work.",
        ),
    ),
    "account": (
        (
            "I cannot log in, the password reset mail never arrives.",
            "Please delete my account and everything you store about me.",
            "Somebody from {city} changed the email address of my profile.",
            "How do I add {name} to our business account?",
        ),
        (
            "The passkey on my new phone is refused.",
            "I get six-digit codes by text although I am not signing in.",
            "My profile shows the orders of somebody called {name}.",
            "Two-factor login locks me out after the update on {day}.",
        ),
    ),
    "praise": (
        (
            "The {item} is wonderful, thank you so much!",
            "Great service, {name} at the desk in {city} solved it in minutes.",
            "Best shop I know, five stars from all of us in {city}.",
        ),
        (
            "Honestly impressed: ordered on {day}, here the next morning.",
            "My kids love the {item}, we will be back.",
            "Just wanted to say that {name} was a star on the phone.",
        ),
    ),
    "spam": (
        (
            "CONGRATULATIONS! You have WON {price}00 euros, claim your prize now!!!",
            "Hot singles in {city} want to meet you, reply YES",
            "Cheap watches, replica, 90% off, only until {day}! Click here",
            "You are our lucky winner no. {number}. Send your bank details to collect.",
        ),
        (
            "Your parcel {number} is held at customs in {city}. Pay {price} euros to release it.",
            "Delivery failed: confirm your address and card for order {number} here.",
            "The courier could not reach you, reschedule on {day} for a small fee: bit.example/{number}",
        ),
        (
            "{name} made {price}00 euros a day with this trading robot, start today",
            "Double your coins by {day}: send {price} and get back twice as much",
            "Exclusive presale of the new coin, wallet {number} closes soon",
        ),
        (
            "Work from home in {city}: {price} euros an hour, no experience, text us on {day}",
            "Your profile was selected, {name} from HR offers a remote position",
            "We pay for likes: rate the {item} and earn {price} euros daily",
        ),
    ),
    "outage": (
        (
            "The site is down for everybody here in {city}.",
            "Error 502 when I open the cart, since minutes.",
            "Checkout hangs, the page stays white, are you offline?",
        ),
    ),
}


class Item(NamedTuple):
    """A message, and its label where somebody will give it one."""

    message: Message
    label: str | None
    delay_s: float


def inbox(seed: int, rate: float = RATE) -> Iterator[Item]:
    """Give the messages of a stream for ever, `rate` of them for each second of its time. Ids differ in each run."""
    rng, run, number = random.Random(seed), uuid.uuid4().hex[:8], 0
    while True:
        label, text = _write(rng, number / rate)
        message = Message(id=f"{run}-{number}", text=text)
        if rng.random() < WRONG_SHARE:
            label = rng.choice(list(_KINDS))
        delay_s = rng.lognormvariate(math.log(DELAY_MEDIAN_S), 0.6)
        yield Item(message, label if rng.random() < LABELLED_SHARE else None, delay_s)
        number += 1


def send_demo(log: Log, topics: Topics, stopped: Callable[[float], bool], rate: float = RATE, seed: int = 1) -> int:
    """Append an inbox's messages and labels as time passes, until it is told to stop; return how many messages.

    Parameters
    ----------
    stopped : waits for so many seconds, and tells whether to stop

    Raises
    ------
    LogError : an append failed.
    """
    log.create_topics(topics)
    items, due = inbox(seed, rate), list[tuple[float, str, str]]()
    begin, sent = time.monotonic(), 0
    while not stopped(TICK_S):
        passed_s = time.monotonic() - begin
        messages = [next(items) for _ in range(int(passed_s * rate) - sent)]
        sent += len(messages)
        for message, label, delay_s in messages:
            if label is not None:
                heapq.heappush(due, (passed_s + delay_s, message.id, label))
        labels = []
        while due and due[0][0] <= passed_s:
            _, message_id, label = heapq.heappop(due)
            labels.append(NewRecord(message_id.encode(), encode(Feedback(message_id, label, source="demo"))))
        if messages:
            log.append(
                topics.messages, [NewRecord(each.message.id.encode(), encode(each.message)) for each in messages]
            )
        if labels:
            log.append(topics.feedback, labels)
    return sent


def _write(rng: random.Random, at_s: float) -> tuple[str, str]:
    """Return a kind of message, and a text of it."""
    kinds = list(_KINDS)
    kind, era = rng.choices(kinds, [_share(kind, at_s) for kind in kinds])[0], int(at_s / ERA_S)
    if rng.random() < MOVED_SHARE:
        of_eras, bodies = rng.choice(_MOVED)
        kind = of_eras[era % len(of_eras)]
    else:
        of_kind = int(at_s / ERA_S + 0.35 * kinds.index(kind))  # their wordings change one after the other
        bodies = _KINDS[kind][max(0, of_kind - (rng.random() < OLD_SHARE)) % len(_KINDS[kind])]
    body = rng.choice(_VAGUE if rng.random() < VAGUE_SHARE else bodies)
    parts = (rng.choice(_GREETINGS), body, rng.choice(_ENDS)) if kind != "spam" else (body,)
    slots = {name: rng.choice(choices) for name, choices in _SLOTS.items()}
    text = " ".join(filter(None, parts)).format(
        **slots, number=rng.randrange(10_000, 99_999), price=rng.randrange(5, 95)
    )
    return kind, _typo(rng, text) if rng.random() < 0.2 else text


def _share(kind: str, at_s: float) -> float:
    """Return how common a kind is at a time: spam comes in waves, and an outage for a short while now and then."""
    wave = math.sin(2 * math.pi * at_s / (2.7 * ERA_S))
    if kind == "spam":
        return 2.0 + 1.2 * wave
    if kind == "outage":
        return 3.0 if at_s % (3 * ERA_S) > 2.6 * ERA_S else 0.0
    return {"billing": 1.5 - 0.5 * wave, "delivery": 2.0, "account": 1.2, "praise": 0.8 - 0.3 * wave}[kind]


def _typo(rng: random.Random, text: str) -> str:
    """Return a text with two neighbours exchanged, inside of a word."""
    place = rng.choice([at for at in range(len(text) - 1) if text[at : at + 2].isalpha()])
    return text[:place] + text[place + 1] + text[place] + text[place + 2 :]
