"""The web page: classify, find a phrase, write a report, draw an image.  ``tools/app.py`` opens it.

    schema, recipe   what the YAML file says
    texts            every sentence of the page, Chinese and English
    images           uploads, phantoms to click, heat maps as pictures
    worker           one thread and one bounded queue for a model
    classify, find, write, draw      what one tab computes: plain Python, without the page
    tabs             opens the four, or keeps why one cannot be opened
    handlers         what a click does: inputs of the page → outputs of the page; every mistake becomes a message
    page             the Gradio page
    serve            the server: address, limits, no outside address
"""
