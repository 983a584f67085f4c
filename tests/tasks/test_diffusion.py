"""Training latent diffusion: the loss against its formula, the cache, and whole runs through the engine."""

import errno
import json
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from helpers import ONE_THREAD, command, kill_at_first_checkpoint, run_tool
from recipes import ROOT
from safetensors.numpy import load_file

pytest.importorskip("ppdiffusers")

import paddle  # noqa: E402
from sklearn.decomposition import PCA  # noqa: E402

from paddle_cxr.engine.distributed import World  # noqa: E402
from paddle_cxr.engine.jobs import job_named  # noqa: E402
from paddle_cxr.engine.output import RunFolder  # noqa: E402
from paddle_cxr.errors import UserError  # noqa: E402
from paddle_cxr.models.latent_diffusion import (  # noqa: E402
    build_latent_diffusion,
    load_latent_diffusion,
    sample,
    save_latent_diffusion,
)
from paddle_cxr.models.patch_autoencoder import PatchAutoencoder  # noqa: E402
from paddle_cxr.recipe import task_of  # noqa: E402
from paddle_cxr.synthesis.generators.diffusers import DiffusersGenerator  # noqa: E402
from paddle_cxr.synthesis.locks import locked  # noqa: E402
from paddle_cxr.tasks.diffusion import run as run_module  # noqa: E402
from paddle_cxr.tasks.diffusion.data import Latents  # noqa: E402
from paddle_cxr.tasks.diffusion.recipe import load  # noqa: E402
from paddle_cxr.tasks.diffusion.run import _build  # noqa: E402
from paddle_cxr.tasks.diffusion.task import DiffusionTask, loss_weights  # noqa: E402
from paddle_cxr.tasks.pairs import load_pairs  # noqa: E402

RECIPE = """
Global: {{task: diffusion, output_dir: {output}, device: cpu, seed: 3, epochs: 2, image_shape: [1, 32, 32],
         micro_batches: 2, ranks: 1, ema: 0.9, keep: last}}
Arch:
  name: LatentDiffusion
  vae: {{name: PatchAutoencoder, patch: 4, channels: 4}}
  unet: {{sample_size: 8, block_out_channels: [8, 16], down_block_types: [DownBlock2D, CrossAttnDownBlock2D],
          up_block_types: [CrossAttnUpBlock2D, UpBlock2D], layers_per_block: 1, attention_head_dim: 2,
          norm_num_groups: 4}}
  text_encoder: {{hidden_size: 16, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2,
                  max_position_embeddings: 20}}
  tokenizer: {{vocab_size: 600}}
  scheduler: {{prediction_type: {prediction}}}
Loss: {{name: DenoisingLoss, min_snr: {min_snr}, text_dropout: 0.5}}
Optimizer: {{name: AdamW, lr: {{name: Constant, learning_rate: 1.0e-3}}}}
DataLoader:
  Source: {{name: PhantomPairs, count: 24, seed: 5, size: 32, findings: [normal, "effusion:left", "effusion:right"]}}
  Split: {{name: PatientSplit, val: 0.25, test: 0.0}}
  cache: {{mode: memory}}
  Train: {{sampler: {{batch_size: 8}}}}
  Eval: {{sampler: {{batch_size: 4}}}}
Sampling: {{images: 2, steps: 2, scheduler: ddim}}
"""


def write_recipe(folder: Path, prediction: str = "epsilon", min_snr: str = "null") -> Path:
    file = folder / "tiny.yaml"
    file.write_text(RECIPE.format(output=folder / "out", prediction=prediction, min_snr=min_snr), encoding="utf-8")
    return file


def make_task(folder: Path, *overrides: str, mode: str = "memory", **wanted: str) -> DiffusionTask:
    loaded = load(write_recipe(folder, **wanted), overrides)
    data = load_pairs(loaded, lambda _: None)
    paddle.seed(0)
    diffusion = _build(loaded.recipe, data, data.positions("train"))
    latents = Latents(diffusion, data, mode, str(folder / "cache"), World(), lambda _: None)
    return DiffusionTask(loaded, data, diffusion, latents, World())


