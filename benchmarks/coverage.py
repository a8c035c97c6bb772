"""Which networks can be pruned, checked, saved, exported and timed: every one that can be built.

Each network runs in a process of its own. It gets random weights, batch-norm statistics and a head
of 7 classes; of each of its groups 30% of the units go, at random. It passes when at least one
group can be cut; removing is the same as zeroing within 1e-5 in float64, on 2 random images; the
narrowed network, saved and loaded, gives the same bits; its ONNX file gives its logits within 1e-4
of 1 or of the largest; and it was timed. Images are as large as the published weights want them,
at most 224 pixels where a network takes any size. A step that fails is named and the others go on.
Networks of the library timm (`--timm`) cannot be saved, since recipes know torchvision's builders,
and are exported for a batch of one.

    python benchmarks/coverage.py --json coverage.json
    python benchmarks/coverage.py alexnet resnet18 vit_b_32
    python benchmarks/coverage.py --timm
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import platform
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Generator
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from coverage_table import Row, failures, table
from secateurs.files import write_json
from secateurs.nets.attention import open_attention
from secateurs.nets.backbones import backbones, build, preprocessing
from secateurs.prune.groups import Groups, find_groups
from secateurs.prune.narrow import PARITY_LIMIT, checked, difference, narrow
from secateurs.ship.checkpoint import load, save
from secateurs.ship.cost import macs, num_parameters
from secateurs.ship.export import OPSET, TOLERANCE, export_onnx, onnx_difference
from secateurs.ship.latency import torch_latency
from secateurs.ship.spec import ImageInput, describe

CLASSES = tuple("abcdefg")
REMOVED_FRACTION = 0.3
LATENCY_SECONDS = 1.0
LARGEST_SIZE = 224  # pixels, of networks that take images of any size
FAMILIES = """\
resnet26d resnetv2_50 seresnext26t_32x4d resnest14d res2net50_26w_4s skresnet18 regnety_002
densenet121 dla34 dpn68 vgg11_bn ese_vovnet19b_dw hrnet_w18_small selecsls42b cspdarknet53
efficientnet_b0 tf_efficientnetv2_b0 mobilenetv3_small_100 mobilenetv4_conv_small ghostnet_100
rexnet_100 repvgg_a0 mobileone_s0 repvit_m0_9 fastvit_t8 mobilevit_xs edgenext_xx_small
efficientformer_l1 efficientvit_b0 levit_128s convnext_atto convnextv2_atto mixer_s32_224
resmlp_12_224 gmlp_s16_224 vit_tiny_patch16_224 deit3_small_patch16_224 eva02_tiny_patch14_224
cait_xxs24_224 xcit_nano_12_p16_224 swin_tiny_patch4_window7_224 swinv2_tiny_window8_256
coatnet_nano_rw_224 poolformer_s12 caformer_s18 mambaout_femto hgnetv2_b0 eca_nfnet_l0 pit_ti_224
pvt_v2_b0 twins_svt_small tiny_vit_5m_224 focalnet_tiny_srf davit_tiny mvitv2_tiny hiera_tiny_224
crossvit_tiny_240 inception_v4 xception41 botnet26t_256
"""


def reason_of(error: BaseException) -> str:
    """An exception and what caused it first, in a line."""
    first = error
    while first.__cause__ is not None:
        first = first.__cause__
    chain = [error] if first is error else [error, first]
    lines = [
        f"{type(e).__name__}: {next((ln for ln in str(e).splitlines() if ln.strip()), '')[:200]}"
        for e in chain
    ]
    last = traceback.extract_tb(first.__traceback__)[-1:]
    return " <- ".join(lines) + "".join(f" ({Path(t.filename).name}:{t.lineno})" for t in last)


@contextlib.contextmanager
def step(row: Row, name: str) -> Generator[None]:
    """A failure inside is recorded, and all that is known so far is printed for the parent."""
    row.step = name
    print(json.dumps(asdict(row)), flush=True)
    start = time.perf_counter()
    try:
        yield
    except Exception as error:  # Whatever goes wrong is the finding.
        row.failures[name] = reason_of(error)
    row.step_seconds[name] = round(time.perf_counter() - start, 2)
    row.cpu_seconds = round(time.process_time(), 2)


def randomise(model: nn.Module) -> None:
    """Statistics and constant parameters drawn at random: a head of zeros would hide all cuts."""
    for module in model.modules():
        if isinstance(getattr(module, "running_mean", None), Tensor):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.numel() > 1 and parameter.min() == parameter.max():
                inputs = parameter.shape[1:].numel()
                spread = 0.1 if inputs == 1 else inputs**-0.5
                parameter.add_(torch.randn_like(parameter), alpha=spread)


def prepared(name: str, *, timm: bool) -> tuple[nn.Module, int]:
    """A network in eval mode and its input size in pixels."""
    torch.manual_seed(0)
    if timm:
        import timm as library

        model = library.create_model(name, num_classes=len(CLASSES))
        size = int(model.pretrained_cfg["input_size"][-1])
    else:
        model, size = build(name, len(CLASSES)), preprocessing(name).size
        if not name.startswith(("vit", "maxvit", "swin")):
            size = min(size, LARGEST_SIZE)
    model = open_attention(model)
    randomise(model)
    return model.eval(), size


def chosen(groups: Groups) -> dict[str, Tensor]:
    """The units that stay in each group, at least one."""
    generator = torch.Generator().manual_seed(1)
    stay = {}
    for group in groups.found:
        count = max(1, group.num_units - round(REMOVED_FRACTION * group.num_units))
        stay[group.name] = torch.randperm(group.num_units, generator=generator)[:count].sort()[0]
    return stay


def run_steps(row: Row, *, timm: bool) -> None:
    with step(row, "build"):
        model, row.size = prepared(row.network, timm=timm)
    if row.failures:
        return
    images = torch.randn(2, 3, row.size, row.size, generator=torch.Generator().manual_seed(2))
    groups = Groups((), ())
    with step(row, "groups"):
        known = groups = find_groups(model, size=row.size)
        row.groups_cut, row.left_whole = len(groups.found), len(groups.whole)
    with step(row, "check"):
        groups = checked(model, groups, images)
        row.refused = {w.name: w.reason for w in groups.whole[len(known.whole) :]}
    row.groups_cut, row.left_whole = len(groups.found), len(groups.whole)
    row.first_reason = f"{groups.whole[0].name}: {groups.whole[0].reason}" if groups.whole else ""
    if not groups.found:
        row.failures.setdefault("groups", "no group can be cut")
        return
    stay = chosen(groups)
    with step(row, "parity"):
        row.parity = difference(model, groups.found, stay, images)
        if not row.parity <= PARITY_LIMIT:
            row.failures["parity"] = f"removed and zeroed differ by {row.parity:.1e}"
    with step(row, "narrow"):
        narrowed = narrow(model, groups.found, stay).eval()
        row.parameters_fraction = num_parameters(narrowed) / num_parameters(model)
    if "narrow" in row.failures:
        return
    with step(row, "effect"), torch.inference_mode():
        before, after = model(images), narrowed(images)
        row.largest_logit = float(after.abs().max())
        row.effect = float((before - after).abs().max() / before.abs().max().clamp(min=1.0))
        if not row.effect > 100 * PARITY_LIMIT:
            row.failures["effect"] = f"the cut changes outputs by {row.effect:.1e}: parity is blind"
    with step(row, "macs"):
        row.macs_fraction = macs(narrowed, size=row.size) / macs(model, size=row.size)
    with step(row, "latency"):
        timing = torch_latency(model, narrowed, images, budget_s=LATENCY_SECONDS)
        row.latency_ratio = timing.ratio
    del model  # before what takes memory again
    ship(row, narrowed, images, timm=timm)


def ship(row: Row, narrowed: nn.Module, images: Tensor, *, timm: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        spec = None
        if not timm:
            row.saved = "no"
            with step(row, "save"), torch.inference_mode():
                spec = describe(
                    narrowed, row.network, CLASSES, ImageInput.of(row.network, size=row.size)
                )
                save(narrowed, spec, Path(folder))
                loaded = load(Path(folder)).model
                if torch.equal(loaded(images), narrowed(images)):
                    row.saved = "yes"
                else:
                    row.failures["save"] = "outputs of the model loaded differ"
                del loaded
        with step(row, "onnx"):
            if timm:
                plain_export(narrowed, path, images[:1])
                gap = onnx_difference(narrowed, path, images[:1])
            else:
                if spec is None:
                    raise RuntimeError("no recipe: saving failed")
                tolerance = float("inf")  # NaN fails all the same
                check = export_onnx(narrowed, spec, path, images, tolerance=tolerance)
                gap = check.max_abs_difference
            row.onnx = gap / max(1.0, row.largest_logit or 0.0)
            if not row.onnx <= TOLERANCE:
                row.failures["onnx"] = f"ONNX Runtime differs by {row.onnx:.1e}"


def plain_export(model: nn.Module, path: Path, images: Tensor) -> None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model, (images,), dynamo=True, opset_version=OPSET, verbose=False
        )
        assert program is not None
        program.save(path, external_data=False)


def examine(name: str, *, timm: bool) -> None:
    """The child's work: the last line that it prints is the row."""
    with contextlib.suppress(OSError):  # Where memory runs out this process goes, and no other.
        Path("/proc/self/oom_score_adj").write_text("1000")
    row = Row(name)
    run_steps(row, timm=timm)
    row.step = ""
    print(json.dumps(asdict(row)), flush=True)


