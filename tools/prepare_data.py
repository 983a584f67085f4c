"""检查数据：python tools/prepare_data.py -c configs/resnet50.yaml [-o Prepare.on_error=skip]"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout that is not installed

from paddle_cxr import cli  # noqa: E402


def main(arguments):
    from paddle_cxr.config import explained
    from paddle_cxr.data.labelled import open_source
    from paddle_cxr.data.prepare import prepare, summary
    from paddle_cxr.recipe import load
    from paddle_cxr.registry import build

    loaded = load(arguments.config, [*arguments.override, "fallback=null"])  # phantoms have no files to check
    with explained(loaded.origins):
        split = build("split", loaded.recipe.DataLoader.Split, "DataLoader.Split")
        print(summary(prepare(open_source(loaded), split, **loaded.recipe.Prepare.model_dump())))


if __name__ == "__main__":
    parser = cli.parser("检查每一张图像，找出损坏与重复，按患者划分，写出清单（list.csv、train.csv …）与 report.json")
    cli.run(main, parser.parse_args())
