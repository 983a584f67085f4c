"""Has a data set changed since?  Asked of results that were made of it, before they count as its own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from paddle_cxr.data.records import Source, file_size


def data_stamp(source: Source) -> str:
    """16 hex digits over what decides a run's data, without opening an image.

    Over the source's fingerprint (files and their sizes, labels, reports), and what that leaves out: patients, the
    publisher's split, views and the sizes of mask files.  No times, which copying changes; so an image that was painted
    over and has the size it had is not noticed.
    """
    digest = hashlib.sha256(source.fingerprint().encode())
    masked = [info.name for info in getattr(source, "findings", ())] + list(getattr(source, "regions", ()))
    for index, record in enumerate(source.records):
        facts = [record.patient_id, record.split, record.fold, getattr(record, "view", "")]
        for finding in masked:
            file = source.mask_file(index, finding)
            if file is not None:
                facts.append(file_size(str(file)))
        digest.update(f"{facts}\n".encode())
    return digest.hexdigest()[:16]


def fold_stamps(source: Source, divisions: Iterable[Sequence[str]]) -> list[str]:
    """16 hex digits for each division, one subset name a record, of a data set, whose files are asked for once."""
    stamp = data_stamp(source)
    return [hashlib.sha256(f"{stamp} {list(subsets)}".encode()).hexdigest()[:16] for subsets in divisions]