def load_libraries(*, timm: bool) -> None:
    """Everything that takes long to load, once for all networks."""
    for name in ("onnx", "onnxruntime", "onnxscript", "torch.onnx", "torch._dynamo"):
        import_module(name)
    if timm:
        import_module("timm")
    torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),))


def peak_gib(pid: int) -> float:
    """The most memory that a process has had so far; 0 where the system does not tell."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**20
    return 0.0


def in_process(name: str, *, timm: bool, seconds: float, memory_gib: float) -> Row:
    """A network's row, from a process that is ended when it takes too long or too much."""
    start, peak, ended, status = time.perf_counter(), 0.0, "", 0
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        pid = os.fork()  # all libraries are loaded, and no thread has been started yet
        if pid == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            try:
                examine(name, timm=timm)
            except BaseException:  # The traceback's last line is what the parent tells.
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
        while not (done := os.waitpid(pid, os.WNOHANG))[0]:
            peak = max(peak, peak_gib(pid))
            if time.perf_counter() - start > seconds:
                ended = f"time limit of {seconds:g} s"
            elif peak > memory_gib:
                ended = f"memory limit of {memory_gib:g} GiB"
            if ended:
                os.kill(pid, signal.SIGKILL)
                done = os.waitpid(pid, 0)
                break
            time.sleep(0.2)
        status = os.waitstatus_to_exitcode(done[1])
        out.seek(0)
        err.seek(0)
        lines = [line for line in out if line.startswith("{")]
        row = Row(**json.loads(lines[-1])) if lines else Row(name)
        if row.step:
            last = ([""] + [line.strip() for line in err if line.strip()])[-1][:200]
            died = f"ended by signal {-status}" if status < 0 else last
            row.failures[row.step] = ended or died or f"exit code {status}"
    row.seconds, row.peak_gib = time.perf_counter() - start, peak
    return row


