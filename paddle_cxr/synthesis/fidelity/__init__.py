"""How close generated images come to real ones: the fidelity figures of ``tools/analyze.py fidelity``.

    distances      Fréchet distance, kernel distance, precision/recall, density/coverage of two clouds of features
    diversity      MS-SSIM of pairs of images
    memorisation   is a generated image a copy of one the generator was trained on?
    agreement      does a classifier see what the image was drawn for?
    images         the sets that are compared; features: their vectors, kept in the output folder
    run, report    the command, and the table it writes
"""
