"""Reports → images → judge → similarity → drawn again with a new seed → image–report pairs (SynCXR, arXiv 2410.13523).

    schema.py    the keys of a recipe
    source.py    the reports, each of which becomes a pair
    stages.py    what a worker does: draw, judge, compare; rows in, rows out
    store.py     finished rows on disk, one file a stage
    decision.py  from a pair's rows to what is to be done next
    folder.py    the output folder: locks, what may not change, the reports, forgetting
    run.py       one shard from its first drawing to its last
    merge.py     all shards to pairs.jsonl
    summary.py   metrics.json and summary.md; figures.py: the waterfall and contact sheets
"""