train = partial(run_tool, "train")


def weights(output: Path) -> dict[str, np.ndarray]:
    return load_file(output / "checkpoints" / "latest" / "model.safetensors")


def same(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> bool:
    return left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in left)


# --- the loss ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("min_snr", ["null", "5.0"])
def test_loss_is_that_of_the_papers(tmp_path, prediction, min_snr):
    """Against ppdiffusers' own noising, and weights written down from the paper's table."""
    from ppdiffusers import DDPMScheduler

    task = make_task(tmp_path, prediction=prediction, min_snr=min_snr)
    batch, seed = task.train[:6], (3, 0, 0)
    got, sums = task.loss(batch, seed)

    rng = np.random.default_rng(seed)
    clean = task.latents.draw(batch, rng)
    times = rng.integers(0, 1000, 6)
    noise = paddle.to_tensor(rng.standard_normal(clean.shape, np.float32))
    empty = rng.random(6) < 0.5
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    noisy = scheduler.add_noise(clean, noise, paddle.to_tensor(times))
    prompts = [record.prompt for record in task.data.source.records]
    texts = ["" if left_out else prompts[position] for left_out, position in zip(empty, batch, strict=True)]
    context = task.diffusion.encode_text(texts)[0]
    predicted = task.diffusion.unet(noisy, paddle.to_tensor(times), encoder_hidden_states=context).sample
    wanted = noise if prediction == "epsilon" else scheduler.get_velocity(clean, noise, paddle.to_tensor(times))
    squares = ((predicted - wanted) ** 2).numpy().reshape(6, -1).mean(axis=1)
    snr = [float(scheduler.alphas_cumprod[t] / (1 - scheduler.alphas_cumprod[t])) for t in times]
    each = {"null": [1.0] * 6, "5.0": [min(one, 5.0) / (one + (prediction != "epsilon")) for one in snr]}[min_snr]
    assert float(got) == pytest.approx(float(np.mean(squares * each)), rel=1e-4)
    assert sums == {"count": 6.0}
    assert empty.any() and not empty.all()


def test_min_snr_weighs_the_image_error_equally_in_both_predictions():
    """v's and the noise's error are the image's times SNR + 1 and SNR: the weights undo that."""
    left = np.linspace(0.999, 0.001, 50)
    snr = left / (1 - left)
    assert np.allclose(loss_weights(left, "epsilon", 5.0) * snr, np.minimum(snr, 5))
    assert np.allclose(loss_weights(left, "v_prediction", 5.0) * (snr + 1), np.minimum(snr, 5))
    assert (loss_weights(left, "epsilon", None) == 1).all()


def test_every_part_but_the_autoencoder_learns(tmp_path):
    task = make_task(tmp_path, "Loss.text_dropout=0.0")
    loss, _ = task.loss(task.train[:8], (1, 2, 3))
    loss.backward()
    for part in (task.diffusion.unet, task.diffusion.text_encoder):
        gradients = [float((p.grad**2).sum()) for p in part.parameters() if p.grad is not None]
        assert sum(gradient > 0 for gradient in gradients) > 0.8 * len(part.parameters())
    assert not list(task.diffusion.vae.parameters())
    names = [name for name, _ in task.model.named_parameters()]
    assert {name.split(".")[0] for name in names} == {"unet", "text_encoder"}


def test_validation_says_the_same_twice_and_is_lower_for_a_better_model(tmp_path):
    task = make_task(tmp_path)
    task.model.eval()
    first, second = task.validate(), task.validate()
    assert first == second and first["images"] == 6
    for parameter in task.diffusion.unet.conv_out.parameters():
        parameter.set_value(parameter * 0)  # predicts 0: the error is the noise's variance
    zero = task.validate()
    assert zero["loss"] == pytest.approx(1.0, abs=0.1)
    assert task.better({"loss": 0.5}, first | {"loss": 0.6}) and not task.better({"loss": 0.6}, {"loss": 0.6})


