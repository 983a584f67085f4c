"""Doing a comparison's runs: as many at a time as there are devices, each finished one only once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import yaml

from paddle_cxr import cpu
from paddle_cxr.compare.data import with_data
from paddle_cxr.compare.one_run import PARENT
from paddle_cxr.compare.plan import Run
from paddle_cxr.compare.recipe import TRAINED
from paddle_cxr.compare.schema import StepSection
from paddle_cxr.config import merge
from paddle_cxr.errors import UserError
from paddle_cxr.files import write_json, write_text
from paddle_cxr.weights import TENSORS

DONE = "done.json"
VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass
class Outcome:
    """What became of the runs.

    Attributes:
        seconds: id → how long it took, of every finished run, in this session or an earlier one.
        failed: id → the last line it printed.
        skipped: ids of runs that need a failed one.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)


def devices(wanted: str | Sequence[str]) -> list[str]:
    """The devices to use, one entry a run at a time; ``auto``: every GPU, or every core of the CPU.

    Raises:
        UserError: something that is no device, or a GPU that is not there.
    """
    if wanted == "auto":
        gpus = _gpus()
        return [f"gpu:{number}" for number in range(gpus)] or ["cpu"] * cpu.available_cores()
    for one in wanted:
        kind, _, number = one.partition(":")
        if one != "cpu" and not (kind == "gpu" and number.isdigit()):
            raise UserError(f"Global.devices：设备写 cpu 或 gpu:0，不能是 {one!r}")
        if kind == "gpu" and int(number) >= _gpus():
            raise UserError(f"Global.devices：没有 {one}（这台机器上飞桨看得见 {_gpus()} 块 GPU）")
    if not wanted:
        raise UserError("Global.devices：一个设备也没有写；请写 auto，或 [cpu, cpu]")
    return list(wanted)


def _gpus() -> int:
    if not cpu.gpu_build_present():
        return 0
    from paddle_cxr.quiet import import_paddle

    import_paddle()
    import paddle

    return paddle.device.cuda.device_count()


def prepare(steps: Sequence[StepSection], say: Callable[[str], None]) -> None:
    """Make what must be there beforehand, in order, where it is not.

    Raises:
        UserError: a step failed, or did not make what the recipe says.
    """
    for number, step in enumerate(steps):
        if Path(step.makes).exists():
            say(f"已有 {step.makes}")
            continue
        command = _command(step, number)
        shown = " ".join(["python", *command])
        say(f"先做 {step.makes}：{shown}")
        begun = time.monotonic()
        if subprocess.run([sys.executable, *command], check=False).returncode:
            raise UserError(f"Prepare.{number}：{shown} 没有做成；改好后重新运行同一命令，会接着做")
        if not Path(step.makes).exists():
            raise UserError(f"Prepare.{number}.makes：{step.recipe} 做完了，却没有 {step.makes}；请改配方里的路径")
        say(f"做好了 {step.makes}，{_clock(time.monotonic() - begun)}")


def _command(step: StepSection, number: int) -> list[str]:
    """What follows ``python``."""
    tool = Path(__file__).resolve().parents[2] / "tools" / f"{step.tool}.py"
    if not tool.is_file():
        raise UserError(f"Prepare.{number}：找不到 {tool}；请在项目文件夹中运行，或先做好 {step.makes}")
    launch = [] if step.processes == 1 else ["-m", "paddle.distributed.launch", "--nproc_per_node",
                                             str(step.processes)]
    try:
        tool = tool.relative_to(Path.cwd())
    except ValueError:  # run from another folder
        pass
    kind = ["quality"] if step.tool == "analyze" else []
    return [*launch, str(tool), *kind, "-c", step.recipe,
            *(part for one in step.override for part in ("-o", one))]


