"""The comparison: pretrain on each data mixture, evaluate every task, and put the figures side by side.

    schema   what a recipe of a comparison says
    recipe   reading and checking it
    check    reading the recipe of every run, before the first one starts
    plan     the runs it stands for, each with a recipe of its own and the runs it waits for
    execute  doing them, as many at a time as there are devices; a finished run is not done again
    results  what the runs found: mean, s.d., paired bootstrap against the reference
    report   table (Markdown, CSV), figures, and what they say
"""