# --- latents -----------------------------------------------------------------------------------------------------

def test_latents_are_the_same_from_memory_from_disk_and_without_a_cache(tmp_path):
    drawn = {}
    for mode in ("none", "memory", "disk", "disk"):  # the second time the file is there
        task = make_task(tmp_path, mode=mode)
        drawn[mode] = task.latents.draw(np.array([3, 0, 7]), np.random.default_rng(0)).numpy()
    assert np.allclose(drawn["memory"], drawn["none"], atol=5e-3)  # half precision
    assert np.array_equal(drawn["memory"], drawn["disk"])
    assert len(list((tmp_path / "cache").glob("*.latents.npy"))) == 1


def test_a_damaged_cache_of_latents_is_made_again(tmp_path):
    wanted = make_task(tmp_path, mode="memory").latents.draw(np.arange(3), np.random.default_rng(0)).numpy()
    make_task(tmp_path, mode="disk")
    file, = (tmp_path / "cache").glob("*.latents.npy")
    for content in (b"", file.read_bytes()[:500], b"something else"):
        file.write_bytes(content)
        drawn = make_task(tmp_path, mode="disk").latents.draw(np.arange(3), np.random.default_rng(0))
        assert np.array_equal(drawn.numpy(), wanted)


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    """The space is taken beforehand: writing into a memory map of a full disk ends the program without a word."""
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match=r"DataLoader.latents.folder.*No space left"):
        make_task(tmp_path, mode="disk")
    assert not list((tmp_path / "cache").glob("*.latents.npy")) + list((tmp_path / "cache").glob("*.tmp"))


def test_two_runs_compute_the_same_latents_one_after_the_other(tmp_path):
    wanted = make_task(tmp_path, mode="disk").latents.draw(np.arange(3), np.random.default_rng(0)).numpy()
    file, = (tmp_path / "cache").glob("*.latents.npy")
    file.unlink()
    with ThreadPoolExecutor(1) as other:
        with locked(file.with_suffix(".lock")):
            running = other.submit(make_task, tmp_path, mode="disk")
            time.sleep(2)
            assert not running.done() and not list(file.parent.glob("*.tmp")) and not file.exists()
        drawn = running.result(60).latents.draw(np.arange(3), np.random.default_rng(0))
    assert np.array_equal(drawn.numpy(), wanted)


def test_latents_of_another_scale_are_others(tmp_path):
    """The factor stands in a folder's config.json and not in its weights."""
    task = make_task(tmp_path)
    before = task.latents._key(task.data)
    assert task.latents._key(task.data) == before
    task.diffusion.scaling_factor *= 2
    assert task.latents._key(task.data) != before


def test_cached_latents_of_a_deep_autoencoder_are_drawn_anew_each_time(tmp_path):
    """The cache holds mean and deviation; what is drawn from them is what encoding the image gives."""
    task = make_task(tmp_path)
    config = {"vae": {"in_channels": 3, "out_channels": 3, "latent_channels": 4, "block_out_channels": [8, 8, 8],
                      "down_block_types": ["DownEncoderBlock2D"] * 3, "up_block_types": ["UpDecoderBlock2D"] * 3,
                      "norm_num_groups": 4}, "unet": task.recipe.Arch.unet, "tokenizer": {"vocab_size": 600},
              "text_encoder": task.recipe.Arch.text_encoder}
    model = build_latent_diffusion(config, ["no effusion"])
    model.vae.eval()
    drawn = [Latents(model, task.data, mode, "", World(), str).draw(np.arange(3), np.random.default_rng(seed))
             for mode, seed in (("memory", 0), ("none", 0), ("memory", 1))]
    assert np.allclose(drawn[0].numpy(), drawn[1].numpy(), atol=1e-2)
    assert not np.allclose(drawn[0].numpy(), drawn[2].numpy(), atol=1e-2)