def execute(runs: Sequence[Run], tasks: dict[str, str], slots: Sequence[str], say: Callable[[str], None],
            keep_weights: bool = False, program: Sequence[str] = (sys.executable, "-m", "paddle_cxr.compare.one_run")
            ) -> Outcome:
    """Do every run that is not done.

    A run that fails does not stop the others; those that need it are left out.

    Args:
        runs: each after those it needs.
        tasks: the ``Global.task`` of every entry of ``Tasks``.
        slots: devices; a run gets one for itself.
        say: receives a line a run.
        keep_weights: of fine-tuning and segmentation.
        program: is given ``train`` or ``eval``, ``-c`` and a recipe.
    """
    runs = with_data(runs)
    outcome = Outcome(seconds=_finished(runs))
    waiting = [run for run in runs if run.id not in outcome.seconds]
    if len(waiting) < len(runs):
        say(f"{len(runs) - len(waiting)} 项已经做完，跳过")
    if changed := [run.id for run in waiting if (done := _done(run)) and _of_other_data(run, done["data"])]:
        say(f"{len(changed)} 项要重做，它们的数据（图像、标签、患者或文字）变了：{'、'.join(changed[:3])}"
            + ("等" if len(changed) > 3 else ""))
    free: SimpleQueue[str] = SimpleQueue()
    for slot in slots:
        free.put(slot)
    total, begun = len(waiting), time.monotonic()
    active: dict[Future[str | None], tuple[Run, float]] = {}
    children = _Children()
    with ThreadPoolExecutor(len(slots)) as pool:
        try:
            while waiting or active:
                for run in _ready(waiting, outcome, len(slots) - len(active)):
                    waiting.remove(run)
                    active[pool.submit(_one, run, tasks, free, children, program)] = (run, time.monotonic())
                for run in [run for run in waiting if set(run.after) & {*outcome.failed, *outcome.skipped}]:
                    waiting.remove(run)
                    outcome.skipped.append(run.id)
                if not active:
                    continue
                for future in wait(active, return_when=FIRST_COMPLETED).done:
                    run, started = active.pop(future)
                    trouble, seconds = future.result(), time.monotonic() - started
                    if trouble is None:
                        _clear(run, keep_weights)
                        write_json(run.folder / DONE, {"key": run.key, "data": run.data, "seconds": round(seconds, 1)})
                        outcome.seconds[run.id] = seconds
                    else:
                        outcome.failed[run.id] = trouble
                    ended = total - len(waiting) - len(active)
                    say(f"[{ended}/{total}] {'完成' if trouble is None else '!! 失败'} {run.id}，{_clock(seconds)}，"
                        f"共 {_clock(time.monotonic() - begun)}")
        except BaseException:
            if active:
                say("正在停下各项；训练到一半的先保存，重新运行同一命令会接着做……")
            children.stop()
            raise
    return outcome


def _clear(run: Run, keep_weights: bool) -> None:
    """Delete what nobody will read again: the state to resume from, and weights that only this run's figures needed."""
    for name in ("checkpoints",) if run.task is None else () if keep_weights else ("checkpoints", "model"):
        shutil.rmtree(run.folder / name, ignore_errors=True)


def _finished(runs: Sequence[Run]) -> dict[str, float]:
    """id → seconds of the runs that need not be done.

    A pretraining whose weights are gone is done again only if a run needs them: they take room, and the figures made
    with them stay what they are.
    """
    seconds = {run.id: found for run in runs if (found := finished(run)) is not None}
    needed = {id_ for run in runs if run.id not in seconds for id_ in run.after}
    gone = [run.id for run in runs if run.id in needed and not (run.folder / "model" / TENSORS).is_file()]
    return {id_: found for id_, found in seconds.items() if id_ not in gone}


def finished(run: Run) -> float | None:
    """How many seconds the run took, if it is done and nothing that decides its result has changed since."""
    if run.task is not None and not (run.results / "metrics.json").is_file():
        return None
    done = _done(run)
    return None if done is None or _of_other_data(run, done["data"]) else done["seconds"]


def _done(run: Run) -> dict[str, Any] | None:
    """What was kept when the run was done, by the same recipe; None where it was not, or by another one."""
    try:
        done = json.loads((run.folder / DONE).read_text(encoding="utf-8"))
        return {"data": {}, **done, "seconds": float(done["seconds"])} if done["key"] == run.key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _of_other_data(run: Run, data: Mapping[str, str]) -> bool:
    """Whether stamps that were kept differ from the present ones; where either is unknown, they do not."""
    return any(data.get(id_, stamp) != stamp for id_, stamp in run.data.items())


def _ready(waiting: Sequence[Run], outcome: Outcome, most: int) -> list[Run]:
    """The first ``most`` runs that need nothing unfinished."""
    return [run for run in waiting if all(id_ in outcome.seconds for id_ in run.after)][:most]


