"""All questions, in the order of the table."""

from banyan.errors import NotFound
from bench import (
    claim_latency,
    commands,
    contention,
    echo,
    idle_server,
    idle_worker,
    model_latency,
    noop_models,
    one_second,
    posting,
    servers,
    settling,
    sweep,
    wake_up,
    where,
)
from bench.question import Question

QUESTIONS: tuple[Question, ...] = (
    echo.QUESTION,
    noop_models.QUESTION,
    posting.QUESTION,
    sweep.QUESTION,
    claim_latency.QUESTION,
    wake_up.QUESTION,
    idle_server.QUESTION,
    idle_worker.QUESTION,
    settling.QUESTION,
    one_second.QUESTION,
    contention.QUESTION,
    where.QUESTION,
    servers.QUESTION,
    model_latency.QUESTION,
    commands.QUESTION,
)


def named(name: str) -> Question:
    """The question of this name; raises `NotFound` that lists them all."""
    for question in QUESTIONS:
        if question.name == name:
            return question
    raise NotFound(f"there is no question {name!r}; there are {', '.join(each.name for each in QUESTIONS)}")
