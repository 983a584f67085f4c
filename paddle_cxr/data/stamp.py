"""Has a data set changed since?  Asked of results that were made of it, before they count as its own."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

from paddle_cxr.data.records import Source


def data_stamp(source: Source, subsets: Sequence[str] = ()) -> str:
    """16 hex digits over what decides a run's data, without opening an image.

    Over the source's fingerprint (files and their sizes, labels, reports), and what that leaves out: patients, the
    publisher's split, views and the sizes of mask files.  No times, which copying changes; so an image that was painted
    over and has the size it had is not noticed.

    Args:
        source: the data set.
        subsets: the division, one name a record; none where the recipe's ``Split`` makes it of what is stamped.
    """
    digest = hashlib.sha256(f"{source.fingerprint()} {list(subsets)}".encode())
    masked = [info.name for info in getattr(source, "findings", ())] + list(getattr(source, "regions", ()))
    for index, record in enumerate(source.records):
        facts = [record.patient_id, record.split, record.fold, getattr(record, "view", "")]
        for finding in masked:
            file = source.mask_file(index, finding)
            if file is not None:
                facts.append(os.stat(file).st_size if file.is_file() else -1)
        digest.update(f"{facts}\n".encode())
    return digest.hexdigest()[:16]