def run_all(names: list[str], given: argparse.Namespace) -> list[Row]:
    rows: dict[str, Row] = {}
    if given.json and given.json.exists():
        rows = {row["network"]: Row(**row) for row in json.loads(given.json.read_text())}
    missing = [name for name in names if name not in rows]

    def one(name: str) -> Row:
        return in_process(name, timm=given.timm, seconds=given.seconds, memory_gib=given.memory_gib)

    for place, name in enumerate(missing, 1):
        row = rows[name] = one(name)
        said = "; ".join(f"{step}: {why}" for step, why in row.failures.items()) or "passed"
        print(
            f"[{place}/{len(missing)}] {name}: {said} ({row.seconds:.0f} s, "
            f"{row.peak_gib:.1f} GiB)",
            file=sys.stderr,
            flush=True,
        )
        if given.json:
            write_json(given.json, [asdict(row) for row in rows.values()])
    return [rows[name] for name in names]


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("networks", nargs="*", help="all of torchvision's, or some of timm's")
    words.add_argument("--timm", action="store_true", help="networks of timm, one a family")
    words.add_argument("--seconds", type=float, default=900.0, help="limit for a network")
    words.add_argument("--memory-gib", type=float, default=18.0, help="limit for a network")
    words.add_argument("--json", type=Path, help="every row; read again to go on")
    given = words.parse_args()
    load_libraries(timm=given.timm)
    library = "timm" if given.timm else "torchvision"
    names = given.networks or (FAMILIES.split() if given.timm else list(backbones()))
    rows = run_all(names, given)
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {torch.get_num_threads()} threads, {platform.machine()}, "
        f"torch {torch.__version__}, {library} {version(library)}\n"
    )
    print(table(rows))
    print()
    print(failures(rows))


if __name__ == "__main__":
    main()
