"""All shards together: ``pairs.jsonl`` and ``rejected.jsonl``, written by whoever finds that every pair is finished."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from paddle_cxr.files import remove_leftovers, write_atomic
from paddle_cxr.synthesis.pairs.decision import Outlook, Policy
from paddle_cxr.synthesis.pairs.folder import PAIRS, REJECTED, Opened, setting_up
from paddle_cxr.synthesis.pairs.schema import PairsRecipe
from paddle_cxr.synthesis.pairs.source import Order
from paddle_cxr.synthesis.pairs.store import Rows, Store
from paddle_cxr.synthesis.pairs.summary import Tally, write_summary


def merge(recipe: PairsRecipe, opened: Opened, shards: int) -> bool:
    """Write the final files if the pairs of all shards are finished; returns whether they are.

    They depend on the rows alone: whoever writes them, and however often, they come out the same.
    """
    with setting_up(opened.path):
        rows, policy = Store(opened.path, 0, 1).rows, Policy.of(recipe)
        tally, open_ = Tally(), 0
        for order in opened.source.orders():
            outlook = policy.outlook(rows, order.number, order.report.impression)
            open_ += outlook.next is not None
            tally.add(order, outlook, rows)
        if open_:
            opened.log.say(f"这一片做完了；还有 {open_} 对由其余各片做，最后做完的一片合并成 {PAIRS}")
            return False
        if shards > 1:
            opened.log.say(f"{shards} 片都做完了，合并成 {PAIRS}")
        remove_leftovers(opened.path / "images")
        _write_both(opened, rows, policy)
        write_summary(recipe, opened, tally, rows)
    return True


def _write_both(opened: Opened, rows: Rows, policy: Policy) -> None:
    """Record by record, as 200,000 of them need not be in memory."""
    for name, accepted in ((REJECTED, False), (PAIRS, True)):
        make = pair_record if accepted else rejected_record

        def write(file: Path, accepted: bool = accepted, make: Any = make) -> None:
            with open(file, "w", encoding="utf-8", errors="backslashreplace", newline="\n") as stream:
                for order, outlook in _outlooks(opened, rows, policy):
                    if outlook.accepted is accepted:
                        _write_line(stream, make(order, outlook, rows))

        write_atomic(opened.path / name, write)


def _outlooks(opened: Opened, rows: Rows, policy: Policy) -> Iterator[tuple[Order, Outlook]]:
    for order in opened.source.orders():
        yield order, policy.outlook(rows, order.number, order.report.impression)


def _write_line(stream: TextIO, record: dict[str, Any]) -> None:
    stream.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")


def pair_record(order: Order, outlook: Outlook, rows: Rows) -> dict[str, Any]:
    """The line of an accepted pair: the project's contract for image–report pairs, and ``attempts``."""
    key = order.number, outlook.attempts[-1].number
    drawing, judgement, comparison = rows.drawn[key], rows.judged.get(key), rows.compared.get(key)
    answers = {question: answer.passed for question, answer in judgement.verdict.items()} if judgement else None
    return {
        "id": order.id, "image": drawing.image, "findings": order.report.findings,
        "impression": order.report.impression, "entities": order.entities, "labels": order.labels,
        "patient_id": order.id,  # every drawing is a person of its own, who does not exist
        **({"side": order.told[1]} if order.told[1] else {}),
        "view": "frontal", "source": "synthetic", "writer": order.report.writer, "generator": drawing.generator,
        "seed": drawing.seed, "judge": {"name": judgement.judge, "answers": answers} if judgement else None,
        "similarity": comparison.similarity if comparison else None, "attempts": len(outlook.attempts)}


def rejected_record(order: Order, outlook: Outlook, rows: Rows) -> dict[str, Any]:
    """The line of a rejected pair: why, and each of its drawings with the reason it did not pass."""
    drawings = []
    for attempt in outlook.attempts:
        drawing = rows.drawn.get((order.number, attempt.number))
        drawings.append({"image": drawing.image if drawing else "", "seed": drawing.seed if drawing else None,
                         "stage": attempt.failed, "reason": attempt.reason})
    last = outlook.attempts[-1]
    return {"id": order.id, "reason": f"{last.failed}: {last.reason}", "findings": order.report.findings,
            "impression": order.report.impression, "entities": order.entities, "source": "synthetic",
            "writer": order.report.writer, "drawings": drawings}
