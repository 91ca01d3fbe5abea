"""Patched models in transformers' Trainer, and under accelerate."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("accelerate")
sys.path.insert(0, str(Path(__file__).parent))
import tiny_models as tiny
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, Trainer, TrainingArguments

from xent.integrations.lazy_logits import LazyLogits
from xent.integrations.transformers import LogitsWarning, causal_loss, patch

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*will be removed in v6:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning"),
]


def rows(seed, many=12, length=10):
    """Samples of different numbers of labels, so that a mean of means would be seen."""
    given = tiny.batch(seed, rows=many, length=length)
    for i in range(many):
        given["labels"][i, : i % 5] = -100
    return [{k: v[i] for k, v in given.items()} for i in range(many)]


def trained(
    model, folder, data, trainer=Trainer, arguments=TrainingArguments, more=None, **options
):
    """A trainer after three steps of accumulated gradients and an evaluation."""
    options = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 2,
        "per_device_eval_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "num_train_epochs": 1,
        "logging_steps": 1,
        "learning_rate": 1e-2,
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "seed": 7,
        **options,
    }
    made = trainer(
        model=model,
        args=arguments(**options),
        train_dataset=data,
        eval_dataset=data,
        **(more or {}),
    )
    made.train()
    made.evaluate()
    return made


def losses(trainer):
    found = [line.get("loss", line.get("eval_loss")) for line in trainer.state.log_history]
    return torch.tensor([x for x in found if x is not None], dtype=torch.float64)


def weights(model):
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny products take longer on two threads where both are busy."""
    many = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(many)


@pytest.mark.parametrize("name", ["gemma2", "bert"])
def test_train_and_evaluate_as_unpatched(name, tmp_path, seed):
    own, patched = tiny.twins(name, seed)
    patch(patched)
    data = rows(seed)
    theirs, ours = (trained(m, tmp_path, data) for m in (own, patched))
    assert len(losses(ours)) == 4
    torch.testing.assert_close(losses(ours), losses(theirs), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(weights(patched), weights(own), rtol=1e-3, atol=1e-4)


def test_the_tokens_are_counted_as_before(tmp_path, seed):
    # A loss in LOSS_MAPPING instead would have the labels counted that a shift drops.
    counts = []

    class Counting(Trainer):
        def compute_loss(self, *args, num_items_in_batch=None, **kwargs):
            counts.append(int(num_items_in_batch))
            return super().compute_loss(*args, num_items_in_batch=num_items_in_batch, **kwargs)

    own, patched = tiny.twins("llama", seed)
    patch(patched)
    data = rows(seed)
    for m in (own, patched):
        trained(m, tmp_path, data, Counting)
    half = len(counts) // 2
    assert counts[:half] == counts[half:]


def test_bfloat16_and_gradient_checkpointing_in_the_trainer(tmp_path, seed):
    own, patched = tiny.twins("llama", seed)
    patch(patched)
    more = {"bf16": True, "gradient_checkpointing": True}
    theirs, ours = (trained(m, tmp_path, rows(seed), **more) for m in (own, patched))
    torch.testing.assert_close(losses(ours), losses(theirs), rtol=3e-2, atol=0)


def test_metrics_have_their_logits(tmp_path, seed):
    own, patched = tiny.twins("llama", seed)
    patch(patched)
    seen = []

    def metrics(predicted):
        seen.append(predicted.predictions)
        return {"right": float((predicted.predictions == predicted.label_ids).mean())}

    more = {
        "compute_metrics": metrics,
        "preprocess_logits_for_metrics": lambda logits, labels: logits.argmax(-1),
    }
    options = {"learning_rate": 0.0, "more": more}
    for m in (own, patched):
        trained(m, tmp_path, rows(seed), **options)
    assert (seen[0] == seen[1]).all()


def test_a_loss_given_to_the_trainer(tmp_path, seed):
    own, patched = tiny.twins("llama", seed)
    patch(patched)

    def mine(outputs, labels, num_items_in_batch=None):
        return causal_loss(outputs.logits, labels, num_items_in_batch=num_items_in_batch)

    more = {"compute_loss_func": mine}
    theirs, ours = (trained(m, tmp_path, rows(seed), more=more) for m in (own, patched))
    torch.testing.assert_close(losses(ours), losses(theirs), rtol=1e-4, atol=1e-4)


def test_label_smoothing_of_the_trainer_makes_logits_and_is_right(tmp_path, seed):
    own, patched = tiny.twins("llama", seed)
    patch(patched)
    options = {"label_smoothing_factor": 0.1}
    theirs = trained(own, tmp_path, rows(seed), **options)
    with pytest.warns(LogitsWarning, match="made the logits"):
        ours = trained(patched, tmp_path, rows(seed), **options)
    torch.testing.assert_close(losses(ours), losses(theirs), rtol=1e-4, atol=1e-4)


def test_sequence_to_sequence_training(tmp_path, seed):
    own, patched = tiny.twins("t5", seed)
    patch(patched)
    kinds = {"trainer": Seq2SeqTrainer, "arguments": Seq2SeqTrainingArguments}
    theirs, ours = (trained(m, tmp_path, rows(seed), **kinds) for m in (own, patched))
    torch.testing.assert_close(losses(ours), losses(theirs), rtol=1e-4, atol=1e-4)


def test_accelerate_leaves_them_lazy(seed):
    own, patched = tiny.twins("llama", seed)
    patch(patched)
    AcceleratorState._reset_state(True)  # a Trainer may have been here
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    given = tiny.batch(seed)
    found = []
    for m in (own, patched):
        ready = accelerator.prepare(m)
        outputs = ready(**given)  # wrapped to return float32
        accelerator.backward(outputs.loss)
        found.append((outputs, tiny.gradients(m)))
    (theirs, expected), (ours, gradients) = found
    assert isinstance(ours.logits, LazyLogits)
    assert ours.logits.dtype == theirs.logits.dtype == torch.float32
    assert abs(ours.loss.item() / theirs.loss.item() - 1) < 1e-2
    assert (gradients - expected).norm() < 5e-2 * expected.norm()
    torch.testing.assert_close(ours.logits.tensor(), theirs.logits)
