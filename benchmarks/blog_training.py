"""The blog's training loop as written; ``training.py`` times it.  Prints a line after each step, for ever.

    python benchmarks/blog_training.py FOLDER           # one folder of pictures a class below FOLDER

One process, Paddle's default settings, Paddle's ResNet-50, every picture read and augmented by PIL in the main
process (``num_workers=0``) each time it is needed, Adam.  Nothing of paddle_cxr is imported: it would set up the CPU.
"""

from __future__ import annotations

import sys
from pathlib import Path

import paddle
from input_pipeline import BATCH, blog_image


class Pictures(paddle.io.Dataset):
    """float32 [3, 224, 224] in 0…1, and the number of the folder it lies in."""

    def __init__(self, root: Path) -> None:
        folders = sorted(folder for folder in root.iterdir() if folder.is_dir())
        self.files = [(file, label) for label, folder in enumerate(folders) for file in sorted(folder.glob("*.jpg"))]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int):
        file, label = self.files[index]
        return blog_image(file), label


def main() -> None:
    model = paddle.vision.models.resnet50(num_classes=3)
    model.train()
    optimizer = paddle.optimizer.Adam(learning_rate=3e-4, parameters=model.parameters())
    loss_function = paddle.nn.CrossEntropyLoss()
    loader = paddle.io.DataLoader(Pictures(Path(sys.argv[1])), batch_size=BATCH, shuffle=True, drop_last=True,
                                  num_workers=0)
    while True:
        for images, labels in loader:
            loss = loss_function(model(images), labels)
            loss.backward()
            optimizer.step()
            optimizer.clear_grad()
            print(f"step {loss.item():.4f}", flush=True)


if __name__ == "__main__":
    main()