def test_patch_autoencoder_is_principal_component_analysis():
    rng = np.random.default_rng(0)
    images = np.clip(rng.normal(128, 40, (12, 16, 16)) + rng.normal(0, 40, (12, 16, 1)), 0, 255).astype(np.uint8)
    pixels = paddle.to_tensor(images[:, None] / 127.5 - 1, dtype="float32")
    errors = []
    for channels in (2, 6, 16):
        vae = PatchAutoencoder(4, channels)
        vae.fit(images, np.arange(12))
        latents = vae.encode(pixels).latent_dist.mean
        assert latents.shape == [12, channels, 4, 4]
        assert float((latents**2).mean()) == pytest.approx(1, abs=0.05)
        again = vae._pixels(latents * vae.scale.reshape([1, -1, 1, 1])).numpy()
        assert np.allclose(vae.decode(latents)[0].numpy(), again, atol=1e-5) or channels < 16  # nothing to smooth
        patches = pixels.numpy().reshape(12, 4, 4, 4, 4).transpose(0, 1, 3, 2, 4).reshape(-1, 16)
        reference = PCA(channels).fit(patches)
        wanted = reference.inverse_transform(reference.transform(patches)).reshape(12, 4, 4, 4, 4)
        assert np.allclose(again[:, 0], wanted.transpose(0, 1, 3, 2, 4).reshape(12, 16, 16), atol=1e-4)
        errors.append(float(((again - pixels.numpy()) ** 2).mean()))
    assert errors[0] > errors[1] > errors[2] < 1e-8


def test_patch_autoencoder_refuses_what_it_cannot_do():
    with pytest.raises(UserError, match="channels（17）在 1 与"):
        PatchAutoencoder(4, 17)
    with pytest.raises(UserError, match="应是 5 的倍数"):
        PatchAutoencoder(5, 4).fit(np.zeros((2, 16, 16), np.uint8), np.arange(2))
    with pytest.raises(UserError, match="只有 0 个不同的方向"):
        PatchAutoencoder(4, 4).fit(np.full((2, 16, 16), 9, np.uint8), np.arange(2))


# --- whole runs --------------------------------------------------------------------------------------------------

def test_a_run_leaves_a_model_that_draws(tmp_path):
    file = write_recipe(tmp_path)
    done = train(file)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["demo_data"] is True and metrics["synthetic"] is True and metrics["texts_cut"] == 0
    assert {"samples.png", "curves.png", "history.csv", "config.yaml"} <= {one.name for one in out.iterdir()}
    model = load_latent_diffusion(out / "model")
    assert json.loads((out / "model" / "model.json").read_text(encoding="utf-8"))["demo_data"] is True
    image, = sample(model, ["Small left pleural effusion."], [1], steps=2, height=32, width=32)
    assert image.shape == (32, 32)
    written = {name: (out / name).stat().st_mtime_ns for name in ("metrics.json", "samples.png", "curves.png")}
    assert max(written, key=written.get) == "metrics.json"  # it says that the run is complete: it comes last
    kept = weights(out)  # the averaged weights are what the folder holds
    assert np.array_equal(kept["unet.conv_in.weight"], model.unet.conv_in.weight.numpy())

    again = train(file, f"Arch.folder={out / 'model'}", "Arch.vae={}", "Arch.unet={}", "Arch.text_encoder={}",
                  "Arch.tokenizer={}", "Arch.scheduler={}", "Global.freeze=[text_encoder]", "Global.epochs=1",
                  f"Global.output_dir={tmp_path / 'more'}", "Global.ema=null")
    assert again.returncode == 0, again.stderr
    further = weights(tmp_path / "more")
    moved = {name.split(".")[0] for name in kept if not np.array_equal(kept[name], further[name])}
    assert moved == {"unet"}


