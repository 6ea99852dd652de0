"""Evaluation: data sets of the shared folder, preprocessing, metrics, and the table of tasks (``TASKS``).

``evaluate(TASKS["mobilenet_v2_1.0_224_fp32"].tests[0], run)`` measures anything that maps feeds to outputs.
"""

from tvm_ergo.evaluation.datasets import has_shared, model_bytes, shared_root
from tvm_ergo.evaluation.lookup import calibration_inputs, find_task, input_shapes_of, own_test
from tvm_ergo.evaluation.runner import Outcome, evaluate
from tvm_ergo.evaluation.tasks import TASKS, Source, Task, Test

__all__ = [
    "TASKS",
    "Outcome",
    "Source",
    "Task",
    "Test",
    "calibration_inputs",
    "evaluate",
    "find_task",
    "has_shared",
    "input_shapes_of",
    "model_bytes",
    "own_test",
    "shared_root",
]
