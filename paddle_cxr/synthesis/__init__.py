"""From entities to reports: vocabulary, balanced sampling, writing, checking, analysis (SynCXR, arXiv 2410.13523)."""