def test_a_dry_run_stores_no_latents(tmp_path):
    """Encoding 200,000 images takes hours, and a dry run promises to write nothing."""
    file = write_recipe(tmp_path)
    wanted = f"DataLoader.latents={{mode: disk, folder: {tmp_path / 'cache'}}}"
    done = subprocess.run([*command("train", file, wanted), "--dry-run"], capture_output=True, text=True, timeout=240,
                          cwd=tmp_path, env=os.environ | ONE_THREAD)
    assert done.returncode == 0 and "试运行" in done.stdout, done.stderr
    assert not (tmp_path / "cache").exists() and not (tmp_path / "out").exists()


def test_a_model_trained_further_on_another_size_draws_that_size(tmp_path):
    task = make_task(tmp_path)
    save_latent_diffusion(task.diffusion, tmp_path / "model", demo=True, meta={})
    empty = [f"Arch.{key}={{}}" for key in ("vae", "unet", "text_encoder", "tokenizer", "scheduler")]
    loaded = load(write_recipe(tmp_path), [f"Arch.folder={tmp_path / 'model'}", *empty,
                                           "Global.image_shape=[1, 64, 64]"])
    said: list[str] = []
    model = _build(loaded.recipe, task.data, task.train, said.append)
    assert model.image_size == 64 and "32×32" in said[0] and "64×64" in said[0]
    save_latent_diffusion(model, tmp_path / "larger", demo=True, meta={})
    assert load_latent_diffusion(tmp_path / "larger").image_size == 64


def test_no_memory_for_the_samples_does_not_cost_the_run(tmp_path, monkeypatch):
    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr(run_module, "sample", full)
    task, folder = make_task(tmp_path), RunFolder(tmp_path / "out")
    run_module._write(load(write_recipe(tmp_path)), task, folder, {})
    folder.close()
    assert (tmp_path / "out" / "metrics.json").is_file() and not (tmp_path / "out" / "samples.png").exists()
    assert "Sampling.batch_size" in (tmp_path / "out" / "log.txt").read_text(encoding="utf-8")


def test_two_ranks_equal_one_process(tmp_path):
    file = write_recipe(tmp_path, "v_prediction", "5.0")
    for ranks in (1, 2):
        done = train(file, f"Global.ranks={ranks}", f"Global.output_dir={tmp_path / str(ranks)}", "Sampling.images=0",
                     f"DataLoader.latents.mode={'disk' if ranks > 1 else 'memory'}")
        assert done.returncode == 0, done.stderr
    one, two = weights(tmp_path / "1"), weights(tmp_path / "2")
    assert max(float(np.abs(one[name] - two[name]).max()) for name in one) < 1e-6


def test_a_killed_run_continues_to_the_same_weights(tmp_path):
    file = write_recipe(tmp_path)
    whole = train(file, f"Global.output_dir={tmp_path / 'whole'}", "Sampling.images=0", "Global.epochs=3")
    assert whole.returncode == 0, whole.stderr
    settings = [f"Global.output_dir={tmp_path / 'parts'}", "Sampling.images=0", "Global.epochs=3",
                "Global.save_every_steps=1"]
    kill_at_first_checkpoint(file, tmp_path / "parts", *settings[1:])
    rest = train(file, *settings)
    assert rest.returncode == 0 and "续训" in rest.stdout, rest.stderr
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_prompts_that_are_too_long_are_counted(tmp_path):
    task = make_task(tmp_path, "Arch.text_encoder.max_position_embeddings=4")
    assert task.cut == len([record for record in task.data.source.records])