class _Children:
    """The processes that are running, so that all of them can be ended at once."""

    def __init__(self) -> None:
        self._all: set[subprocess.Popen] = set()
        self._stopped = False

    def wait_for(self, command: list[str], log: Path, environment: dict[str, str]) -> int:
        """Run a command with its output in ``log``; returns its exit code."""
        with open(log, "w", encoding="utf-8") as stream:
            # In a session of its own: Ctrl-C reaches this program alone, and the one signal that a run then gets from
            # stop() lets it save; two of them mean "at once".
            child = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                     env=environment, start_new_session=True)
        self._all.add(child)
        if self._stopped:  # between the two lines above
            child.terminate()
        code = child.wait()
        self._all.discard(child)
        return code

    def stop(self) -> None:
        self._stopped = True
        for child in list(self._all):
            child.terminate()


def _one(run: Run, tasks: dict[str, str], free: SimpleQueue[str], children: _Children, program: Sequence[str]
         ) -> str | None:
    """Do one run; returns why it failed, or None."""
    slot = free.get()
    try:
        file = _beside(run, ".yaml")
        settings: dict[str, object] = {"device": slot if slot == "cpu" else "gpu"}
        if slot == "cpu" and (run.task is None or tasks[run.task] in TRAINED):
            settings["ranks"] = 1  # the other cores have runs of their own
        recipe = merge(run.recipe(), {"Global": settings})
        write_text(file, yaml.safe_dump(recipe, allow_unicode=True, sort_keys=False, width=120))
        (run.folder / DONE).unlink(missing_ok=True)
        _remove_left_over(run)
        write_text(_beside(run, ".key"), _begun_with(run))
        log = _beside(run, ".log")
        code = children.wait_for([*program, run.tool, "-c", str(file)], log, _environment(slot))
        return None if code == 0 else _why(log, code)
    except UserError as error:  # a full disk, say
        return str(error)
    finally:
        free.put(slot)


def _beside(run: Run, suffix: str) -> Path:
    return run.folder.with_name(run.folder.name + suffix)


def _remove_left_over(run: Run) -> None:
    """Delete what an earlier state of the recipe left in the run's folder and the run would take for its own.

    An evaluation of another subset would lie beside the new one.  A training that was interrupted, begun with other
    data or weights under the same settings, would be continued: it compares recipes, not what they name.
    """
    for old in run.folder.glob("eval_*") if run.tool == "eval" else ():
        shutil.rmtree(old, ignore_errors=True)
    try:
        key, *stamps = _beside(run, ".key").read_text(encoding="utf-8").splitlines()
        changed = key != run.key or _of_other_data(run, dict(line.split(" ") for line in stamps))
    except OSError:
        return
    except ValueError:  # a damaged file
        changed = True
    if changed:
        shutil.rmtree(run.folder / "checkpoints", ignore_errors=True)


def _begun_with(run: Run) -> str:
    """The key, and a line a stamp."""
    return "".join(f"{line}\n" for line in [run.key, *(f"{id_} {stamp}" for id_, stamp in run.data.items())])


def _environment(slot: str) -> dict[str, str]:
    """As here, but for what keeps a run to its device."""
    package = str(Path(__file__).resolve().parents[2])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1",
                                PARENT: str(os.getpid())}
    if slot == "cpu":
        # Not among "ours" any more: a value that counts as the user's stays as it is.
        return environment | {"OMP_NUM_THREADS": "1", "PADDLE_CXR_ENV": ""}
    return environment | {VISIBLE: _card(int(slot.partition(":")[2]), os.environ.get(VISIBLE))}


def _card(number: int, visible: str | None) -> str:
    """What ``gpu:<number>`` is called: the user may have left only some of the machine's GPUs to this program."""
    return visible.split(",")[number].strip() if visible else str(number)


def _why(log: Path, code: int) -> str:
    """The last line a failed run printed, which for a user's mistake is the one that explains it."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        lines = []
    ending = f"退出码 {code}"
    if code < 0:
        ending = f"被信号 {-code} 终止" + ("，多半是内存不足" if code == -signal.SIGKILL else "")
    return f"{lines[-1].strip() if lines else '什么也没有说'}（{ending}；全部输出在 {log}）"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
