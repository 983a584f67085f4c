"""导出：python tools/export.py -c configs/resnet50.yaml [--formats inference onnx pdparams]"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout that is not installed

from paddle_cxr import cli  # noqa: E402


def main(arguments):
    from paddle_cxr.engine.distributed import World
    from paddle_cxr.engine.evaluate import checkpoint_path, load_trained
    from paddle_cxr.engine.run import load_data
    from paddle_cxr.inference import export_model
    from paddle_cxr.recipe import load

    loaded = load(arguments.config, arguments.override)
    weights = checkpoint_path(loaded)
    model, meta, notices = load_trained(loaded, weights)
    for line in [*loaded.notices, *notices]:
        print(line)
    data = load_data(loaded, print, World(), only=loaded.recipe.DataLoader.Eval.subset)
    report = export_model(
        model, data.preprocess.to_dict(), [{"name": c.name, "zh": c.zh, "en": c.en} for c in loaded.classes],
        loaded.recipe.Global.image_shape, arguments.output or Path(loaded.recipe.Global.output_dir) / "export",
        arguments.formats, sample_inputs=data.preprocess.normalize(data.images[:8]), source=weights,
        demo_data=bool(meta.get("demo_data")))
    checked = report["checked"]
    differences = "，".join(f"{kind} {value:.1e}" for kind, value in checked["max_difference"].items())
    print(f"已导出到 {report['folder']}；在 {checked['images']} 张图像上与训练的模型核对，概率最大相差：{differences}")


if __name__ == "__main__":
    parser = cli.parser("导出静态图推理模型（Paddle Inference）、ONNX 和 .pdparams，并在真实图像上与训练的模型核对")
    parser.add_argument("--formats", nargs="+", choices=("inference", "onnx", "pdparams"),
                        default=("inference", "onnx", "pdparams"), help="导出哪些格式，默认全部")
    parser.add_argument("--output", help="输出目录，默认 output_dir/export")
    cli.run(main, parser.parse_args())