# --- bad input ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("override", "said"), [
    ("Arch.folder=nowhere", "Arch.vae：写了 Arch.folder"),
    ("Arch.vae={}", "Arch：从头训练要写 Arch.vae 和 Arch.unet"),
    ("Global.image_shape=[3, 32, 32]", "Global.image_shape：扩散模型只画灰度图"),
    ("DataLoader.Source.findings=[nothing]", "画不出 'nothing'"),
    ("DataLoader.Train.sampler.balance=true", "balance：图文对没有类别"),
    ("Arch.unet.norm_num_groups=5", "Arch.unet：这些值搭不出 unet"),
    ("Arch.vae.patch=5", "Arch.vae.patch"),
    ("Arch.vae={in_channels: 1}", "Arch.vae.name：从头训练只能写 PatchAutoencoder"),
    ("Global.image_shape=[1, 64, 64]", "Arch.unet.sample_size：应为"),
    ("Global.image_shape=[1, 32, 64]", "Global.image_shape：高和宽应相等"),
    ("Arch.scheduler.beta_strat=0.1", "Arch.scheduler.beta_strat：没有这个键，是不是 beta_start"),
    ("Arch.text_encoder.vocab_size=900", "Arch.text_encoder.vocab_size：由分词器决定"),
    ("Arch.text_encoder.max_position_embeddings=2", "max_position_embeddings 应为不小于 3"),
    ("Arch.tokenizer.vocab_size=many", "整数"),
    ("Loss.min_snr=0", "Loss.min_snr"),
    ("Global.task=difusion", "是不是 diffusion"),
    ("DataLoader.Source={name: PairsFile, file: gone.jsonl}", "gone.jsonl"),
])
def test_a_wrong_key_is_one_clear_line(tmp_path, override, said):
    with pytest.raises(UserError) as error:
        job_named(task_of(write_recipe(tmp_path), [override]))
        make_task(tmp_path, override)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(("override", "said"), [
    ("Arch.unet.sampel_size=8", "是不是 sample_size"), ("Arch.scheduler.beta_end=2", "beta_end"),
    ("Arch.tokenizer.size=8", "Arch.tokenizer.size"), ("Sampling.steps=1001", "Sampling.steps：1001")])
def test_what_the_recipe_says_wrong_is_told_before_the_images_are_read(tmp_path, override, said):
    with pytest.raises(UserError, match=said):
        run_module.check(load(write_recipe(tmp_path), [override]).recipe)


def test_a_folder_without_a_model_is_named(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    done = train(write_recipe(tmp_path), f"Arch.folder={empty}", *(f"Arch.{key}={{}}" for key in (
        "vae", "unet", "text_encoder", "tokenizer", "scheduler")))
    assert done.returncode == 2 and str(empty) in done.stderr and "model_index.json" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_saving_keeps_a_patch_autoencoder(tmp_path):
    task = make_task(tmp_path)
    save_latent_diffusion(task.diffusion, tmp_path / "model", demo=True, meta={})
    again = load_latent_diffusion(tmp_path / "model")
    pixels = paddle.to_tensor(np.random.default_rng(0).random((1, 1, 32, 32)), dtype="float32")
    assert np.array_equal(again.encode_images(pixels).numpy(), task.diffusion.encode_images(pixels).numpy())


# --- real radiographs --------------------------------------------------------------------------------------------

@pytest.mark.slow
@pytest.mark.skipif("PADDLE_CXR_REAL_DATA" not in os.environ, reason="needs the 880 real radiographs")
def test_the_twin_trains_on_real_radiographs(tmp_path):
    done = train(ROOT / "configs" / "diffusion_covid3.yaml", "Global.epochs=2", "Sampling.images=4", "Sampling.steps=5",
                 f"DataLoader.Source.source.root={Path(os.environ['PADDLE_CXR_REAL_DATA']) / 'cxr'}",
                 f"DataLoader.cache.folder={tmp_path}", f"Global.output_dir={tmp_path / 'out'}", timeout=600)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["demo_data"] is False and metrics["dataset"]["train"] > 800
    assert metrics["history"]["best"]["loss"] < 1
    assert DiffusersGenerator(str(tmp_path / "out" / "model"), steps=2, device="cpu").title == "out"
